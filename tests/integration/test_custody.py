"""Recovery at awkward moments: it never ends the daemon, and is never forgotten."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import Any

import pytest
import structlog

from tests.daemon import eventually
from tests.site import Site
from vcld import clock, processes
from vcld.config import Settings
from vcld.schema.engine import Database
from vcld.states.assignment import Assignment
from vcld.store import candidates, claims, nodes, requests
from vcld.store.findings import Finding, Found, Look
from vcld.supervisor import custody
from vcld.supervisor.children import Children
from vcld.supervisor.custody import Custody
from vcld.supervisor.problems import Problems
from vcld.supervisor.wakeup import Wakeup
from vcld.supervisor.warming import NOBODY
from vcld.worker import life

#: Tests that run beside these look for titles too.
NAME = f"vcld-{os.getpid()}"


def make_custody(site: Site) -> Custody:
    database = Database(site.engine)
    node = database.run(lambda c: nodes.get_node(c, "node1.example.org"))
    log = structlog.get_logger()
    made = Custody(
        settings=Settings(fqdn="node1.example.org", processname=NAME),
        database=database,
        node=node,
        daemon="ours",
        children=Children(Wakeup().selector),
        problems=Problems(Settings(), database, node),
        log=log,
    )
    made.catalog = site.catalog
    return made


class Scene:
    """A claim whose worker is gone, and the custody that knows of it."""

    def __init__(self, site: Site, state: str = "image") -> None:
        self.site = site
        self.database = Database(site.engine)
        self.request = site.ask(state, 1, laststate="inuse")
        rows = self._run(candidates.load_candidates, site.catalog, 1, [self.request])
        self._run(claims.claim, site.catalog, 1, "gone", rows)
        self.custody = make_custody(site)
        self.custody.inherit()

    def _run(self, work: Any, *args: Any) -> Any:
        return self.database.run(lambda connection: work(connection, *args))


def test_request_changed_at_the_moment_of_recovery_is_left_as_it_was_changed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the state machine: the transaction reads the old pair, its update finds the new."""
    scene = Scene(site)
    site.set_state(scene.request, "deleted", "inuse")
    with monkeypatch.context() as patch:
        patch.setattr(requests, "find_pair", lambda *_: ("pending", "image"))
        scene.custody.recover()

    assert len(scene.custody) == 1
    assert site.pair(scene.request) == "deleted/inuse"

    scene.custody.recover()

    assert len(scene.custody) == 0
    assert site.claims() == []
    assert site.pair(scene.request) == "deleted/inuse"


def test_recovery_that_fails_oddly_does_not_end_the_daemon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(site)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(custody, "recover", fail)
        scene.custody.recover()

    # The claim is still there, so that it is found again.
    assert len(site.claims()) == 1
    scene.custody.take_orphans("is not there")
    scene.custody.recover()
    assert site.claims() == []
    assert site.pair(scene.request) == "maintenance/image"


class Perl:
    """A Perl daemon's worker, as its rows and its process title show it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.request = site.ask("pending", 1, laststate="new")
        (self.reservation,) = site.reservations(self.request)
        self.custody = make_custody(site)
        self.found = [Found(Finding.STRAY, self.request, self.reservation)]

    def look(self) -> str:
        self.custody.watch(NOTHING, self.found)
        return self.site.pair(self.request)

    def log(self, age_seconds: int) -> None:
        self.site.execute(
            "INSERT INTO computerloadlog (reservationid, computerid, loadstateid, timestamp)"
            f" SELECT {self.reservation}, 1, id, NOW() - INTERVAL {age_seconds} SECOND"
            " FROM computerloadstate WHERE loadstatename = 'begin'"
        )


NOTHING = Look(
    checkininterval_seconds=1, is_ours=True, messages_need_validating=False, blocks_due=False,
    nodes_silent=False, running_claims=0, found=(),
)  # fmt: skip


@pytest.fixture
def perl(site: Site, monkeypatch: pytest.MonkeyPatch) -> Perl:
    """With the minute of patience over at once."""
    monkeypatch.setattr(clock, "monotonic", itertools.count(1000, 61).__next__)
    return Perl(site)


def test_request_that_a_dead_perl_worker_left_pending_is_processed_again(perl: Perl) -> None:
    perl.log(age_seconds=300)

    assert perl.look() == "pending/new"
    assert perl.look() == "new/new"


def test_request_is_left_to_a_perl_worker_whose_log_moves(perl: Perl) -> None:
    perl.log(age_seconds=20)

    assert {perl.look() for _ in range(3)} == {"pending/new"}


def test_request_is_left_to_a_perl_worker_that_lives_here(perl: Perl) -> None:
    perl.log(age_seconds=3000)
    title = f"{NAME} '|4242|{perl.request}|{perl.reservation}|new|' vm1 first ada"
    worker = subprocess.Popen(["bash", "-c", f'exec -a "{title}" sleep 60'])
    try:
        eventually(lambda: any(title in line for _, line in processes.titles()))
        assert {perl.look() for _ in range(3)} == {"pending/new"}
    finally:
        worker.kill()
        worker.wait()
    assert perl.look() == "new/new"


def test_worker_is_adopted_once_however_often_the_start_is_tried() -> None:
    wakeup = Wakeup()
    children = Children(wakeup.selector)
    worker = subprocess.Popen(["sleep", "60"], start_new_session=True)
    process = processes.ProcessId(worker.pid, processes.started_at(worker.pid) or 0)

    assert children.adopt(process, NOBODY)
    assert children.adopt(process, NOBODY)
    watched = len(wakeup.selector.get_map())
    worker.kill()
    worker.wait()

    assert len(children.reap()) == 1
    assert len(wakeup.selector.get_map()) == watched - 1


def test_worker_that_comes_too_late_leaves_no_claim_behind(site: Site) -> None:
    """Another request has taken its computer before it could say that it lives."""
    database = Database(site.engine)
    node = database.run(lambda c: nodes.get_node(c, "node1.example.org"))
    request = site.ask("reload", 1)
    rows = database.run(lambda c: candidates.load_candidates(c, site.catalog, 1, [request]))
    (grip,) = database.run(lambda c: claims.claim(c, site.catalog, 1, "ours", rows))
    site.execute("UPDATE vcld_claim SET revoked = 1")
    assignment = Assignment(
        settings=Settings(fqdn="node1.example.org"),
        database=database,
        catalog=site.catalog,
        node=node,
        grip=grip,
        preload_only=False,
    )
    children = Children(Wakeup().selector)

    children.spawn("a worker", grip, lambda: life.run(assignment))
    (ended,) = eventually(children.reap)

    assert ended.status in custody.ORDERLY
    assert site.claims() == []


def test_request_that_does_not_say_at_what_it_is_pending_is_told_of_once(perl: Perl) -> None:
    """Fault 22, put in by hand: it was told of at each look, as one that is processed again."""
    perl.site.set_state(perl.request, "pending", "pending")

    with structlog.testing.capture_logs() as logs:
        perl.custody._log = structlog.get_logger()
        assert {perl.look() for _ in range(4)} == {"pending/pending"}

    (told,) = logs
    assert told["log_level"] == "warning"
    assert (told["request_id"], "set request.stateid" in told["event"]) == (perl.request, True)
