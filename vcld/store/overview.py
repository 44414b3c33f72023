"""What people ask to see: requests, who works on them, how far they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld import processes, schedule
from vcld.processes import ProcessId
from vcld.schema.models import (
    Computer,
    ImageRevision,
    ManagementNode,
    Provisioning,
    Request,
    Reservation,
    State,
    User,
)
from vcld.schema.own import Claim, Daemon
from vcld.schema.sqltime import after_site_now, seconds_between, site_age, site_now, utc_now
from vcld.store.strangers import SILENT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLine:
    """One reservation as ``vcld status`` shows it."""

    requestid: int
    reservationid: int
    state: str
    laststate: str
    computer: str
    computer_state: str
    computer_type: str
    provisioning: str
    image: str
    imageid: int
    user: str
    managementnode: str
    start_in_seconds: int
    end_in_seconds: int
    #: running, waiting or retry; None: no vcld has it.
    phase: str | None
    #: Of the worker; None without one, and when nobody knows whether it lives.
    pid: int | None
    #: What the claim says of it, though nobody watches it.
    last_pid: int | None
    #: Why nobody knows what became of the claim; None: a vcld watches it, or there is none.
    unwatched_because: str | None
    attempts: int
    reason: str
    #: Seconds until the claim is taken up again.
    next_in_seconds: int | None

    @property
    def is_watched(self) -> bool:
        """True when a live vcld acts for the node of the claim."""
        return self.phase is not None and self.unwatched_because is None


def load_requests(
    connection: Connection,
    requestids: Collection[int] | None = None,
    *,
    everything: bool = True,
) -> list[RequestLine]:
    """All requests, or some, by id; without ``everything`` only those that matter now."""
    now, last, computer_state = aliased(State), aliased(State), aliased(State)
    holder = aliased(ManagementNode)
    query = (
        sa.select(
            Request.id,
            Reservation.id.label("reservationid"),
            sa.func.coalesce(now.name, "?").label("state"),
            sa.func.coalesce(last.name, "?").label("laststate"),
            Computer.hostname,
            computer_state.name.label("computer_state"),
            Computer.type,
            Provisioning.name.label("provisioning"),
            ImageRevision.imagename,
            Reservation.imageid,
            User.unityid,
            ManagementNode.hostname.label("node"),
            seconds_between(site_now(), Request.start).label("start_in"),
            seconds_between(site_now(), Request.end).label("end_in"),
            Claim.phase,
            Claim.pid,
            Claim.attempts,
            Claim.reason,
            seconds_between(utc_now(), Claim.next_at).label("next_in"),
            holder.hostname.label("holder"),
            site_age(holder.lastcheckin).label("silent"),
            Daemon.daemon,
            Daemon.stopped_at,
        )
        .select_from(Request)
        .join(now, now.id == Request.stateid, isouter=True)
        .join(last, last.id == Request.laststateid, isouter=True)
        .join(Reservation, Reservation.requestid == Request.id, isouter=True)
        .join(Computer, Computer.id == Reservation.computerid, isouter=True)
        .join(computer_state, computer_state.id == Computer.stateid, isouter=True)
        .join(Provisioning, Provisioning.id == Computer.provisioningid, isouter=True)
        .join(ImageRevision, ImageRevision.id == Reservation.imagerevisionid, isouter=True)
        .join(User, User.id == Request.userid, isouter=True)
        .join(ManagementNode, ManagementNode.id == Reservation.managementnodeid, isouter=True)
        .join(Claim, Claim.reservationid == Reservation.id, isouter=True)
        .join(holder, holder.id == Claim.managementnodeid, isouter=True)
        .join(Daemon, Daemon.managementnodeid == Claim.managementnodeid, isouter=True)
        .order_by(Request.id, Reservation.id)
    )
    if requestids is not None:
        query = query.where(Request.id.in_(sorted(requestids)))
    if not everything:
        matters = sa.and_(now.name.is_distinct_from("complete"), Request.start < _soon())
        query = query.where(sa.or_(Claim.reservationid.is_not(None), matters))
    return [_line(row) for row in connection.execute(query)]


def _line(row: Any) -> RequestLine:
    unwatched = _why_unwatched(row) if row.phase is not None else None
    return RequestLine(
        requestid=row.id,
        reservationid=row.reservationid or 0,
        state=row.state,
        laststate=row.laststate,
        computer=(row.hostname or "?").partition(".")[0],
        computer_state=row.computer_state or "?",
        computer_type=row.type or "?",
        provisioning=row.provisioning or "?",
        image=row.imagename or "?",
        imageid=row.imageid or 0,
        user=row.unityid or "?",
        managementnode=row.node or "?",
        start_in_seconds=row.start_in or 0,
        end_in_seconds=row.end_in or 0,
        phase=row.phase,
        pid=row.pid if unwatched is None else None,
        last_pid=row.pid,
        unwatched_because=unwatched,
        attempts=row.attempts or 0,
        reason=row.reason or "",
        next_in_seconds=row.next_in,
    )


def _why_unwatched(row: Any) -> str | None:
    if row.daemon is None:
        return f"no vcld acts for {row.holder or 'its management node, which has no row'}"
    if row.stopped_at is not None:
        return f"vcld for {row.holder} is stopped"
    if row.silent is None or row.silent > SILENT_SECONDS:
        since = "ever" if row.silent is None else f"for {row.silent} s"
        return f"{row.holder} is silent {since}"
    return None


def _soon() -> Any:
    """Requests that start later are not even loaded in advance yet."""
    return after_site_now(schedule.PRELOAD_TO_SECONDS)


def count_hidden(connection: Connection) -> dict[str, int]:
    """How many requests do not matter now, by why."""
    query = (
        sa.select(
            sa.func.sum(sa.case((Request.start >= _soon(), 1), else_=0)),
            sa.func.sum(
                sa.case((sa.and_(State.name == "complete", Request.start < _soon()), 1), else_=0)
            ),
        )
        .select_from(Request)
        .join(State, State.id == Request.stateid, isouter=True)
        .where(~sa.exists().where(Claim.requestid == Request.id))
    )
    later, complete = connection.execute(query).one()
    counts = {"start later": int(later or 0), "complete": int(complete or 0)}
    return {why: count for why, count in counts.items() if count}


def computer_counts(connection: Connection) -> dict[str, int]:
    """Number of computers by state."""
    query = (
        sa.select(State.name, sa.func.count())
        .join(Computer, Computer.stateid == State.id)
        .where(Computer.deleted == 0)
        .group_by(State.name)
        .order_by(State.name)
    )
    return {name: count for name, count in connection.execute(query)}


def out_of_service(connection: Connection) -> dict[str, list[str]]:
    """Names, without the domain, of computers that only a person brings back, by state."""
    query = (
        sa.select(State.name, Computer.hostname)
        .join(Computer, Computer.stateid == State.id)
        .where(Computer.deleted == 0, State.name.in_(("failed", "maintenance")))
        .order_by(State.name, Computer.hostname)
    )
    names: dict[str, list[str]] = {}
    for state, hostname in connection.execute(query):
        names.setdefault(state, []).append((hostname or "?").partition(".")[0])
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """A management node and its daemon."""

    hostname: str
    state: str
    #: Age of the heartbeat; None: it never had one.
    silent_seconds: int | None
    pid: int | None
    host: str | None
    version: str | None
    stopped: bool
    #: It was never stopped, yet its process, one of this machine, is no more.
    gone: bool

    @property
    def is_served(self) -> bool:
        """True when a live vcld acts for the node."""
        silent = self.silent_seconds is None or self.silent_seconds > SILENT_SECONDS
        return self.pid is not None and not (self.stopped or self.gone or silent)


def load_nodes(connection: Connection) -> list[NodeLine]:
    """All management nodes by name."""
    query = (
        sa.select(
            ManagementNode.hostname,
            State.name.label("state"),
            site_age(ManagementNode.lastcheckin).label("silent"),
            Daemon.pid,
            Daemon.pid_started,
            Daemon.kernel_boot,
            Daemon.hostname.label("host"),
            Daemon.version,
            Daemon.stopped_at,
        )
        .join(State, State.id == ManagementNode.stateid)
        .join(Daemon, Daemon.managementnodeid == ManagementNode.id, isouter=True)
        .order_by(ManagementNode.hostname)
    )
    return [
        NodeLine(
            hostname=row.hostname,
            state=row.state,
            silent_seconds=row.silent,
            pid=row.pid,
            host=row.host,
            version=row.version,
            stopped=row.stopped_at is not None,
            gone=_is_gone(row),
        )
        for row in connection.execute(query)
    ]


def _is_gone(row: Any) -> bool:
    if row.pid is None or row.stopped_at is not None:
        return False
    return processes.is_gone(row.host, row.kernel_boot, ProcessId(row.pid, row.pid_started))
