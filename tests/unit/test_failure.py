"""What a failure makes of a request and its computer, by state and blame."""

from __future__ import annotations

import pytest

from vcld.errors import Blame
from vcld.states import failure
from vcld.states.failure import Situation
from vcld.states.outcome import Outcome


def decide(state: str, blame: Blame = Blame.COMPUTER, **facts: object) -> Outcome:
    values: dict[str, object] = {
        "requestid": 1,
        "computerid": 1,
        "computer_state": "reloading",
        "seconds_left": 60,
    }
    situation = Situation(state=state, **{**values, **facts})  # type: ignore[arg-type]
    return failure.decide(situation, "the disk is full", blame)


@pytest.mark.parametrize("blame", [b for b in Blame if b is not Blame.COMPUTER])
def test_only_a_computer_that_is_at_fault_becomes_failed(blame: Blame) -> None:
    assert decide("new").computer == "failed"
    assert decide("new", blame).computer == "available"


@pytest.mark.parametrize(
    "state", ["inuse", "imageinuse", "rebootsoft", "reboothard", "servermodified"]
)
def test_live_session_is_never_failed(state: str) -> None:
    goes_on = decide(state)
    over = decide(state, seconds_left=0)

    assert (goes_on.request, goes_on.computer, goes_on.ending) == ("inuse", "inuse", None)
    assert (over.request, over.computer, over.ending) == ("timeout", "timeout", "EOR")


@pytest.mark.parametrize("state", ["image", "checkpoint"])
def test_failed_capture_waits_for_an_administrator(state: str) -> None:
    outcome = decide(state)

    assert (outcome.request, outcome.computer) == ("maintenance", "maintenance")


@pytest.mark.parametrize("kept", ["maintenance", "vmhostinuse"])
def test_administrator_s_computer_states_are_kept(kept: str) -> None:
    assert decide("reload", Blame.IMAGE, computer_state=kept).computer == kept


@pytest.mark.parametrize(
    ("state", "ending"),
    [("new", "failed"), ("reserved", "failed"), ("reload", None), ("timeout", None)],
)
def test_log_says_failed_where_the_user_never_had_the_computer(
    state: str, ending: str | None
) -> None:
    assert decide(state).ending == ending


def test_revision_that_cannot_be_made_production_leaves_its_computer_to_the_reclaim() -> None:
    outcome = decide("makeproduction")

    assert (outcome.request, outcome.computer, outcome.failed) == ("deleted", None, True)


def test_reason_reaches_the_user() -> None:
    assert decide("new").entries == (("failed", "the disk is full"),)


@pytest.mark.parametrize("state", ["reserved", "reinstall", "timeout", "deleted"])
def test_computer_that_a_user_was_let_in_to_is_loaded_anew_before_anybody_else_gets_it(
    state: str,
) -> None:
    outcome = decide(state, Blame.MANAGEMENT_NODE, computer_state="inuse")

    assert outcome.computer == "reload"
    assert outcome.request == ("complete" if state == "deleted" else "failed")
    assert decide(state, Blame.NOBODY, computer_state="inuse", is_taken=True).computer is None
    assert decide(state, Blame.NOBODY, computer_state="maintenance").computer == "maintenance"
