"""Two requests, one computer: who gets it (VCL daemon specification §8.1 B).

``judge`` is pure. ``win_computer`` applies it until the computer is free for this worker
alone, or the patience is over. Whoever waits does not hold the computer: what is waited for,
such as the reclaim of the last session, must be free to change it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from vcld import clock, schedule
from vcld.errors import ReservationChangedError
from vcld.schema.engine import Connection
from vcld.states.work import Work
from vcld.store import computers, fixed_ip, grips, requests, snapshots, takeover
from vcld.store.requests import Rival
from vcld.waiting import pauses

#: A reclaim is left to its own worker for this long before it is taken over, so that the
#: last user's traces are really gone and nothing that was arranged for the session is left.
RECLAIM_PATIENCE_SECONDS = 60
#: Shortest time for which a reload of the same image is left to its owner (§8.1 B e).
SHORTEST_RELOAD_MINUTES = 5
#: ``tomaintenance`` tries again in minutes and need not hold a process for long.
SHORT_PATIENCE_SECONDS = 10

_CAPTURES = frozenset({"image", "checkpoint"})
_RECLAIMS = frozenset({"timeout", "deleted"})
#: States in which a request wants a computer that it does not have yet.
_PREPARING = schedule.LOAD_STATES | {"tomaintenance"}
#: Computer states that only their own administrators' requests may work on.
_ADMINISTRATORS = frozenset({"tovmhostinuse", "tomaintenance"})


class Ruling(enum.Enum):
    FREE = "free"
    #: Somebody is about to be done, or has been told to stop: ask again soon.
    WAIT = "wait"
    #: Complete it: nobody misses what it was to do.
    TAKE_OVER = "take over"
    #: Its end has passed: have its session taken back, on every computer it has.
    END = "end"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Judgement:
    ruling: Ruling
    reason: str
    rival: Rival | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """The request that wants the computer, and how long it has waited."""

    requestid: int
    imagerevisionid: int
    #: Its user has the computer already, and wants it loaded anew.
    has_user: bool = False
    waited_seconds: float = 0
    reclaim_patience_seconds: float = RECLAIM_PATIENCE_SECONDS


def judge(rivals: Sequence[Rival], own: Claimant) -> Judgement:
    """Decide on the other requests that have a reservation on the computer."""
    for rival in rivals:
        judgement = _judge_one(rival, own)
        if judgement is not None:
            return judgement
    return Judgement(Ruling.FREE, "no other request needs the computer")


def _judge_one(rival: Rival, own: Claimant) -> Judgement | None:
    name, working_on = _name(rival), _working_on(rival)
    if rival.claim_phase == "running" and (
        rival.claim_revoked or working_on in schedule.FINISHED_STATES
    ):
        return Judgement(Ruling.WAIT, f"{name}: its worker is about to end")
    if rival.state in schedule.FINISHED_STATES:
        return None
    if working_on in _CAPTURES:
        return Judgement(Ruling.WAIT, f"{name} captures an image on it")
    if rival.state == "maintenance":
        return Judgement(Ruling.UNAVAILABLE, f"{name} keeps it for an administrator")
    if rival.start_in_seconds > schedule.START_AHEAD_SECONDS:
        return None
    if working_on in _RECLAIMS:
        return _judge_reclaim(rival, own)
    if working_on == "reload":
        # Only while it may change the computer: two that wait would wait for one another.
        if rival.imagerevisionid == own.imagerevisionid and rival.has_computer:
            return Judgement(Ruling.WAIT, f"{name} loads the same image revision")
        return _unless_locked(rival, Ruling.TAKE_OVER, "gives way")
    if rival.end_in_seconds <= 0:
        return _judge_ended(rival)
    if working_on in _PREPARING:
        return _judge_peer(rival, own)
    return Judgement(Ruling.WAIT, f"{name} has it")


def _name(rival: Rival) -> str:
    return f"request {rival.requestid} ({rival.state}/{rival.laststate})"


def _working_on(rival: Rival) -> str:
    return rival.laststate if rival.state == "pending" else rival.state


def _unless_locked(rival: Rival, ruling: Ruling, reason: str) -> Judgement:
    name = _name(rival)
    if rival.holds_semaphore:
        return Judgement(Ruling.UNAVAILABLE, f"{name} holds a lock and must not be stopped")
    return Judgement(ruling, f"{name} {reason}", rival)


def _judge_reclaim(rival: Rival, own: Claimant) -> Judgement | None:
    """Its own daemon takes the computer back; not for ever, if that one is dead."""
    is_running = rival.claim_phase == "running"
    if own.waited_seconds < own.reclaim_patience_seconds or (rival.is_cluster and is_running):
        return Judgement(Ruling.WAIT, f"{_name(rival)} is being reclaimed")
    if rival.is_cluster:
        return None  # completing it for this computer would leave the others behind
    return _unless_locked(rival, Ruling.TAKE_OVER, "gives way")


def _judge_ended(rival: Rival) -> Judgement:
    """A request past its end, still there because its daemon was away or is late."""
    name, working_on = _name(rival), _working_on(rival)
    if working_on == "makeproduction":
        return Judgement(Ruling.WAIT, f"{name} is about to end")
    if rival.forimaging and not rival.is_cluster and working_on in schedule.SESSION_STATES:
        return Judgement(Ruling.WAIT, f"{name} has ended, and an image is made of it")
    if working_on in schedule.BACKGROUND_STATES:
        return _unless_locked(rival, Ruling.TAKE_OVER, "gives way")
    return _unless_locked(rival, Ruling.END, "has ended and is taken back")


def _judge_peer(rival: Rival, own: Claimant) -> Judgement | None:
    """Both want the computer: who has it keeps it, else the lower id that is at work.

    Without such an order two of them wait for one another.
    """
    is_foreign = rival.state == "pending" and rival.claim_phase is None  # a Perl daemon's
    is_first = rival.claim_phase == "running" and rival.requestid < own.requestid
    if rival.has_computer or is_foreign or (is_first and not own.has_user):
        return Judgement(Ruling.WAIT, f"{_name(rival)} has it")
    return None


def is_taken(rivals: Sequence[Rival]) -> bool:
    """True when the computer serves another request, or a worker of one is changing it.

    Whoever has not won it must then leave it, and its state, as they are.
    """
    return any(
        rival.has_computer or _working_on(rival) in schedule.SERVED_STATES for rival in rivals
    )


def win_computer(work: Work) -> str | None:
    """Get the computer for this worker alone.

    Returns:
        None when it is ours, else the reason why it cannot be had.

    Raises:
        WorkerStopped: the request was changed while waiting.
        ReservationChangedError: a competitor took this request over.
    """
    reason = _closed(work)
    if reason is not None:
        return reason
    started, told = clock.monotonic(), ""
    is_fresh = work.has_computer  # what was read of the computer when it was taken still holds
    for pause in pauses(0.2, work.settings.competition_retry_seconds):
        waited = clock.monotonic() - started
        judgement = _attempt(work, waited)
        if judgement.ruling is Ruling.FREE:
            return None if is_fresh else _look_again(work)
        is_fresh = False
        if judgement.ruling is Ruling.UNAVAILABLE or waited >= _patience(work, judgement):
            return judgement.reason
        if judgement.reason != told:
            told = judgement.reason
            work.log.info("computer is taken", reason=told, waited_seconds=int(waited))
            work.run(grips.note, work.grip, f"waits for the computer: {told}")
        work.cancellation.wait(pause)
    raise AssertionError  # pauses never end


def _closed(work: Work) -> str | None:
    """Why the computer's own state forbids this work; None when it does not."""
    computer = work.reservation.computer
    if computer.state in {"deleted", "vmhostinuse"}:
        return f"computer {computer.shortname} is in state {computer.state}"
    if computer.state == "maintenance" and work.grip.state not in _ADMINISTRATORS:
        return f"computer {computer.shortname} is in maintenance"
    return None


