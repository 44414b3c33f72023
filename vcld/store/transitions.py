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
from vcld.schema.models import Log, Request, Reservation, ServerRequest
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now
from vcld.store import computers, grips, loadlog, notices, requests
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
    target = {
        "to_state": catalog.state_id(ending.request_state),
        "to_laststate": catalog.state_id(ending.request_laststate or grip.state),
    }
    expected = {**_expected(catalog, grip), **target}
    if ending.serverrequestid is None:
        return connection.execute(_move(), expected).rowcount == 1
    whole = {
        "last_known": max(ending.reservationids, default=grip.reservationid),
        "known_server": ending.serverrequestid,
    }
    return connection.execute(_move_whole(), {**expected, **whole}).rowcount == 1


def _remove_request(connection: Connection, catalog: Catalog, grip: Grip, _: Ending) -> bool:
    """Reservations and load log go with it by foreign key."""
    if connection.execute(_remove(), _expected(catalog, grip)).rowcount != 1:
        return False
    if grip.state not in schedule.BACKGROUND_STATES:
        notices.forget(connection, [grip.requestid])
    return True


def _expected(catalog: Catalog, grip: Grip) -> dict[str, object]:
    """The pair that the claim has set; more when the web site may repeat what it asked for."""
    pending, state = catalog.state_id("pending"), catalog.state_id(grip.state)
    if grip.state == "deleted":
        # The web site may mark a request deleted again while its deletion is under way, and
        # then the last state is what it was before.
        return {
            "of_request": grip.requestid,
            "of_states": [pending, state],
            "of_laststates": list(catalog.state_ids.values()),
        }
    if not grip.is_pending:
        # A cluster that did not begin everywhere is as the web site wrote it.
        laststate = catalog.state_id(grip.laststate)
        return {"of_request": grip.requestid, "of_states": [state], "of_laststates": [laststate]}
    return {"of_request": grip.requestid, "of_states": [pending], "of_laststates": [state]}


def _is_expected() -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Request.id == sa.bindparam("of_request"),
        Request.stateid.in_(sa.bindparam("of_states", expanding=True)),
        Request.laststateid.in_(sa.bindparam("of_laststates", expanding=True)),
    )


@functools.cache
def _move() -> sa.Update:
    return (
        sa.update(Request)
        .where(*_is_expected())
        .values(stateid=sa.bindparam("to_state"), laststateid=sa.bindparam("to_laststate"))
    )


@functools.cache
def _move_whole() -> sa.Update:
    """Only as long as nothing was added to the request since it was read."""
    later = sa.exists().where(
        Reservation.requestid == Request.id, Reservation.id > sa.bindparam("last_known")
    )
    server = sa.exists().where(
        ServerRequest.requestid == Request.id, ServerRequest.id != sa.bindparam("known_server")
    )
    return _move().where(sa.not_(later), sa.not_(server))


@functools.cache
def _remove() -> sa.Delete:
    return sa.delete(Request).where(*_is_expected())


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
        _swap(
            connection,
            catalog,
            grip.requestid,
            ("pending", grip.state),
            (grip.state, grip.laststate),
        )
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
    return _swap(connection, catalog, grip.requestid, pair, ("pending", grip.state))


def free_stray(connection: Connection, catalog: Catalog, stray: Candidate) -> bool:
    """Let a pending request that nobody owns be processed again. False when it changed."""
    state = stray.laststate
    return _swap(connection, catalog, stray.requestid, ("pending", state), (state, state))


def _swap(
    connection: Connection,
    catalog: Catalog,
    requestid: int,
    old: tuple[str, str],
    new: tuple[str, str],
) -> bool:
    """Change a request's pair of states if it is still the old one."""
    expected = {
        "of_request": requestid,
        "of_states": [catalog.state_id(old[0])],
        "of_laststates": [catalog.state_id(old[1])],
    }
    target = {"to_state": catalog.state_id(new[0]), "to_laststate": catalog.state_id(new[1])}
    return connection.execute(_move(), {**expected, **target}).rowcount == 1
