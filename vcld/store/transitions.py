"""The end of a worker's run, written in one transaction; and guarded writes on the way.

The order is that of VCL daemon specification §7.3, but a reader never sees half of it. Each
write is a compare-and-swap: on the claim's token, and on the pair ``pending``/state that the
claim set. When either fails, the request belongs to somebody else now and is left alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import schedule
from vcld.errors import ReservationChangedError
from vcld.schema.models import Log, Reservation
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now
from vcld.store import computers, grips, loadlog, notices, pairs, requests
from vcld.store.candidates import Candidate
from vcld.store.catalog import Catalog
from vcld.store.grips import OWNED, Grip

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
    #: Other columns of the computer.
    computer_facts: Mapping[str, int | None] = field(default_factory=dict)
    log_ending: str | None = None
    #: Rows for the load log, beside ``exited``: (loadstatename, text).
    entries: Sequence[tuple[str, str]] = ()
    effects: Sequence[Effect] = ()
    #: Of the whole request; load-log rows of all are cleaned by the parent.
    reservationids: Sequence[int] = ()
    #: The ending counts only if the request has no other reservations than these, and if this
    #: is its server request (0: none). The web site writes the rows one after another.
    serverrequestid: int | None = None
    logid: int | None = None


def finish(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    """Write the ending and let go of the claim.

    A request that would be removed at the next look (specification §6.4) is removed at once.

    Raises:
        ReservationChangedError: the claim was lost or the request changed; nothing of the
            ending is written (roll back).
    """
    if not grips.release(connection, grip):
        raise ReservationChangedError(f"reservation {grip.reservationid} has another owner now")
    is_removed = _is_removed(grip, ending)
    if ending.request_state is not None and grip.is_parent:
        move = _remove_request if is_removed else _move_request
        if not move(connection, catalog, grip, ending):
            raise ReservationChangedError(
                f"request {grip.requestid} is no longer pending/{grip.state} as it was read"
            )
    _set_computer(connection, catalog, grip, ending)
    if grip.is_parent:
        _close_log(connection, ending)
    for effect in ending.effects:
        effect(connection, catalog)
    if not is_removed:
        _clean_up(connection, catalog, grip, ending)
        rows = [*ending.entries, ("exited", "vcld process exited")]
        loadlog.add(connection, catalog, grip.reservationid, grip.computerid, rows)


def rehearse(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    """Run the statements of ``finish`` without their guards, for rows that do not exist."""
    _move_request(connection, catalog, grip, ending)
    _move_request(connection, catalog, grip, replace(ending, serverrequestid=0))
    _remove_request(connection, catalog, grip, ending)
    _set_computer(connection, catalog, grip, ending)
    _close_log(connection, ending)
    _clean_up(connection, catalog, grip, ending)


def _is_removed(grip: Grip, ending: Ending) -> bool:
    laststate = ending.request_laststate or grip.state
    return (
        grip.is_parent
        and ending.request_state in schedule.FINISHED_STATES
        and laststate in schedule.REMOVED_AT_ONCE
    )


def _move_request(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> bool:
    assert ending.request_state is not None
    target = ending.request_state, ending.request_laststate or grip.state
    known = None
    if ending.serverrequestid is not None:
        last = max(ending.reservationids, default=grip.reservationid)
        known = last, ending.serverrequestid
    return pairs.move(connection, catalog, grip, target, known)


def _remove_request(connection: Connection, catalog: Catalog, grip: Grip, _: Ending) -> bool:
    if not pairs.remove(connection, catalog, grip):
        return False
    if grip.state not in schedule.BACKGROUND_STATES:
        notices.forget(connection, [grip.requestid])
    return True


def _set_computer(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    facts: dict[str, int | None] = dict(ending.computer_facts)
    if ending.computer_state is not None:
        facts["stateid"] = catalog.state_id(ending.computer_state)
    if facts:
        computers.write(connection, catalog, grip.computerid, facts)


def _close_log(connection: Connection, ending: Ending) -> None:
    if ending.log_ending is not None and ending.logid is not None:
        values = {"logid": ending.logid, "to_ending": ending.log_ending}
        connection.execute(_end_log(), values)


@functools.cache
def _end_log() -> sa.Update:
    return (
        sa.update(Log)
        .where(Log.id == sa.bindparam("logid"))
        .values(finalend=site_now(), ending=sa.bindparam("to_ending"))
    )


def _clean_up(connection: Connection, catalog: Catalog, grip: Grip, ending: Ending) -> None:
    """The load log and the time of the last check, by the cluster's parent for all."""
    if not grip.is_parent:
        return
    ids = sorted(ending.reservationids) or [grip.reservationid]
    names = ("begin",) if grip.state in KEEPS_HISTORY else None
    loadlog.delete(connection, catalog, ids, names)
    if ending.request_state in CHECKED_STATES:
        connection.execute(_mark_checked(), {"reservationids": ids})


@functools.cache
def _mark_checked() -> sa.Update:
    return (
        sa.update(Reservation)
        .where(Reservation.id.in_(sa.bindparam("reservationids", expanding=True)))
        .values(lastcheck=site_now())
    )


def is_written(connection: Connection, grip: Grip, ending: Ending) -> bool:
    """After a commit whose answer was lost: True when the ending is in the database."""
    if connection.scalar(sa.select(Claim.token).where(*OWNED), grip.key) is not None:
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
        held = grips.release(connection, grip)
    else:
        held = grips.postpone(
            connection, grip, attempts=attempts, seconds=retry_seconds, reason=reason
        )
    if not held:
        return False
    if grip.is_parent and grip.is_pending:
        before = grip.state, grip.laststate
        pairs.swap(connection, catalog, grip.requestid, ("pending", grip.state), before)
    if computer_state is not None:
        computers.set_state(connection, catalog, grip.computerid, computer_state)
    loadlog.delete(connection, catalog, (grip.reservationid,), ("begin",))
    alive = sa.select(Reservation.id).where(Reservation.id == grip.reservationid)
    if connection.scalar(alive) is not None:
        rows = [*entries, ("exited", reason or "vcld process exited")]
        loadlog.add(connection, catalog, grip.reservationid, grip.computerid, rows)
    return True


def set_pending(connection: Connection, catalog: Catalog, grip: Grip) -> bool:
    """For the parent of a split cluster: mark the request pending. False when it changed."""
    pair = grip.state, grip.laststate
    return pairs.swap(connection, catalog, grip.requestid, pair, ("pending", grip.state))


def free_stray(connection: Connection, catalog: Catalog, stray: Candidate) -> bool:
    """Let a pending request that nobody owns be processed again. False when it changed."""
    state = stray.laststate
    return pairs.swap(connection, catalog, stray.requestid, ("pending", state), (state, state))