def _look_again(work: Work) -> str | None:
    """Others may have changed the computer while it was waited for.

    Its state, and its address: that of a server request is given back at the reclaim.
    """
    computer = work.reservation.computer
    found = work.run(snapshots.find_computer_now, computer.id)
    if found is None or found == (computer.state, computer.IPaddress):
        return None
    state, address = found
    work.correct_computer(dataclasses.replace(computer, state=state, IPaddress=address))
    if state == computer.state:
        return None
    if state == "maintenance" and work.grip.state == "tomaintenance":
        return f"computer {computer.shortname} is in maintenance already"
    return _closed(work)


def _patience(work: Work, judgement: Judgement) -> float:
    if work.grip.state == "tomaintenance":
        return SHORT_PATIENCE_SECONDS
    if "loads the same image" in judgement.reason:
        minutes = work.reservation.image.reloadtime_minutes
        return 60.0 * (minutes if minutes >= 10 else SHORTEST_RELOAD_MINUTES)
    return work.settings.competition_timeout_seconds


def _attempt(work: Work, waited_seconds: float) -> Judgement:
    """Judge once and act on it, in one transaction."""
    own = Claimant(
        requestid=work.grip.requestid,
        imagerevisionid=work.reservation.imagerevision.id,
        has_user=work.grip.state in schedule.SERVED_STATES,
        waited_seconds=waited_seconds,
        reclaim_patience_seconds=min(
            RECLAIM_PATIENCE_SECONDS, work.settings.competition_timeout_seconds / 2
        ),
    )

    def attempt(connection: Connection) -> Judgement:
        computerid = work.reservation.computer.id
        rivals = requests.find_rivals(connection, computerid, work.grip.requestid)
        judgement = judge(rivals, own)
        if judgement.ruling is Ruling.FREE:
            if not work.has_computer and not grips.take_computer(connection, work.grip):
                return Judgement(Ruling.WAIT, "another worker is changing the computer")
            if any(_is_left_behind(rival) for rival in rivals):
                _force_load(connection, work)
            return judgement
        if work.has_computer:
            grips.leave_computer(connection, work.grip)
        if judgement.rival is not None:
            _take_over(connection, work, judgement)
        return judgement

    judgement = work.run(attempt)
    work.has_computer = judgement.ruling is Ruling.FREE
    return judgement


