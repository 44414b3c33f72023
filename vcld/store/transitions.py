"""The end of a worker's run, written in one transaction; and guarded writes on the way.

The order is that of VCL daemon specification §7.3, but a reader never sees half of it. Each
write is a compare-and-swap: on the claim's token, and on the pair ``pending``/state that the
claim set. When either fails, the request belongs to somebody else now and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.errors import ReservationChangedError
from vcld.schema.models import Computer, Log, Request, Reservation
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now
from vcld.store import claims, loadlog, requests
from vcld.store.candidates import Candidate
from vcld.store.catalog import Catalog
from vcld.store.claims import Grip

#: A write of a handler that belongs into the transaction of its outcome.
Effect = Callable[[Connection, Catalog], None]

#: Request states after which the web site expects a fresh ``lastcheck``.
CHECKED_STATES = frozenset(
    {"reserved", "inuse", "imageinuse", "rebootsoft", "reboothard", "servermodified"}
)
#: The load history stays until the user has the computer (specification §7.3, step 6).
KEEPS_HISTORY = frozenset({"new", "reserved"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a run of a handler leaves in the database. None leaves a thing as it is."""

    request_state: str | None = None
    #: With ``request_state``: the new last state; None is the state that was worked on.
    request_laststate: str | None = None
    computer_state: str | None = None
    log_ending: str | None = None
    #: Rows for the load log, beside ``exited``: (loadstatename, text).
    entries: Sequence[tuple[str, str]] = ()
    effects: Sequence[Effect] = ()
    #: Of the whole request; load-log rows of all are cleaned by the parent.
    reservationids: Sequence[int] = ()
    logid: int | None = None


