"""What a second run of a request may be: by its states, and by who has its computers now."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import schedule
from vcld.errors import VcldError
from vcld.schema.models import Computer, Reservation, State
from vcld.store import requests, strangers
from vcld.store.requests import Rival
from vcld.store.strangers import Here

CAPTURES = frozenset({"image", "checkpoint"})
#: A user is on the computer.
LIVE = schedule.SESSION_STATES | {"rebootsoft", "reboothard", "servermodified"}
#: Work that wins its computer from all others before it changes it.
COMPETING = schedule.LOAD_STATES | {"reinstall", "tomaintenance"}
#: Work that looks who has the computer, and leaves it to him.
YIELDING = frozenset({"timeout", "deleted", "makeproduction"})
#: All that can be done again.
WORK = CAPTURES | LIVE | COMPETING | YIELDING | {"reserved"}
#: States of a computer that nobody has freed since a session or a capture had it.
NOT_FREED = frozenset({"inuse", "imageinuse", "maintenance", "checkpoint", "image"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be written that a request is processed again."""

    #: What is done, for the operator.
    sentence: str
    #: The pair of states to get; None: it has the right one.
    target: tuple[str, str] | None = None
    #: Changes of its computers' states, (old, new).
    computers: tuple[tuple[str, str], ...] = ()
    #: The log of the reservation says that it ended, which is no longer so.
    reopens_log: bool = False


def plan(connection: Connection, requestid: int, pair: tuple[str, str], here: Here) -> Plan:
    """Say how a request that no vcld works on is repeated.

    Raises:
        VcldError: it cannot be, or somebody would be harmed; the message says what to do.
    """
    state, last = pair
    if state == "complete":
        raise VcldError(f"request {requestid} is complete: there is nothing to repeat")
    if state in WORK:
        return Plan(sentence=f"request {requestid} is {state}; its attempts start anew")
    if state not in {"pending", "failed", "maintenance"}:
        raise VcldError(
            f"request {requestid} is {state}, which no management node processes: set"
            " request.stateid by hand"
        )
    if last not in WORK:
        raise VcldError(
            f"request {requestid} is {state}/{last}, which does not say what to repeat: set"
            " request.stateid by hand"
        )
    stranger = strangers.find(connection, requestid, last, here)
    if stranger is not None:
        raise VcldError(
            f"request {requestid}, reservation {stranger.reservationid}: {stranger.sign};"
            f" {stranger.remedy}"
        )
    made = _PLANNERS[state](connection, requestid, last)
    assert made.target is not None
    if made.target[0] not in YIELDING:
        _check_computers(connection, requestid, made.target[0])
    return made


def _pending(connection: Connection, requestid: int, last: str) -> Plan:
    if last in CAPTURES:
        _check_not_freed(connection, requestid)
    return Plan(
        sentence=f"request {requestid} was pending without a worker; {last} is processed again",
        target=(last, last),
    )


def _maintenance(connection: Connection, requestid: int, last: str) -> Plan:
    if last in CAPTURES | LIVE:
        _check_not_freed(connection, requestid)
    if last in CAPTURES:
        return Plan(
            sentence=f"the capture of request {requestid} is tried again",
            target=(last, "maintenance"),
            computers=(("maintenance", "inuse"),),
        )
    if last not in LIVE:
        raise VcldError(
            f"request {requestid} is maintenance/{last}, neither a capture nor a session: set"
            " request.stateid by hand"
        )
    return Plan(
        sentence=f"the session of request {requestid} goes on",
        target=("inuse", "inuse"),
        computers=(("maintenance", "inuse"),),
    )


def _failed(connection: Connection, requestid: int, last: str) -> Plan:
    sentence = f"request {requestid} had failed; {last} is tried again"
    if last == "reserved":
        # The computer was given up: it must be won again, and nobody knows what is on it.
        return Plan(
            sentence=f"request {requestid} had failed in reserved; its computer is loaded anew",
            target=("new", "new"),
            computers=(("failed", "reload"), ("reserved", "reload")),
            reopens_log=True,
        )
    if last in COMPETING:
        return Plan(
            sentence=sentence,
            target=(last, last),
            computers=(("failed", "available"),),
            reopens_log=last == "new",
        )
    if last in YIELDING:
        return Plan(sentence=sentence, target=(last, last))
    _check_not_freed(connection, requestid)
    if last in CAPTURES:
        return Plan(
            sentence=sentence,
            target=(last, "maintenance"),
            computers=(("maintenance", "inuse"),),
        )
    return Plan(sentence=f"the session of request {requestid} goes on", target=("inuse", "inuse"))


_PLANNERS = {"pending": _pending, "maintenance": _maintenance, "failed": _failed}


def _check_not_freed(connection: Connection, requestid: int) -> None:
    """A session, or a disk to be captured, is gone where its computer was freed since.

    Raises:
        VcldError: a computer was given back.
    """
    for row in connection.execute(_computers(requestid)):
        if row.state not in NOT_FREED:
            raise VcldError(
                f"request {requestid}: {row.hostname or 'a computer without a row'} is"
                f" {row.state or 'in no state'} by now, what was on it cannot be taken up again;"
                " the user needs a new request"
            )


def _check_computers(connection: Connection, requestid: int, target: str) -> None:
    """Raise VcldError when a computer serves, or is needed by, another request."""
    left = requests.seconds_to_end(connection, requestid)
    for row in connection.execute(_computers(requestid)):
        for rival in requests.find_rivals(connection, row.computerid, requestid):
            why = _conflict(rival, target, left)
            if why is not None:
                name = (row.hostname or "?").partition(".")[0]
                raise VcldError(
                    f"request {requestid}: its computer {name} {why} request {rival.requestid}"
                    f" ({rival.state}/{rival.laststate}); retry when that is over, or let the user"
                    " make a new request"
                )


def _conflict(rival: Rival, target: str, seconds_left: int | None) -> str | None:
    working_on = rival.laststate if rival.state == "pending" else rival.state
    if rival.state in schedule.FINISHED_STATES:
        return None
    if working_on in schedule.SERVED_STATES:
        return "serves"
    if target not in COMPETING:
        return "is being changed for" if rival.has_computer else None
    overlaps = seconds_left is None or rival.start_in_seconds < seconds_left
    return "is promised to" if working_on == "new" and overlaps else None


def _computers(requestid: int) -> sa.Select[int, str, str]:
    return (
        sa.select(Reservation.computerid, Computer.hostname, State.name.label("state"))
        .join(Computer, Computer.id == Reservation.computerid, isouter=True)
        .join(State, State.id == Computer.stateid, isouter=True)
        .where(Reservation.requestid == requestid)
        .order_by(Reservation.id)
    )