def _is_left_behind(rival: Rival) -> bool:
    """A session that nobody took back in time is still on the computer."""
    is_due = rival.start_in_seconds <= schedule.START_AHEAD_SECONDS
    return is_due and _working_on(rival) in _RECLAIMS


def _force_load(connection: Connection, work: Work) -> None:
    """Nothing of the last session may be left, whatever the computer itself says."""
    computers.set_own_state(connection, work.catalog, work.grip, "reload")


def _take_over(connection: Connection, work: Work, judgement: Judgement) -> None:
    rival = judgement.rival
    assert rival is not None
    # Writing the own claim makes two workers that take each other over collide, on a Galera
    # cluster too: whoever comes second finds itself revoked.
    if not grips.note(connection, work.grip, f"takes over request {rival.requestid}"):
        raise ReservationChangedError(f"request {work.grip.requestid} was itself taken over")
    if judgement.ruling is Ruling.END:
        if takeover.end_session(connection, work.catalog, rival):
            work.log.info("session past its end is taken back", rival_request_id=rival.requestid)
        return
    if takeover.supersede(connection, work.catalog, rival):
        work.recorder.vanish(connection, [rival.reservationid])
        if _is_left_behind(rival):
            fixed_ip.give_back(connection, rival.requestid, work.reservation.computer.id)
            _force_load(connection, work)
        work.log.info("request taken over", rival_request_id=rival.requestid)
