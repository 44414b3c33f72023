"""Claims: who works on a reservation, and how it came to that.

A claim is a row of ``vcld_claim``. It is made in the transaction that sets the request to
``pending`` and writes the ``begin`` row that VCL's tools look for, so that there is no moment
at which one exists without the others. Every write of a worker names its token and counts
only while the row still holds it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from vcld import schedule
from vcld.processes import ProcessId
from vcld.schema.models import ComputerLoadLog, Request, Reservation, State
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now, utc_now
from vcld.store import loadlog, reservations
from vcld.store.candidates import Candidate
from vcld.store.catalog import Catalog
from vcld.store.grips import ClaimLostError, Grip


def claim(
    connection: Connection,
    catalog: Catalog,
    managementnodeid: int,
    daemon: str,
    candidates: Sequence[Candidate],
) -> list[Grip]:
    """Claim reservations: all of them or none. A request's reservations go together.

    Raises:
        ClaimLostError: one of them is no longer as it was read, or has an owner. The
            transaction must be rolled back; single requests may then be tried one by one.
    """
    grips = [_grip(candidate) for candidate in candidates]
    pairs = list(zip(candidates, grips, strict=True))
    _insert(connection, managementnodeid, daemon, [p for p in pairs if p[0].claim is None])
    for candidate, grip in pairs:
        if candidate.claim is not None:
            _take_up(connection, daemon, candidate, grip)
    _set_pending(connection, catalog, candidates)
    _mark_begin(connection, catalog, candidates)
    return grips


def _grip(candidate: Candidate) -> Grip:
    """What the claim will say; a claim on the same state keeps its memory of the request."""
    held = candidate.claim
    resumes = held is not None and (
        held.state == (candidate.laststate if candidate.state == "pending" else candidate.state)
    )
    state, laststate = candidate.state, candidate.laststate
    if held is not None and candidate.state == "pending":
        state, laststate = held.state, held.laststate
    return Grip(
        reservationid=candidate.reservationid,
        requestid=candidate.requestid,
        computerid=candidate.computerid,
        state=state,
        laststate=laststate,
        token=secrets.randbits(32),
        attempts=held.attempts if held is not None and resumes else 0,
        memo=json.loads(held.memo) if held is not None and resumes and held.memo else {},
        is_parent=candidate.is_parent,
        is_pending=not candidate.is_split or candidate.state == "pending",
    )


def _insert(
    connection: Connection,
    managementnodeid: int,
    daemon: str,
    pairs: Sequence[tuple[Candidate, Grip]],
) -> None:
    if not pairs:
        return
    rows = [
        {
            "reservationid": grip.reservationid,
            "requestid": grip.requestid,
            "managementnodeid": managementnodeid,
            "computerid": grip.computerid,
            "state": grip.state,
            "laststate": grip.laststate,
            "phase": "running",
            "daemon": daemon,
            "token": grip.token,
            "attempts": 0,
            "revoked": 0,
            "claimed_at": utc_now(),
        }
        for _, grip in pairs
    ]
    try:
        connection.execute(sa.insert(Claim).values(rows))
    except IntegrityError as err:
        raise ClaimLostError from err


def _take_up(connection: Connection, daemon: str, candidate: Candidate, grip: Grip) -> None:
    held = candidate.claim
    assert held is not None
    done = connection.execute(
        sa.update(Claim)
        .where(
            Claim.reservationid == grip.reservationid,
            Claim.token == held.token,
            Claim.phase != "running",
        )
        .values(
            state=grip.state,
            laststate=grip.laststate,
            phase="running",
            daemon=daemon,
            token=grip.token,
            attempts=grip.attempts,
            memo=json.dumps(dict(grip.memo)) if grip.memo else None,
            computerid=grip.computerid,
            exclusive_computerid=None,
            pid=None,
            pid_started=None,
            revoked=0,
            claimed_at=utc_now(),
            next_at=None,
            wake_on=None,
            reason=None,
        )
    )
    if done.rowcount != 1:
        raise ClaimLostError


def _set_pending(connection: Connection, catalog: Catalog, candidates: Sequence[Candidate]) -> None:
    """Set the requests to pending, guarded by the pair that was read (specification §6.1)."""
    groups: dict[tuple[str, str], set[int]] = {}
    for candidate in candidates:
        if candidate.state != "pending" and not candidate.is_split:
            pair = candidate.state, candidate.laststate
            groups.setdefault(pair, set()).add(candidate.requestid)
    for (state, laststate), requestids in groups.items():
        done = connection.execute(
            sa.update(Request)
            .where(
                Request.id.in_(sorted(requestids)),
                Request.stateid == catalog.state_id(state),
                Request.laststateid == catalog.state_id(laststate),
            )
            .values(stateid=catalog.state_id("pending"), laststateid=catalog.state_id(state))
        )
        if done.rowcount != len(requestids):
            raise ClaimLostError


def _mark_begin(connection: Connection, catalog: Catalog, candidates: Sequence[Candidate]) -> None:
    candidates = [candidate for candidate in candidates if candidate.computerid]
    if not candidates:
        return
    old = [c.reservationid for c in candidates if c.has_old_marks]
    if old:
        loadlog.delete(connection, catalog, old, ("begin", "exited"))
    try:
        connection.execute(
            sa.insert(ComputerLoadLog).values(
                [
                    {
                        "reservationid": candidate.reservationid,
                        "computerid": candidate.computerid,
                        "loadstateid": catalog.loadstate_id("begin"),
                        "timestamp": site_now(),
                        "additionalinfo": f"beginning to process, state is {candidate.state}",
                    }
                    for candidate in candidates
                ]
            )
        )
    except IntegrityError as err:  # the reservation was deleted between read and claim
        raise ClaimLostError from err
    # A sign of life for users and for the other parts of a cluster.
    watched = [
        candidate.reservationid
        for candidate in candidates
        if candidate.state not in schedule.BACKGROUND_STATES and not _was_just_touched(candidate)
    ]
    if watched:
        reservations.touch(connection, watched)


def take_along(connection: Connection, managementnodeid: int, reservationids: Sequence[int]) -> int:
    """Claims follow their reservations, which are this node's now; return how many did.

    The memory of what was done stays. One that says a worker has it is found to have none here.
    """
    is_ours = sa.exists().where(
        Reservation.id == Claim.reservationid, Reservation.managementnodeid == managementnodeid
    )
    done = connection.execute(
        sa.update(Claim)
        .where(Claim.reservationid.in_(sorted(reservationids)), is_ours)
        .values(managementnodeid=managementnodeid)
    )
    return done.rowcount


#: A sign of life as young as this needs no renewal.
FRESH_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningClaim:
    """A claim that says a worker runs, as the next daemon finds it."""

    grip: Grip
    daemon: str
    #: None: the worker was claimed for, but never said that it runs.
    process: ProcessId | None


def _was_just_touched(candidate: Candidate) -> bool:
    age = candidate.timing.checked_in_seconds
    return age is not None and -FRESH_SECONDS < age <= 0


def count_running(connection: Connection, managementnodeid: int) -> int:
    """How many claims of the node a worker holds or held."""
    query = (
        sa.select(sa.func.count())
        .select_from(Claim)
        .where(Claim.managementnodeid == managementnodeid, Claim.phase == "running")
    )
    return connection.scalar(query) or 0


def claimed_of_request(connection: Connection, requestid: int) -> set[int]:
    """Ids of the request's reservations that have a claim."""
    return set(
        connection.scalars(sa.select(Claim.reservationid).where(Claim.requestid == requestid))
    )


def load_running(connection: Connection, managementnodeid: int) -> list[RunningClaim]:
    """All claims of the node that a worker holds or held."""
    pair_state = aliased(State)
    lower = aliased(Reservation)
    has_lower = sa.exists().where(
        lower.requestid == Claim.requestid, lower.id < Claim.reservationid
    )
    rows = connection.execute(
        sa.select(Claim, pair_state.name.label("now"), has_lower.label("is_child"))
        .join(Request, Request.id == Claim.requestid, isouter=True)
        .join(pair_state, pair_state.id == Request.stateid, isouter=True)
        .where(Claim.managementnodeid == managementnodeid, Claim.phase == "running")
    )
    return [
        RunningClaim(
            grip=Grip(
                reservationid=row.reservationid,
                requestid=row.requestid,
                computerid=row.computerid,
                state=row.state,
                laststate=row.laststate,
                token=row.token,
                attempts=row.attempts,
                memo=json.loads(row.memo) if row.memo else {},
                is_parent=not row.is_child,
                is_pending=row.now == "pending",
            ),
            daemon=row.daemon,
            process=None if row.pid is None else ProcessId(row.pid, row.pid_started or 0),
        )
        for row in rows
    ]
