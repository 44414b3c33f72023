"""Whatever a request's life is, its rows hold every rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from tests.accounts import Accounts
from tests.backends import clock_at
from tests.lives import Life
from tests.site import Site
from vcld.accounting.codes import VmState
from vcld.accounting.recorder import LOADS, RUNS, Recorder, find_recorder
from vcld.states.table import STATES

BACKENDS = ("mariadb", "sqlite")
HANDLED = sorted(state for state, row in STATES.items() if row.handler)
PATHS = [
    (state, outcome)
    for state in HANDLED
    for outcome in (*STATES[state].success, *STATES[state].failure, *STATES[state].other)
]
#: What the web site, or an operator, may make of a request in a state.
ASKED = {
    "inuse": ("reinstall", "image", "checkpoint", "deleted", "timeout", "reboothard",
              "rebootsoft", "servermodified", "makeproduction", "inuse"),
    "reserved": ("deleted", "reserved"),
    "maintenance": ("image", "deleted", "inuse"),
    "failed": ("new",),
    "new": ("deleted", "new"),
    "timeout": ("deleted", "timeout"),
}  # fmt: skip
STARTS = ("new", "reload", "imageprep", "tovmhostinuse", "tomaintenance")


class Refusals:
    """A log in which nothing may be told."""

    def error(self, event: str, **facts: Any) -> None:
        raise AssertionError(f"{event}: {facts}")


@pytest.fixture
def recorder(accounts: Accounts) -> Recorder:
    with accounts.engine.begin() as c:
        found = find_recorder(c, "", Refusals())
        found.rehearse(c)
        for table in accounts.tables.all:
            c.execute(table.delete())
    return found


def live(site: Site, recorder: Recorder, start: str, computers: int = 1) -> Life:
    request = site.ask(start, *range(1, computers + 1))
    return Life(recorder, site.reservations(request), request, start, start)


def at_home(accounts: Accounts, work: Callable[[Connection], None], seconds: float = 0) -> None:
    """Do it in a transaction, so long after 2026 began by the database's clock."""
    with accounts.engine.begin() as c, clock_at(c, 1_767_225_600 + seconds):
        work(c)


@pytest.mark.parametrize(("state", "outcome"), PATHS, ids=str)
@pytest.mark.parametrize("computers", [1, 3])
def test_every_path_of_the_state_table_holds_the_rules(
    site: Site, accounts: Accounts, recorder: Recorder, state: str, outcome: str, computers: int
) -> None:
    life = live(site, recorder, state if state in STARTS else "new", computers)
    if state not in STARTS:  # it must have come there
        at_home(accounts, life.begin)
        at_home(accounts, lambda c: life.end(c, "reserved"), 60)
        life.move("inuse" if state not in {"reserved"} else "reserved")
        life.move(state)

    at_home(accounts, life.begin, 120)
    assert accounts.breaches() == []
    at_home(accounts, lambda c: life.end(c, outcome, "noack"), 180)

    assert accounts.breaches() == []
    states = {accounts.vm(vm).state for vm in life.vms}
    wanted = {"complete": VmState.DONE, "failed": VmState.FAILED, "maintenance": VmState.SUSPENDED}
    if outcome in wanted:
        assert states == {wanted[outcome]}
    if outcome in RUNS and state != "checkpoint":
        assert states == {VmState.ACTIVE}
    at_home(accounts, lambda c: recorder.remove(c, [life.requestid]), 240)
    assert {accounts.vm(vm).state for vm in life.vms} <= {VmState.DONE, VmState.FAILED}
    assert accounts.breaches() == []


def test_clock_that_is_set_back_leaves_the_times_in_order(
    site: Site, accounts: Accounts, recorder: Recorder
) -> None:
    life = live(site, recorder, "new")
    at_home(accounts, life.begin, 5000)
    at_home(accounts, lambda c: life.end(c, "reserved"), 1000)
    life.move("reinstall")
    at_home(accounts, life.begin, 900)
    at_home(accounts, lambda c: life.end(c, "reserved"), 800)
    life.move("deleted")
    at_home(accounts, life.begin, 700)
    at_home(accounts, lambda c: life.end(c, "complete"), 600)

    first, second = accounts.stays(life.vms[0])
    assert first.etime <= second.stime
    assert second.etime == first.stime == 1_767_225_600 + 5000


@pytest.mark.timeout(900)
@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_random_lives_hold_the_rules(
    site: Site, accounts: Accounts, recorder: Recorder, data: st.DataObject
) -> None:
    site.execute("DELETE FROM request")
    with accounts.engine.begin() as c:
        for table in accounts.tables.all:
            c.execute(table.delete())
    lives = [
        live(site, recorder, data.draw(st.sampled_from(STARTS)), data.draw(st.integers(1, 3)))
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    now = 0
    for _ in range(data.draw(st.integers(1, 14))):
        life = data.draw(st.sampled_from(lives))
        now = max(0, now + data.draw(st.integers(-600, 3600)))
        wish: str = data.draw(st.sampled_from(("", *ASKED.get(life.state, ()))))
        if wish:
            life.move(wish)
        if STATES[life.state].handler is None:
            continue
        depth = data.draw(st.integers(0, 4)) if life.state in LOADS else 4
        at_home(accounts, partial(life.begin, milestones=depth), now)
        assert accounts.breaches() == []
        now += data.draw(st.integers(-60, 600))
        fate = data.draw(st.sampled_from(["outcome", "outcome", "dies", "is cut off", "vanishes"]))
        row = STATES[life.state]
        if fate == "outcome":
            outcome = data.draw(st.sampled_from((*row.success, *row.failure, *row.other)))
            ending = data.draw(st.sampled_from(["noack", "EOR", None]))
            at_home(accounts, partial(life.end, outcome=outcome, ending=ending), max(0, now))
        elif fate == "dies":
            at_home(accounts, life.die, max(0, now))
        elif fate == "vanishes":
            site.execute(f"DELETE FROM request WHERE id = {life.requestid}")
            at_home(accounts, partial(recorder.vanish, reservationids=life.vms), max(0, now))
            lives.remove(life)
        assert accounts.breaches() == [], life.path
        if not lives:
            break
