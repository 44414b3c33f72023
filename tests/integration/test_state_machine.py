"""Random lives: requests, deletions, edits, deaths of workers and daemons, clocks that move.

Whatever happens, after quiet nothing is pending, no computer is left loading, no computer
serves two users, and no row is left over.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.daemon import Daemons, eventually
from tests.seeded import SeededDatabase
from tests.site import IMAGE, NEW_REVISION, OTHER_IMAGE, OTHER_REVISION, REVISION, Site
from tests.steps import step_names

COMPUTERS = st.integers(1, 4)
#: More for a long search: VCLD_TEST_EXAMPLES=200 VCLD_TEST_SEED=random.
EXAMPLES = int(os.environ.get("VCLD_TEST_EXAMPLES", "8"))
IS_RANDOM = os.environ.get("VCLD_TEST_SEED") == "random"
#: What an operator or the web site puts a request into by hand.
EDITS = ("deleted", "timeout", "maintenance", "complete", "failed", "rebootsoft", "reload", "hpc")


class Lives(RuleBasedStateMachine):
    """One site, one daemon, and everything that may happen to them."""

    database: SeededDatabase
    root: Path
    count = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).count += 1
        folder = self.root / str(self.count)
        folder.mkdir()
        self.database.reset()
        self.site = Site(self.database.engine, folder, computers=6).build()
        for name in ("acknowledgetimeout", "initialconnecttimeout", "reconnecttimeout"):
            self.site.variable(name, 3)
        for name in ("general_end_notice_first", "general_end_notice_second"):
            self.site.variable(name, 1)
        self.daemons = Daemons(self.site, self.database.url)
        self.daemon = self._start()
        self.requests: list[int] = []
        #: Computers of requests that somebody's hand ended behind the daemon's back.
        self.taken_by_hand: set[int] = set()

    def _start(self) -> Any:
        return self.daemons.start(max_attempts=2, retry_delay=0.1, competition_timeout=5)

    # What users and the web site do.

    @rule(computer=COMPUTERS, other=st.booleans(), seconds=st.sampled_from((2, 3600)))
    def user_asks(self, computer: int, other: bool, seconds: int) -> None:
        image, revision = (OTHER_IMAGE, OTHER_REVISION) if other else (IMAGE, REVISION)
        request = self.site.ask("new", computer, seconds=seconds, image=image, revision=revision)
        self.requests.append(request)

    @rule(computer=COMPUTERS, others=st.sampled_from(((5,), (5, 6))))
    def user_asks_for_a_cluster(self, computer: int, others: tuple[int, ...]) -> None:
        self.requests.append(self.site.ask("new", computer, *others))

    @rule(data=st.data())
    def end_passes_while_the_daemon_is_away(self, data: st.DataObject) -> None:
        """And somebody else gets one of the computers meanwhile."""
        if self.requests:
            request = data.draw(st.sampled_from(self.requests))
            computers = sorted(self._computers(request))
            assert self.daemon.stop() == 0, self.daemon.describe()
            self.site.execute(
                f"UPDATE request SET end = NOW() - INTERVAL 20 SECOND WHERE id = {request}"
            )
            if computers:
                self.requests.append(self.site.ask("new", data.draw(st.sampled_from(computers))))
            self.daemon = self._start()

    def _computers(self, request: int) -> set[int]:
        rows = self.site.scalar(
            f"SELECT GROUP_CONCAT(computerid) FROM reservation WHERE requestid = {request}"
        )
        return {int(number) for number in str(rows).split(",")} if rows else set()

    @rule(computer=COMPUTERS, state=st.sampled_from(("reload", "tomaintenance", "imageprep")))
    def administrator_asks(self, computer: int, state: str) -> None:
        self.requests.append(self.site.ask(state, computer))

    @rule(data=st.data())
    def user_presses_connect(self, data: st.DataObject) -> None:
        if self.requests:
            self.site.connect(data.draw(st.sampled_from(self.requests)))

    @rule(data=st.data())
    def user_presses_end(self, data: st.DataObject) -> None:
        if self.requests:
            self.site.end(data.draw(st.sampled_from(self.requests)))

    @rule(data=st.data())
    def row_is_deleted(self, data: st.DataObject) -> None:
        if self.requests:
            request = data.draw(st.sampled_from(self.requests))
            self.taken_by_hand |= self._computers(request)
            self.site.delete(request)

    @rule(data=st.data(), state=st.sampled_from(EDITS), last=st.sampled_from(("new", "inuse")))
    def state_is_edited_by_hand(self, data: st.DataObject, state: str, last: str) -> None:
        if self.requests:
            request = data.draw(st.sampled_from(self.requests))
            if state not in {"deleted", "timeout"} or last == "new":
                self.taken_by_hand |= self._computers(request)
            self.site.set_state(request, state, last)

    @rule(data=st.data())
    def image_is_captured(self, data: st.DataObject) -> None:
        if self.requests:
            request = data.draw(st.sampled_from(self.requests))
            self.site.execute(
                f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}, imageid = 2"
                f" WHERE requestid = {request}"
            )
            self.site.set_state(request, "image", "inuse")

    # What the world does.

    @rule(minutes=st.sampled_from((-90, -10, 10, 90)))
    def clock_moves(self, minutes: int) -> None:
        """As seen from the rows: all their times are earlier or later now."""
        self.site.execute(
            f"UPDATE request SET start = start - INTERVAL {minutes} MINUTE,"
            f" end = end - INTERVAL {minutes} MINUTE"
        )
        self.site.execute(
            f"UPDATE reservation SET lastcheck = lastcheck - INTERVAL {minutes} MINUTE"
        )

    @rule(
        step=st.sampled_from([*step_names(), "startvm", "transfervm", "guest:reserve"]),
        what=st.sampled_from(
            (
                {"signal": "KILL"},
                {"error": "ProvisioningError", "blame": "COMPUTER"},
                {"error": "BackendUnavailableError"},
                {"hang": True},
            )
        ),
        times=st.integers(1, 3),
    )
    def hardware_fails(self, step: str, what: dict[str, Any], times: int) -> None:
        rules = [*self.site.script.get("rules", []), {"step": step, "times": times, **what}]
        self.site.write_script(rules=rules)

    @rule(seconds=st.sampled_from((0, 0.3, 1)))
    def hardware_is_slow(self, seconds: float) -> None:
        self.site.write_script(delays={"transfervm": seconds, "guest:sanitize": seconds})

    @rule(seed=st.integers(0, 9))
    def worker_is_killed(self, seed: int) -> None:
        workers = self.daemon.workers()
        if workers:
            try:
                random.Random(seed).choice(workers).kill()
            except psutil.NoSuchProcess:
                return

    @rule(kindly=st.booleans())
    def daemon_is_restarted(self, kindly: bool) -> None:
        if kindly:
            assert self.daemon.stop() == 0, self.daemon.describe()
        else:
            self.daemon.kill()
        self.daemon = self._start()

    @rule(seconds=st.sampled_from((0.05, 0.3, 1.0)))
    def time_passes(self, seconds: float) -> None:
        time.sleep(seconds)

    @invariant()
    def no_computer_has_two_users(self) -> None:
        """Live: reserved or in use, whether looked at just now or not."""
        live = self.site.catalog.states(("reserved", "inuse"))
        doubled = self.site.scalar(
            "SELECT GROUP_CONCAT(CONCAT(computerid, ':', ids)) FROM (SELECT v.computerid,"
            " GROUP_CONCAT(r.id) AS ids FROM reservation v JOIN request r ON r.id = v.requestid"
            f" JOIN computer c ON c.id = v.computerid"
            f" WHERE (r.stateid IN ({live[0]}, {live[1]}) OR (r.stateid ="
            f" {self.site.catalog.state_id('pending')} AND r.laststateid IN ({live[0]}, {live[1]})))"
            " GROUP BY v.computerid HAVING COUNT(DISTINCT r.id) > 1) twice"
        )
        assert doubled is None, f"computers with two users: {doubled}\n{self.daemon.describe()}"

    def teardown(self) -> None:
        try:
            self._quiet()
        finally:
            self.daemons.end()
            shutil.rmtree(self.site.folder, ignore_errors=True)

    def _quiet(self) -> None:
        """Nothing fails any more and every user goes home: all must come to its end."""
        self.site.write_script(rules=[], delays={})
        # Reloads of the daemon's own that the clock has put into the future.
        self.site.execute("UPDATE request SET start = NOW() WHERE start > NOW()")
        keep = self.site.catalog.states(("maintenance", "hpc", "complete", "failed"))
        ids = ", ".join(map(str, keep))
        for request in self.requests:
            pair = self.site.pair(request)
            if pair != "gone" and not pair.startswith(("maintenance", "hpc", "complete", "failed")):
                self.site.end(request)
        unsettled = f"SELECT COUNT(*) FROM request WHERE stateid NOT IN ({ids})"
        eventually(
            lambda: self.site.scalar(unsettled) == 0 and not self.daemon.workers(),
            lambda: f"{self._rows()}\n{self.daemon.describe()}",
            limit_seconds=60,
        )
        state = self.site.catalog.state_id
        reloading = f"SELECT COUNT(*) FROM computer WHERE stateid = {state('reloading')}"
        assert self.site.scalar(reloading) == 0, f"{self._rows()}\n{self.daemon.describe()}"
        self._no_computer_is_left_behind()
        eventually(lambda: self.site.claims() == [], lambda: str(self.site.claims()))
        orphans = (
            "SELECT COUNT(*) FROM computerloadlog l LEFT JOIN reservation v"
            " ON v.id = l.reservationid LEFT JOIN request r ON r.id = v.requestid"
            " WHERE r.id IS NULL"
        )
        assert self.site.scalar(orphans) == 0
        failures = self.daemon.events("worker failed by an unexpected error")
        assert not failures, failures

    def _no_computer_is_left_behind(self) -> None:
        """In a session's state, without a request that could take it back."""
        for number in sorted(set(range(1, 7)) - self.taken_by_hand):
            kept = self.site.scalar(
                "SELECT COUNT(*) FROM reservation v JOIN request r ON r.id = v.requestid"
                f" WHERE v.computerid = {number} AND r.stateid NOT IN"
                " (SELECT id FROM state WHERE name IN ('complete', 'failed'))"
            )
            state = self.site.computer(number)
            assert kept or state not in {"inuse", "reserved", "timeout"}, (
                f"computer {number} is left {state}\n{self._rows()}\n{self.daemon.describe()}"
            )

    def _rows(self) -> str:
        pairs = {request: self.site.pair(request) for request in self.requests}
        computers = {n: self.site.computer(n) for n in range(1, 7)}
        return f"requests {pairs}\ncomputers {computers}\nclaims {self.site.claims()}"


@pytest.mark.timeout(900)
def test_random_lives_leave_nothing_pending_loading_doubled_or_orphaned(
    seeded: SeededDatabase, tmp_path: Path
) -> None:
    Lives.database, Lives.root = seeded, tmp_path
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            derandomize=not IS_RANDOM,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            # Each example takes seconds: a shorter one is looked for only when asked to.
            phases=tuple(Phase) if IS_RANDOM else (Phase.generate,),
        ),
    )
