"""Two requests, one computer: who gets it (VCL daemon specification §8.1 B).

``judge`` is pure. ``win_computer`` applies it until the computer is free for this worker
alone, or the patience is over.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from vcld import clock, schedule
from vcld.errors import ReservationChangedError
from vcld.schema.engine import Connection
from vcld.states.work import Work
from vcld.store import grips, requests
from vcld.store.requests import Rival
from vcld.waiting import pauses

#: Reclaims that run are left to finish for this long before they are taken over, so that
#: the last user's traces are really gone.
RECLAIM_PATIENCE_SECONDS = 60
#: Shortest time for which a reload of the same image is left to its owner (§8.1 B e).
SHORTEST_RELOAD_MINUTES = 5
#: ``tomaintenance`` tries again in minutes and need not hold a process for long.
SHORT_PATIENCE_SECONDS = 10

_CAPTURES = frozenset({"image", "checkpoint"})
_YIELDING = frozenset({"timeout", "deleted", "reload"})
_RECLAIMS = frozenset({"timeout", "deleted"})


class Ruling(enum.Enum):
    FREE = "free"
    #: Somebody is about to be done, or has been told to stop: ask again soon.
    WAIT = "wait"
    TAKE_OVER = "take over"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Judgement:
    ruling: Ruling
    reason: str
    rival: Rival | None = None


def judge(rivals: Sequence[Rival], imagerevisionid: int, waited_seconds: float) -> Judgement:
    """Decide on the other requests that have a reservation on the computer."""
    for rival in rivals:
        judgement = _judge_one(rival, imagerevisionid, waited_seconds)
        if judgement is not None:
            return judgement
    return Judgement(Ruling.FREE, "no other request needs the computer")


def _judge_one(rival: Rival, imagerevisionid: int, waited_seconds: float) -> Judgement | None:
    name = f"request {rival.requestid} ({rival.state}/{rival.laststate})"
    running = rival.claim_phase == "running"
    working_on = rival.laststate if rival.state == "pending" else rival.state
    if running and (rival.claim_revoked or working_on in schedule.FINISHED_STATES):
        return Judgement(Ruling.WAIT, f"{name}: its worker is about to end")
    if rival.state in schedule.FINISHED_STATES:
        return None
    if working_on in _CAPTURES:
        return Judgement(Ruling.WAIT, f"{name} captures an image on it")
    if rival.state == "maintenance":
        return Judgement(Ruling.UNAVAILABLE, f"{name} keeps it for an administrator")
    if rival.start_in_seconds > schedule.START_AHEAD_SECONDS:
        return None
    same_load = working_on == "reload" and rival.imagerevisionid == imagerevisionid
    # Only while it may change the computer: two that wait would wait for one another.
    if same_load and rival.has_computer:
        return Judgement(Ruling.WAIT, f"{name} loads the same image revision")
    if rival.busy_elsewhere and working_on in _RECLAIMS:
        # A cluster is taken back. Completing it for this computer would stop the others.
        return Judgement(Ruling.WAIT, f"{name} is being reclaimed") if running else None
    if running and working_on in _RECLAIMS and waited_seconds < RECLAIM_PATIENCE_SECONDS:
        return Judgement(Ruling.WAIT, f"{name} is being reclaimed")
    if working_on in _YIELDING or rival.end_in_seconds <= 0:
        if rival.holds_semaphore:
            return Judgement(Ruling.UNAVAILABLE, f"{name} holds a lock and must not be stopped")
        return Judgement(Ruling.TAKE_OVER, f"{name} gives way", rival)
    return Judgement(Ruling.WAIT, f"{name} has it")


def is_taken(rivals: Sequence[Rival]) -> bool:
    """True when the computer serves another request, or a worker of one is changing it.

    Whoever has not won it must then leave it, and its state, as they are.
    """
    return any(
        rival.has_computer
        or (rival.laststate if rival.state == "pending" else rival.state) in schedule.SERVED_STATES
        for rival in rivals
    )


def win_computer(work: Work) -> str | None:
    """Get the computer for this worker alone.

    Returns:
        None when it is ours, else the reason why it cannot be had.

    Raises:
        WorkerStopped: the request was changed while waiting.
        ReservationChangedError: a competitor took this request over.
    """
    reservation = work.reservation
    state = reservation.computer.state
    if state in {"deleted", "vmhostinuse"}:
        return f"computer {reservation.computer.shortname} is in state {state}"
    if state == "maintenance" and work.grip.state not in {"tovmhostinuse", "tomaintenance"}:
        return f"computer {reservation.computer.shortname} is in maintenance"
    started, told = clock.monotonic(), ""
    for pause in pauses(0.2, work.settings.competition_retry_seconds):
        waited = clock.monotonic() - started
        judgement = _attempt(work, waited)
        if judgement.ruling is Ruling.FREE:
            return None
        if judgement.ruling is Ruling.UNAVAILABLE or waited >= _patience(work, judgement):
            return judgement.reason
        if judgement.reason != told:
            told = judgement.reason
            work.log.info("computer is taken", reason=told, waited_seconds=int(waited))
        work.cancellation.wait(pause)
    raise AssertionError  # pauses never end


def _patience(work: Work, judgement: Judgement) -> float:
    if work.grip.state == "tomaintenance":
        return SHORT_PATIENCE_SECONDS
    if "loads the same image" in judgement.reason:
        minutes = work.reservation.image.reloadtime_minutes
        return 60.0 * (minutes if minutes >= 10 else SHORTEST_RELOAD_MINUTES)
    return work.settings.competition_timeout_seconds


def _attempt(work: Work, waited_seconds: float) -> Judgement:
    """Judge once and act on it, in one transaction."""

    def attempt(connection: Connection) -> Judgement:
        computerid = work.reservation.computer.id
        rivals = requests.find_rivals(connection, computerid, work.grip.requestid)
        judgement = judge(rivals, work.reservation.imagerevision.id, waited_seconds)
        if judgement.ruling is Ruling.FREE and not work.has_computer:
            if grips.take_computer(connection, work.grip):
                return judgement
            return Judgement(Ruling.WAIT, "another worker is changing the computer")
        if judgement.rival is not None:
            _take_over(connection, work, judgement.rival)
            return Judgement(Ruling.WAIT, judgement.reason)
        return judgement

    judgement = work.run(attempt)
    if judgement.ruling is Ruling.FREE:
        work.has_computer = True
    return judgement


def _take_over(connection: Connection, work: Work, rival: Rival) -> None:
    # Writing the own claim makes two workers that take each other over collide, on a Galera
    # cluster too: whoever comes second finds itself revoked.
    if not grips.note(connection, work.grip, f"takes over request {rival.requestid}"):
        raise ReservationChangedError(f"request {work.grip.requestid} was itself taken over")
    if requests.supersede(connection, work.catalog, rival):
        work.recorder.vanish(connection, [rival.reservationid])
        work.log.info("request taken over", rival_request_id=rival.requestid)
