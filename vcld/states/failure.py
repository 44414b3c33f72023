"""From an error to the failure row of the state table (VCL daemon specification §7.2).

A live session is never failed by trouble of the daemon or the network; a capture always ends
in maintenance, so that nobody loses a disk; only a computer that is at fault becomes failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from vcld import schedule
from vcld.config import Settings
from vcld.errors import Blame, ProvisioningError, VcldError
from vcld.schema.engine import Connection
from vcld.states import competition
from vcld.states.outcome import Outcome
from vcld.states.work import Work
from vcld.store import blocks, fixed_ip, requests
from vcld.store.catalog import Catalog

#: Handlers that work on a computer that a user has.
LIVE_STATES = schedule.SESSION_STATES | {"rebootsoft", "reboothard", "servermodified"}
CAPTURE_STATES = frozenset({"image", "checkpoint"})
#: The user has not had the computer yet: ``log.ending`` is "failed".
UNUSED_STATES = frozenset({"new", "reserved"})
#: The user has, or had, an account on the computer, and its doors may be open: somebody else
#: gets it only when it was loaded anew.
OPENED_STATES = frozenset({"reserved", "reinstall", "timeout", "deleted"})
#: Computer states that only an administrator leaves.
KEPT_STATES = frozenset({"maintenance", "vmhostinuse", "deleted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the failure row depends on."""

    state: str
    requestid: int
    computerid: int
    #: State of the computer before the work began; None when it is not known.
    computer_state: str | None
    #: Seconds to the end of the request.
    seconds_left: int
    #: The computer serves another request: it is not ours to change.
    is_taken: bool = False
    #: What a reload is to put on the computer; None: nobody knows any more.
    held: requests.Held | None = None


def outcome_of(work: Work, error: Exception) -> Outcome:
    """The outcome for an error that no retry mends; doors that were opened are closed."""
    if work.grip.state == "reserved":
        try:
            work.guest.withdraw()
        except VcldError as err:
            work.log.warning("access could not be withdrawn", reason=str(err))
    blame = error.blame if isinstance(error, ProvisioningError) else Blame.NOBODY
    return outcome_for(work, str(error) or type(error).__name__, blame)


def outcome_for(work: Work, message: str, blame: Blame = Blame.COMPUTER) -> Outcome:
    """The outcome of a failure with this message, which the web site shows to the user."""
    reservation = work.reservation
    situation = Situation(
        state=work.grip.state,
        requestid=work.grip.requestid,
        computerid=reservation.computer.id,
        computer_state=reservation.computer.state,
        seconds_left=work.run(requests.seconds_to_end, work.grip.requestid) or 0,
        is_taken=competition.is_taken(
            work.run(requests.find_rivals, reservation.computer.id, work.grip.requestid)
        ),
        held=requests.Held(
            imageid=reservation.image.id,
            imagerevisionid=reservation.imagerevision.id,
            managementnodeid=reservation.managementnode.id,
        ),
    )
    return decide(situation, message, blame)


def decide(situation: Situation, message: str, blame: Blame) -> Outcome:
    """The failure row of a state; pure."""
    state = situation.state
    entries = (("failed", message),)
    if state in LIVE_STATES:
        return _live(situation, message)
    if state in CAPTURE_STATES:
        return Outcome(
            reason=message,
            request="maintenance",
            computer="maintenance",
            entries=entries,
            failed=True,
        )
    if state == "makeproduction":
        # The user has let go of the computer, and may have used it: it is reclaimed either way.
        return Outcome(reason=message, request="deleted", entries=entries, failed=True)
    over = "complete" if state == "deleted" else "failed"
    ending = "failed" if state in UNUSED_STATES else None
    taken_back = state in OPENED_STATES and blame is not Blame.COMPUTER
    if taken_back and not situation.is_taken and situation.computer_state not in KEPT_STATES:
        return Outcome(
            reason=message,
            request=over,
            computer="reload",
            ending=ending,
            entries=entries,
            effects=(
                partial(_leave, situation.requestid, situation.computerid),
                partial(_reload, situation.computerid, situation.held),
            ),
            failed=True,
        )
    kept = situation.computer_state if situation.computer_state in KEPT_STATES else "available"
    if blame is Blame.COMPUTER:
        kept = "failed"
    return Outcome(
        reason=message,
        request=over,
        computer=None if situation.is_taken else kept,
        ending=ending,
        entries=entries,
        effects=(partial(_leave, situation.requestid, situation.computerid),),
        failed=True,
    )


def _leave(requestid: int, computerid: int, connection: Connection, _catalog: Catalog) -> None:
    """What else had been arranged for the request on the computer."""
    blocks.forget_computer(connection, computerid)
    fixed_ip.restore(connection, requestid, computerid)


def _reload(
    computerid: int, held: requests.Held | None, connection: Connection, catalog: Catalog
) -> None:
    requests.insert_same_again(connection, catalog, computerid, held)


def _live(situation: Situation, message: str) -> Outcome:
    """A session goes on until its end; then it is reclaimed like any other."""
    if situation.seconds_left <= 0:
        return Outcome(
            reason=f"the session has ended; before, {message}",
            request="timeout",
            computer="timeout",
            ending="EOR",
            failed=True,
        )
    return Outcome(
        reason=f"the session goes on although {message}",
        request="inuse",
        computer="inuse",
        entries=(("info", message),),
        failed=True,
    )


def retry_pause_seconds(settings: Settings, attempts: int) -> float:
    """How long to wait before the next attempt: doubled each time, within limits."""
    pause: float = settings.retry_delay_seconds * 2 ** max(0, attempts - 1)
    return min(pause, settings.retry_delay_max_seconds)
