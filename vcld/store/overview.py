"""What people ask to see: requests, who works on them, how far they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld import schedule
from vcld.schema.models import (
    Computer,
    ComputerLoadFlow,
    ComputerLoadLog,
    ComputerLoadState,
    ImageRevision,
    ManagementNode,
    Provisioning,
    Request,
    Reservation,
    State,
    User,
)
from vcld.schema.own import Claim, Daemon, LoadDuration
from vcld.schema.sqltime import after_site_now, seconds_between, site_now, utc_now


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
    pid: int | None
    attempts: int
    reason: str
    #: Seconds until the claim is taken up again.
    next_in_seconds: int | None


def load_requests(
    connection: Connection,
    requestids: Collection[int] | None = None,
    *,
    everything: bool = True,
) -> list[RequestLine]:
    """All requests, or some, by id; without ``everything`` only those that matter now."""
    now, last, computer_state = aliased(State), aliased(State), aliased(State)
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
        .order_by(Request.id, Reservation.id)
    )
    if requestids is not None:
        query = query.where(Request.id.in_(sorted(requestids)))
    if not everything:
        matters = sa.and_(now.name.is_distinct_from("complete"), Request.start < _soon())
        query = query.where(sa.or_(Claim.reservationid.is_not(None), matters))
    return [
        RequestLine(
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
            pid=row.pid,
            attempts=row.attempts or 0,
            reason=row.reason or "",
            next_in_seconds=row.next_in,
        )
        for row in connection.execute(query)
    ]


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


def load_nodes(connection: Connection) -> list[NodeLine]:
    """All management nodes by name."""
    query = (
        sa.select(
            ManagementNode.hostname,
            State.name.label("state"),
            seconds_between(ManagementNode.lastcheckin, site_now()).label("silent"),
            Daemon.pid,
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
        )
        for row in connection.execute(query)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """A step of a load, and how long it takes by measurement or by the site's estimate."""

    name: str
    prettyname: str
    seconds: float


def load_flow(
    connection: Connection, computer_type: str, imageid: int, provisioning: str
) -> list[LoadStep]:
    """The steps of ``computerloadflow`` in order, from the one that follows no other."""
    after = aliased(ComputerLoadState)
    rows = connection.execute(
        sa.select(
            ComputerLoadState.loadstatename,
            ComputerLoadState.prettyname,
            ComputerLoadState.est,
            after.loadstatename.label("following"),
            LoadDuration.milliseconds,
        )
        .select_from(ComputerLoadFlow)
        .join(ComputerLoadState, ComputerLoadState.id == ComputerLoadFlow.computerloadstateid)
        .join(after, after.id == ComputerLoadFlow.nextstateid, isouter=True)
        .join(
            LoadDuration,
            sa.and_(
                LoadDuration.loadstatename == ComputerLoadState.loadstatename,
                LoadDuration.imageid == imageid,
                LoadDuration.provisioning == provisioning,
            ),
            isouter=True,
        )
        .where(ComputerLoadFlow.type == computer_type)
    ).all()
    return _in_order({row.loadstatename: row for row in rows})


def _in_order(rows: Mapping[str, Any]) -> list[LoadStep]:
    followers = {row.following for row in rows.values()}
    name = next((name for name in rows if name not in followers), None)
    # Where loads were measured, a step without a measurement is one that they do not have.
    is_measured = any(row.milliseconds is not None for row in rows.values())
    steps: list[LoadStep] = []
    while name is not None and name in rows and len(steps) < len(rows):
        row = rows[name]
        steps.append(
            LoadStep(
                name=name,
                prettyname=(row.prettyname or name).strip(),
                seconds=(row.milliseconds or 0) / 1000 if is_measured else row.est or 0,
            )
        )
        name = row.following
    return steps


def newest_entries(
    connection: Connection, reservationids: Collection[int]
) -> dict[int, tuple[str, str, int]]:
    """The newest load-log row of each reservation: (name, text, age in seconds)."""
    newest = (
        sa.select(sa.func.max(ComputerLoadLog.id))
        .where(ComputerLoadLog.reservationid.in_(sorted(reservationids)))
        .group_by(ComputerLoadLog.reservationid)
    )
    rows = connection.execute(
        sa.select(
            ComputerLoadLog.reservationid,
            ComputerLoadState.loadstatename,
            ComputerLoadLog.additionalinfo,
            seconds_between(ComputerLoadLog.timestamp, site_now()),
        )
        .join(ComputerLoadState, ComputerLoadState.id == ComputerLoadLog.loadstateid)
        .where(ComputerLoadLog.id.in_(newest))
    )
    return {row[0]: (row[1], row[2] or "", row[3] or 0) for row in rows}
