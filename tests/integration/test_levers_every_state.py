"""Every pair of states that ``vcld retry`` and ``vcld cancel`` can meet: whom could they harm?

What is asked of each pair is written here anew, from what the states mean, and not taken from
the rules under test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from sqlalchemy.engine import Connection

from tests.site import Site
from vcld.errors import VcldError
from vcld.states.table import STATES
from vcld.store import levers, requests
from vcld.store.catalog import Catalog

CAPTURES = {"image", "checkpoint"}
SESSIONS = {"inuse", "imageinuse", "rebootsoft", "reboothard", "servermodified"}
#: Handlers that ask nobody whose the computer is.
UNASKING = CAPTURES | SESSIONS | {"reserved"}
RESTING = {"pending", "failed", "maintenance"}
PAIRS = list(itertools.product(STATES, STATES))

Pull = Callable[[Connection, Catalog, int], str]


class Bench:
    """One request on computer 1, put into every pair of states in turn; nothing is kept."""

    def __init__(self, site: Site, *, computer: str = "inuse") -> None:
        self.site = site
        self.request = site.ask("new", 1)
        site.set_computer(1, computer)

    def pull(self, lever: Pull, state: str, last: str) -> tuple[tuple[str, str] | None, str]:
        """The pair that the lever leaves (None: the request is gone), and what it said."""
        catalog = self.site.catalog
        with self.site.engine.connect() as c, c.begin() as transaction:
            c.exec_driver_sql(
                "UPDATE request SET stateid = %s, laststateid = %s WHERE id = %s",
                (catalog.state_id(state), catalog.state_id(last), self.request),
            )
            try:
                said = lever(c, catalog, self.request)
            except VcldError as err:
                said = f"refused: {err}"
            pair = requests.find_pair(c, self.request)
            transaction.rollback()
        if said.startswith("refused"):
            assert pair == (state, last)
        return pair, said


def worked_on(state: str, last: str) -> str:
    return last if state in RESTING else state


def test_retry_makes_only_a_capture_of_a_capture_and_a_session_of_a_session(site: Site) -> None:
    bench = Bench(site)
    for state, last in PAIRS:
        pair, said = bench.pull(levers.retry, state, last)
        assert pair is not None, (state, last)
        now = pair[0]
        if now == state:
            continue
        assert (now in CAPTURES) == (worked_on(state, last) in CAPTURES), (state, last, now, said)
        assert (now in SESSIONS) == (worked_on(state, last) in SESSIONS), (state, last, now)
        assert STATES[now].handler is not None, (state, last, now)


@pytest.mark.parametrize("rival", ["inuse", "reserved", "image", "maintenance"])
def test_retry_leaves_the_computer_to_whom_it_serves(site: Site, rival: str) -> None:
    bench = Bench(site)
    site.ask(rival, 1, laststate="inuse")
    for state, last in PAIRS:
        pair, said = bench.pull(levers.retry, state, last)
        assert pair is not None
        if pair[0] != state:
            # Only work that looks for itself who has the computer may begin.
            assert pair[0] in {"timeout", "deleted", "makeproduction"}, (state, last, pair, said)


@pytest.mark.parametrize("computer", ["available", "reload", "reloading", "failed", "reserved"])
def test_retry_revives_no_session_and_captures_nothing_where_the_computer_was_freed(
    site: Site, computer: str
) -> None:
    bench = Bench(site, computer=computer)
    for state, last in itertools.product(("failed", "maintenance"), STATES):
        pair, said = bench.pull(levers.retry, state, last)
        assert pair is not None
        assert pair[0] == state or pair[0] not in UNASKING, (state, last, pair, said)


def test_retry_does_not_touch_what_a_worker_has(site: Site) -> None:
    bench = Bench(site)
    (reservation,) = site.reservations(bench.request)
    site.execute(
        "INSERT INTO vcld_daemon (managementnodeid, daemon, hostname, kernel_boot, pid,"
        " pid_started, started_at, version)"
        " VALUES (1, 'd', 'node1', 'b', 7, 7, UTC_TIMESTAMP(), '1')"
    )
    site.execute(
        "INSERT INTO vcld_claim (reservationid, requestid, managementnodeid, computerid, state,"
        " laststate, phase, daemon, token, pid, claimed_at)"
        f" VALUES ({reservation}, {bench.request}, 1, 1, 'new', 'new', 'running', 'd', 1, 4242,"
        " UTC_TIMESTAMP())"
    )
    for state, last in PAIRS:
        _, said = bench.pull(levers.retry, state, last)
        assert "being worked on by worker 4242" in said, (state, last)
    site.execute("UPDATE managementnode SET lastcheckin = NOW() - INTERVAL 10 MINUTE")
    for state, last in PAIRS:
        _, said = bench.pull(levers.retry, state, last)
        assert said.startswith("refused"), (state, last)
        assert "node1.example.org is silent" in said


def test_retry_does_not_touch_what_a_worker_without_a_claim_has(site: Site) -> None:
    bench = Bench(site)
    (reservation,) = site.reservations(bench.request)
    site.execute(
        "INSERT INTO computerloadlog (reservationid, computerid, loadstateid, timestamp)"
        f" SELECT {reservation}, 1, id, NOW() FROM computerloadstate"
        " WHERE loadstatename = 'begin'"
    )
    for state, last in itertools.product(RESTING, STATES):
        _, said = bench.pull(levers.retry, state, last)
        assert said.startswith("refused"), (state, last)


@pytest.mark.parametrize("computer", ["inuse", "maintenance"])
def test_cancel_never_gives_up_a_disk_that_is_captured_or_kept(site: Site, computer: str) -> None:
    bench = Bench(site, computer=computer)
    for state, last in PAIRS:
        pair, said = bench.pull(levers.cancel, state, last)
        at = last if state == "pending" else state
        keeps_disk = at in CAPTURES or (at == "maintenance" and last not in SESSIONS)
        if (keeps_disk or (at == "maintenance" and computer == "maintenance")) and (
            "deleted" not in {state, last}
        ):
            assert said.startswith("refused"), (state, last, pair)
        elif pair != (state, last):
            assert pair is not None, (state, last)
            assert pair[0] == "deleted", (state, last, pair)
            fate = "is taken back" if computer == "inuse" else "stays in maintenance"
            assert f"vm1 {fate}" in said


def test_cancel_says_to_whom_the_computer_is_left(site: Site) -> None:
    bench = Bench(site)
    other = site.ask("inuse", 1)
    for state, last in PAIRS:
        pair, said = bench.pull(levers.cancel, state, last)
        if pair != (state, last):
            assert f"vm1 is left to request {other}" in said, (state, last)
