"""Claims: who works on a reservation, for how long, and what becomes of it.

A claim is a row of ``vcld_claim``. It is made in the transaction that sets the request to
``pending`` and writes the ``begin`` row that VCL's tools look for, so that there is no moment
at which one exists without the others. Every write of a worker names its token and counts
only while the row still holds it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from vcld.processes import ProcessId
from vcld.schema.models import ComputerLoadLog, Request, Reservation, State
from vcld.schema.own import Claim
from vcld.schema.sqltime import after_utc_now, site_now, utc_now
from vcld.store import loadlog
from vcld.store.candidates import Candidate
from vcld.store.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Grip:
    """A worker's hold on its reservation: what its writes are checked against."""

    reservationid: int
    requestid: int
    computerid: int
    #: The request's pair when it was claimed; ``state`` is what the worker works on.
    state: str
    laststate: str
    token: int
    attempts: int
    #: What an earlier run of the handler left, by name.
    memo: Mapping[str, Any]
    is_parent: bool
    #: True once the request is ``pending`` by this claim (not yet for a split cluster).
    is_pending: bool


class ClaimLostError(Exception):
    """Somebody else was faster or the rows changed. Not a failure; look again."""


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
    old = [c.reservationid for c in candidates if c.has_old_marks]
    if old:
        loadlog.delete(connection, catalog, old, ("begin", "exited"))
    ids = [candidate.reservationid for candidate in candidates]
    try:
        connection.execute(
            sa.insert(ComputerLoadLog).values(
                [
                    {
                        "reservationid": candidate.reservationid,
                        "computerid": candidate.computerid,
                        "loadstateid": catalog.loadstate_ids["begin"],
                        "timestamp": site_now(),
                        "additionalinfo": f"beginning to process, state is {candidate.state}",
                    }
                    for candidate in candidates
                ]
            )
        )
    except IntegrityError as err:  # the reservation was deleted between read and claim
        raise ClaimLostError from err
    checked = sa.or_(Reservation.lastcheck.is_(None), Reservation.lastcheck <= site_now())
    connection.execute(
        sa.update(Reservation).where(Reservation.id.in_(ids), checked).values(lastcheck=site_now())
    )


def register(connection: Connection, grip: Grip, process: ProcessId, *, exclusive: bool) -> bool:
    """Note which process works on the claim, and take its computer for it alone if asked.

    Returns:
        False when another worker has the computer; the claim itself is then registered.

    Raises:
        ClaimLostError: the claim is no longer this worker's: it must end without a trace.
    """
    values: dict[str, object] = {"pid": process.pid, "pid_started": process.started}
    taken = {"exclusive_computerid": grip.computerid} if exclusive else {}
    has_computer = True
    try:
        done = _update_own(connection, grip, {**values, **taken})
    except IntegrityError:  # undoes the one statement, not the transaction
        has_computer = False
        done = _update_own(connection, grip, values)
    if done != 1:
        raise ClaimLostError
    return has_computer


def take_computer(connection: Connection, grip: Grip) -> bool:
    """Take the computer for this worker alone; False when another worker has it."""
    try:
        return _update_own(connection, grip, {"exclusive_computerid": grip.computerid}) == 1
    except IntegrityError:
        return False


def _update_own(connection: Connection, grip: Grip, values: Mapping[str, object]) -> int:
    return connection.execute(
        sa.update(Claim).where(*owned(grip), Claim.revoked == 0).values(values)
    ).rowcount


def owned(grip: Grip) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """The condition that the claim is still this worker's."""
    return Claim.reservationid == grip.reservationid, Claim.token == grip.token


def is_owned(connection: Connection, grip: Grip) -> bool:
    """True while the claim is this worker's and nobody wants it back."""
    query = sa.select(Claim.token).where(*owned(grip), Claim.revoked == 0)
    return connection.scalar(query) is not None


def save_memo(connection: Connection, grip: Grip, memo: Mapping[str, Any]) -> bool:
    """Keep what a later run of the handler must know. False when the claim is lost."""
    return _update_own(connection, grip, {"memo": json.dumps(dict(memo))}) == 1


def note(connection: Connection, grip: Grip, reason: str) -> bool:
    """Write what the worker is about. False when the claim is lost or revoked."""
    return _update_own(connection, grip, {"reason": reason[:255]}) == 1


def release(connection: Connection, grip: Grip) -> bool:
    """Let go of the claim. False when it was not ours any more."""
    return connection.execute(sa.delete(Claim).where(*owned(grip))).rowcount == 1


def park(
    connection: Connection,
    grip: Grip,
    *,
    seconds: float,
    wake_on: str | None,
    memo: Mapping[str, Any],
    reason: str,
) -> bool:
    """Let the claim wait without a process. False when it was not ours any more."""
    return (
        connection.execute(
            sa.update(Claim)
            .where(*owned(grip), Claim.revoked == 0)
            .values(
                token=secrets.randbits(32),
                phase="waiting",
                pid=None,
                pid_started=None,
                exclusive_computerid=None,
                next_at=after_utc_now(seconds),
                wake_on=wake_on,
                memo=json.dumps(dict(memo)),
                attempts=0,
                reason=reason[:255],
            )
        ).rowcount
        == 1
    )


def postpone(
    connection: Connection, grip: Grip, *, attempts: int, seconds: float, reason: str
) -> bool:
    """Keep the claim for another attempt after some time. False when it was not ours."""
    return (
        connection.execute(
            sa.update(Claim)
            .where(*owned(grip))
            .values(
                token=secrets.randbits(32),
                phase="retry",
                pid=None,
                pid_started=None,
                exclusive_computerid=None,
                next_at=after_utc_now(seconds),
                wake_on=None,
                attempts=attempts,
                reason=reason[:255],
            )
        ).rowcount
        == 1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningClaim:
    """A claim that says a worker runs, as the next daemon finds it."""

    grip: Grip
    daemon: str
    #: None: the worker was claimed for, but never said that it runs.
    process: ProcessId | None


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


def fence(connection: Connection, grip: Grip) -> Grip | None:
    """Draw a new token, so that whoever held the claim can write no more.

    Returns:
        The grip with the new token, None when the claim is gone.
    """
    token = secrets.randbits(32)
    done = connection.execute(sa.update(Claim).where(*owned(grip)).values(token=token))
    return replace(grip, token=token) if done.rowcount == 1 else None


def adopt(connection: Connection, grip: Grip, daemon: str) -> None:
    """Note that a worker of an earlier daemon is ours now."""
    connection.execute(sa.update(Claim).where(*owned(grip)).values(daemon=daemon))
