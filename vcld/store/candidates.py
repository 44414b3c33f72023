"""What the supervisor must know of a reservation to decide on it: one query for many."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import aliased

from vcld.schedule import Timing
from vcld.schema.models import (
    ChangeLog,
    Computer,
    ComputerLoadLog,
    ComputerLoadState,
    Request,
    Reservation,
    ServerRequest,
    State,
)
from vcld.schema.own import Claim
from vcld.schema.sqltime import seconds_between, site_now
from vcld.store.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """The claim row that a reservation already has."""

    phase: str
    token: int
    state: str
    laststate: str
    attempts: int
    revoked: bool
    memo: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A reservation of this node as the rows are now."""

    requestid: int
    reservationid: int
    #: 0: the computer has no row.
    computerid: int
    logid: int | None
    state: str
    laststate: str
    timing: Timing
    #: Reservations of the whole request, and the lowest id among them.
    reservation_count: int
    parentid: int
    #: Of them, those of this node.
    local_count: int
    #: Rows that an earlier worker, ours or a Perl one, left in the load log.
    has_old_marks: bool
    claim: HeldClaim | None

    @property
    def is_parent(self) -> bool:
        return self.reservationid == self.parentid

    @property
    def is_split(self) -> bool:
        """True when other management nodes hold a part of the request."""
        return self.local_count < self.reservation_count


def load_candidates(
    connection: Connection, catalog: Catalog, managementnodeid: int, requestids: Collection[int]
) -> list[Candidate]:
    """Read all reservations of this node that belong to the requests, by id."""
    rows = connection.execute(_query(), {"requestids": list(requestids), "node": managementnodeid})
    return [_candidate(row, catalog) for row in rows]


@functools.cache
def _query() -> sa.Select[*tuple[Any, ...]]:
    now, last = aliased(State), aliased(State)
    sibling = aliased(Reservation)
    mark, mark_state = aliased(ComputerLoadLog), aliased(ComputerLoadState)
    of_request = sibling.requestid == Request.id
    address_changed = (
        sa.select(sa.func.max(ChangeLog.timestamp))
        .where(ChangeLog.logid == Request.logid, ChangeLog.remoteIP.is_not(None))
        .correlate(Request)
        .scalar_subquery()
    )
    marks = sa.exists().where(
        mark.reservationid == Reservation.id,
        mark.loadstateid == mark_state.id,
        mark_state.loadstatename.in_(("begin", "exited")),
    )
    return (
        sa.select(
            Request.id.label("requestid"),
            Reservation.id.label("reservationid"),
            sa.func.coalesce(Computer.id, 0).label("computerid"),
            Request.logid,
            now.name.label("state"),
            last.name.label("laststate"),
            seconds_between(site_now(), Request.start).label("start_in"),
            seconds_between(site_now(), Request.end).label("end_in"),
            seconds_between(site_now(), Reservation.lastcheck).label("checked_in"),
            seconds_between(site_now(), address_changed).label("changed_in"),
            Request.preload,
            sa.exists().where(ServerRequest.requestid == Request.id).label("is_server"),
            sa.select(sa.func.count()).where(of_request).correlate(Request).label("total"),
            sa.select(sa.func.min(sibling.id))
            .where(of_request)
            .correlate(Request)
            .label("parentid"),
            sa.select(sa.func.count())
            .where(of_request, sibling.managementnodeid == Reservation.managementnodeid)
            .correlate(Request, Reservation)
            .label("local"),
            marks.label("marks"),
            Claim.phase,
            Claim.token,
            Claim.state.label("claim_state"),
            Claim.laststate.label("claim_laststate"),
            Claim.attempts,
            Claim.revoked,
            Claim.memo,
        )
        .select_from(Request)
        .join(Reservation, Reservation.requestid == Request.id)
        .join(now, now.id == Request.stateid)
        .join(last, last.id == Request.laststateid)
        .join(Computer, Computer.id == Reservation.computerid, isouter=True)
        .join(Claim, Claim.reservationid == Reservation.id, isouter=True)
        .where(
            Request.id.in_(sa.bindparam("requestids", expanding=True)),
            Reservation.managementnodeid == sa.bindparam("node"),
        )
        .order_by(Reservation.id)
    )


def _candidate(row: Row[*tuple[Any, ...]], catalog: Catalog) -> Candidate:
    kind = "server" if row.is_server else "cluster" if row.total > 1 else "general"
    claim = None
    if row.phase is not None:
        claim = HeldClaim(
            phase=row.phase,
            token=row.token,
            state=row.claim_state,
            laststate=row.claim_laststate,
            attempts=row.attempts,
            revoked=bool(row.revoked),
            memo=row.memo,
        )
    timing = Timing(
        state=row.state,
        laststate=row.laststate,
        # The zero date gives NULL: a request without a start is due, one without an end over.
        start_in_seconds=_or(row.start_in, 0),
        end_in_seconds=_or(row.end_in, 0),
        checked_in_seconds=row.checked_in,
        address_changed_in_seconds=row.changed_in,
        preload_done=bool(row.preload),
        check_interval_seconds=catalog.timing(f"{kind}_inuse_check"),
    )
    return Candidate(
        requestid=row.requestid,
        reservationid=row.reservationid,
        computerid=row.computerid,
        logid=row.logid,
        state=row.state,
        laststate=row.laststate,
        timing=timing,
        reservation_count=row.total,
        parentid=row.parentid,
        local_count=row.local,
        has_old_marks=bool(row.marks),
        claim=claim,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