def finish(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    """Write the ending and let go of the claim.

    Raises:
        ReservationChangedError: the claim was lost or the request changed; nothing of the
            ending is written (roll back).
    """
    if not claims.release(connection, grip):
        raise ReservationChangedError(f"reservation {grip.reservationid} has another owner now")
    if ending.request_state is not None and grip.is_parent:
        if not _move_request(connection, catalog, grip, ending):
            raise ReservationChangedError(
                f"request {grip.requestid} is no longer pending/{grip.state}"
            )
    _follow(connection, catalog, grip, ending)
    rows = [*ending.entries, ("exited", "vcld process exited")]
    loadlog.add(connection, catalog, grip.reservationid, grip.computerid, rows)


def rehearse(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    """Run the statements of ``finish`` without their guards, for rows that do not exist."""
    _move_request(connection, catalog, grip, ending)
    _follow(connection, catalog, grip, ending)


def _follow(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    """What goes with the request's new state."""
    if ending.computer_state is not None:
        set_computer(connection, catalog, grip.computerid, ending.computer_state)
    reservationids = ending.reservationids or (grip.reservationid,)
    if grip.is_parent:
        names = ("begin",) if grip.state in KEEPS_HISTORY else None
        loadlog.delete(connection, catalog, reservationids, names)
        if ending.log_ending is not None and ending.logid is not None:
            connection.execute(
                sa.update(Log)
                .where(Log.id == ending.logid)
                .values(finalend=site_now(), ending=ending.log_ending)
            )
        if ending.request_state in CHECKED_STATES:
            connection.execute(
                sa.update(Reservation)
                .where(Reservation.id.in_(sorted(reservationids)))
                .values(lastcheck=site_now())
            )
    for effect in ending.effects:
        effect(connection, catalog)


def _move_request(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> bool:
    assert ending.request_state is not None
    pending, state = catalog.state_id("pending"), catalog.state_id(grip.state)
    expected = sa.and_(Request.stateid == pending, Request.laststateid == state)
    if grip.state == "deleted":
        # The web site may mark a request deleted again while its deletion is under way.
        expected = Request.stateid.in_((pending, state))
    target = catalog.state_id(ending.request_state)
    last = catalog.state_id(ending.request_laststate or grip.state)
    done = connection.execute(
        sa.update(Request)
        .where(Request.id == grip.requestid, expected)
        .values(stateid=target, laststateid=last)
    )
    return done.rowcount == 1


def is_written(connection: Connection, grip: Grip, ending: Ending) -> bool:
    """After a commit whose answer was lost: True when the ending is in the database."""
    if connection.scalar(sa.select(Claim.token).where(*claims.owned(grip))) is not None:
        return False
    if ending.request_state is None or not grip.is_parent:
        return True
    return requests.find_pair(connection, grip.requestid) in {
        (ending.request_state, ending.request_laststate or grip.state),
        None,
    }


def hand_back(
    connection: Connection,
    catalog: Catalog,
    grip: Grip,
    *,
    computer_state: str | None,
    entries: Sequence[tuple[str, str]] = (),
    retry_seconds: float | None = None,
    attempts: int = 0,
    reason: str = "",
) -> bool:
    """Undo the claim: the request gets back the pair it had, if nobody changed it since.

    With ``retry_seconds`` the claim row stays, to be taken up after that time; without, it
    goes. The load log loses its ``begin`` row and gains ``entries``.

    Returns:
        False when the claim was not ours any more and nothing was written.
    """
    if retry_seconds is None:
        held = claims.release(connection, grip)
    else:
        held = claims.postpone(
            connection, grip, attempts=attempts, seconds=retry_seconds, reason=reason
        )
    if not held:
        return False
    if grip.is_parent and grip.is_pending:
        connection.execute(
            sa.update(Request)
            .where(
                Request.id == grip.requestid,
                Request.stateid == catalog.state_id("pending"),
                Request.laststateid == catalog.state_id(grip.state),
            )
            .values(
                stateid=catalog.state_id(grip.state),
                laststateid=catalog.state_id(grip.laststate),
            )
        )
    if computer_state is not None:
        set_computer(connection, catalog, grip.computerid, computer_state)
    loadlog.delete(connection, catalog, (grip.reservationid,), ("begin",))
    alive = sa.select(Reservation.id).where(Reservation.id == grip.reservationid)
    if connection.scalar(alive) is not None:
        rows = [*entries, ("exited", reason or "vcld process exited")]
        loadlog.add(connection, catalog, grip.reservationid, grip.computerid, rows)
    return True


def set_pending(connection: Connection, catalog: Catalog, grip: Grip) -> bool:
    """For the parent of a split cluster: mark the request pending. False when it changed."""
    pending = catalog.state_id("pending")
    done = connection.execute(
        sa.update(Request)
        .where(
            Request.id == grip.requestid,
            Request.stateid == catalog.state_id(grip.state),
            Request.laststateid == catalog.state_id(grip.laststate),
        )
        .values(stateid=pending, laststateid=catalog.state_id(grip.state))
    )
    return done.rowcount == 1


def free_stray(connection: Connection, catalog: Catalog, stray: Candidate) -> bool:
    """Let a pending request that nobody owns be processed again. False when it changed."""
    state = catalog.state_id(stray.laststate)
    done = connection.execute(
        sa.update(Request)
        .where(
            Request.id == stray.requestid,
            Request.stateid == catalog.state_id("pending"),
            Request.laststateid == state,
        )
        .values(stateid=state, laststateid=state)
    )
    return done.rowcount == 1


def set_computer(connection: Connection, catalog: Catalog, computerid: int, state: str) -> None:
    """Set a computer's state unless an administrator or the web site has removed it."""
    connection.execute(
        sa.update(Computer)
        .where(Computer.id == computerid, Computer.stateid != catalog.state_id("deleted"))
        .values(stateid=catalog.state_id(state))
    )


def free_reloading(connection: Connection, catalog: Catalog, computerids: Sequence[int]) -> None:
    """Make those of the computers available that are still marked as reloading (§7.3)."""
    connection.execute(
        sa.update(Computer)
        .where(
            Computer.id.in_(sorted(computerids)),
            Computer.stateid == catalog.state_id("reloading"),
        )
        .values(stateid=catalog.state_id("available"))
    )


def set_own_computer(connection: Connection, catalog: Catalog, grip: Grip, state: str) -> bool:
    """Set the computer's state while the claim is held. False when it is lost."""
    held = sa.exists().where(*claims.owned(grip), Claim.revoked == 0)
    done = connection.execute(
        sa.update(Computer)
        .where(Computer.id == grip.computerid, held)
        .values(stateid=catalog.state_id(state))
    )
    return done.rowcount == 1
