"""Who gets a computer that several requests have: the ruling on each kind of rival."""

from __future__ import annotations

import pytest

from vcld.states.competition import (
    RECLAIM_PATIENCE_SECONDS,
    Claimant,
    Judgement,
    Ruling,
    judge,
)
from vcld.store.requests import Rival

OURS = 21


def rival(state: str, laststate: str | None = None, **facts: object) -> Rival:
    values: dict[str, object] = {
        "requestid": 7,
        "reservationid": 70,
        "state": state,
        "laststate": laststate or state,
        "start_in_seconds": -60,
        "end_in_seconds": 3600,
        "imagerevisionid": 31,
        "managementnodeid": 1,
        "claim_phase": "running" if state == "pending" else None,
        "claim_revoked": False,
        "has_computer": False,
        "holds_semaphore": False,
    }
    return Rival(**{**values, **facts})  # type: ignore[arg-type]


def claimant(**facts: object) -> Claimant:
    return Claimant(**{"requestid": 9, "imagerevisionid": OURS, **facts})  # type: ignore[arg-type]


def ruling(*rivals: Rival, waited: float = 0) -> Ruling:
    return judge(rivals, claimant(waited_seconds=waited)).ruling


def test_computer_without_rivals_is_free() -> None:
    assert ruling() is Ruling.FREE


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (rival("complete"), Ruling.FREE),
        (rival("failed", "new"), Ruling.FREE),
        (rival("new", start_in_seconds=3600), Ruling.FREE),
        (rival("inuse"), Ruling.WAIT),
        (rival("pending", "reserved"), Ruling.WAIT),
        (rival("pending", "image"), Ruling.WAIT),
        (rival("image", start_in_seconds=3600), Ruling.WAIT),
        (rival("maintenance"), Ruling.UNAVAILABLE),
        (rival("reload"), Ruling.TAKE_OVER),
        (rival("pending", "reload"), Ruling.TAKE_OVER),
        (rival("timeout"), Ruling.WAIT),
        (rival("inuse", end_in_seconds=-5), Ruling.END),
        (rival("pending", "new", end_in_seconds=-5), Ruling.END),
        (rival("inuse", end_in_seconds=-5, is_cluster=True), Ruling.END),
        (rival("inuse", end_in_seconds=-5, forimaging=True), Ruling.WAIT),
        (rival("makeproduction", end_in_seconds=-5), Ruling.WAIT),
        (rival("imageprep", end_in_seconds=-5), Ruling.TAKE_OVER),
        (rival("inuse", end_in_seconds=-5, holds_semaphore=True), Ruling.UNAVAILABLE),
        (rival("pending", "reload", holds_semaphore=True), Ruling.UNAVAILABLE),
        (rival("pending", "reload", claim_revoked=True), Ruling.WAIT),
    ],
)
def test_ruling_follows_what_the_rival_does(other: Rival, expected: Ruling) -> None:
    assert ruling(other) is expected


def test_load_of_the_same_image_is_left_to_whom_it_has_the_computer() -> None:
    owner = rival("pending", "reload", imagerevisionid=OURS, has_computer=True)
    waiter = rival("pending", "reload", imagerevisionid=OURS)

    assert ruling(owner) is Ruling.WAIT
    # It waits as this one does: one of them must go.
    assert ruling(waiter) is Ruling.TAKE_OVER


def test_reclaim_under_way_gets_its_time_before_it_is_taken_over() -> None:
    under_way = rival("pending", "deleted")

    assert ruling(under_way) is Ruling.WAIT
    assert ruling(under_way, waited=RECLAIM_PATIENCE_SECONDS) is Ruling.TAKE_OVER


def test_reclaim_that_nobody_begins_is_taken_over_in_the_end() -> None:
    assert ruling(rival("timeout"), waited=RECLAIM_PATIENCE_SECONDS) is Ruling.TAKE_OVER


def test_reclaim_of_a_cluster_is_not_taken_over_for_one_of_its_computers() -> None:
    under_way = rival("pending", "deleted", is_cluster=True)
    not_begun = rival("deleted", is_cluster=True)

    assert ruling(under_way, waited=999) is Ruling.WAIT
    assert ruling(not_begun) is Ruling.WAIT
    assert ruling(not_begun, waited=999) is Ruling.FREE


@pytest.mark.parametrize("state", ["new", "imageprep", "tovmhostinuse", "tomaintenance"])
def test_of_two_that_want_a_computer_one_goes_first(state: str) -> None:
    def other(requestid: int, **facts: object) -> Rival:
        return rival("pending", state, requestid=requestid, **{"claim_phase": "running", **facts})

    assert ruling(other(8)) is Ruling.WAIT
    assert ruling(other(10)) is Ruling.FREE
    assert ruling(other(10, has_computer=True)) is Ruling.WAIT
    assert ruling(other(8, claim_phase="waiting")) is Ruling.FREE
    assert ruling(other(10, claim_phase=None)) is Ruling.WAIT  # a Perl daemon's worker


def test_user_who_wants_his_own_computer_anew_does_not_wait_for_who_wants_it_next() -> None:
    waiting = rival("pending", "new", requestid=8)

    assert judge([waiting], claimant(has_user=True)).ruling is Ruling.FREE


def test_first_rival_that_is_in_the_way_is_named() -> None:
    judgement: Judgement = judge([rival("complete"), rival("inuse", requestid=7)], claimant())

    assert judgement.reason == "request 7 (inuse/inuse) has it"
