"""Places among the loads of a node: never too many, in order, and none for the dead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from tests.galera import Galera
from tests.mariadb import ServerMissingError
from tests.samples import make_reservation
from tests.seeded import SeededDatabase
from tests.site import Site
from vcld.config import Settings
from vcld.errors import BackendUnavailableError, WorkerStopped
from vcld.guest.interface import Tools
from vcld.provisioning.leasing import Leases, Renewing, Turn
from vcld.schema.engine import Database, make_engine
from vcld.store import leases
from vcld.waiting import Cancellation

NAME = "xcat-load:node1"
COURTESY = Turn(is_vital=False)
Worker = Callable[[int], Leases]


@pytest.fixture
def claims(site: Site) -> Site:
    """Three reservations with a worker each."""
    site.execute(
        "INSERT INTO vcld_claim (reservationid, requestid, managementnodeid, computerid, state,"
        " laststate, phase, daemon, token, claimed_at) SELECT seq, seq, 1, seq, 'reload', 'reload',"
        " 'running', 'd', 1000 + seq, NOW() FROM seq_1_to_3"
    )
    return site


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cancellation() -> Cancellation:
    return Cancellation()


@pytest.fixture
def worker(claims: Site, told: list[str], cancellation: Cancellation) -> Worker:
    """The leases of the worker of a reservation, by its id."""
    database = Database(claims.engine)

    def run(work: Callable[..., Any], *args: Any, **facts: Any) -> Any:
        return database.run(lambda connection: work(connection, *args, **facts))

    def make(reservationid: int) -> Leases:
        tools = Tools(
            settings=Settings(),
            cancellation=cancellation,
            progress=lambda _name, text: told.append(text),
            variables=lambda _name: None,
            log=structlog.get_logger(),
            run=run,
        )
        return Leases(replace(make_reservation(), id=reservationid), tools)

    return make


def expire(site: Site) -> None:
    site.execute("UPDATE vcld_lease SET expires_at = UTC_TIMESTAMP() - INTERVAL 1 SECOND")


def test_who_finds_no_place_in_time_is_told_how_many_are_taken(
    worker: Worker, told: list[str]
) -> None:
    turn = Turn(wait_seconds=0.2)
    with worker(1).take(NAME, "a place", COURTESY):
        with pytest.raises(BackendUnavailableError, match=r"a place could not .* 1 of 1 are taken"):
            with worker(2).take(NAME, "a place", turn):
                raise AssertionError("there was no place")
    assert told == ["waiting for a place"]


def test_a_lost_place_does_not_stop_the_load_but_a_lost_right_does(
    claims: Site, worker: Worker
) -> None:
    with worker(1).take(NAME, "a place", COURTESY):
        mine = worker(2)
        with mine.take("other", "a place", COURTESY):
            expire(claims)
            with worker(3).take("other", "a place", COURTESY):
                mine.confirm()  # in line again, behind whoever took it
                lines = "SELECT COUNT(*) FROM vcld_lease WHERE name = 'other' AND slot"
                assert claims.scalar(f"{lines} IS NULL") == 1
            mine.confirm()
    vital = worker(1)
    with vital.take(NAME, "a right", Turn()):
        claims.execute("DELETE FROM vcld_lease")
        with pytest.raises(BackendUnavailableError, match="a lease was lost"):
            vital.confirm()


def test_who_lost_the_claim_stands_in_no_line(claims: Site, worker: Worker) -> None:
    mine = worker(1)
    with mine.take(NAME, "a place", COURTESY):
        assert mine.is_claimed()
        claims.execute("UPDATE vcld_claim SET token = 1 WHERE reservationid = 1")
        claims.execute("DELETE FROM vcld_lease")
        mine.confirm()
        assert not mine.is_claimed()
        assert claims.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


def test_a_long_wait_for_something_else_renews_the_place(
    claims: Site, worker: Worker, cancellation: Cancellation
) -> None:
    mine = worker(1)
    waiting = Renewing(cancellation, mine.tick)
    with mine.take(NAME, "a place", COURTESY):
        claims.execute("UPDATE vcld_lease SET expires_at = UTC_TIMESTAMP() + INTERVAL 1 SECOND")
        waiting.wait(0.05)
        left = "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), expires_at) FROM vcld_lease"
        assert claims.scalar(left) > 20
        threading.Timer(0.2, cancellation.stop, ["the request was deleted"]).start()
        with pytest.raises(WorkerStopped):
            waiting.wait(60)
    assert claims.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


def hold_in_turn(databases: list[Database], workers: int, limit: int) -> tuple[int, list[int]]:
    """Let many hold a place for a moment; how many did at most, and who has had it."""
    inside, most = [0], [0]
    guard = threading.Lock()
    served: list[int] = []

    def work(number: int) -> None:
        run = databases[number % len(databases)].run
        token: int = run(lambda c: leases.join(c, NAME, reservationid=number))
        while True:
            place = run(lambda c: leases.advance(c, NAME, token, limit=limit))
            assert place is not None
            if place.slot is not None:
                break
            time.sleep(0.01)
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        with guard:
            inside[0] -= 1
            served.append(number)
        run(lambda c: leases.release(c, NAME, token))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, workers + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most[0], sorted(served)


def test_those_who_ask_at_the_same_moment_are_not_in_each_others_way(site: Site) -> None:
    with site.engine.begin() as connection:
        tokens = [leases.join(connection, NAME, reservationid=n) for n in range(1, 4)]
    with site.engine.connect() as connection:  # none sees what the others take
        places = []
        for token in reversed(tokens):
            places.append(leases.advance(connection, NAME, token, limit=3))
            connection.rollback()
    assert [place and place.slot for place in places] == [2, 1, 0]


def test_never_more_than_the_limit_at_once(site: Site) -> None:
    most, served = hold_in_turn([Database(site.engine)], workers=30, limit=3)
    assert served == list(range(1, 31))
    assert most <= 3
    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


@pytest.fixture
def members() -> Iterator[list[Database]]:
    """Each asks a member of its own of a Galera cluster."""
    try:
        cluster = Galera()
    except ServerMissingError as err:
        if os.environ.get("VCLD_TEST_DATABASE"):
            pytest.skip(f"NOT TESTED: {err}")
        raise
    engines = []
    try:
        cluster.start()
        SeededDatabase(cluster.nodes[0], "vcld").reset()
        engines = [make_engine(node.url("vcld")) for node in cluster.nodes for _ in range(2)]
        yield [Database(engine, patience_seconds=20) for engine in engines]
    finally:
        for engine in engines:
            engine.dispose()
        cluster.remove()


def test_never_more_than_the_limit_at_once_on_a_cluster_whose_members_lock_apart(
    members: list[Database],
) -> None:
    most, served = hold_in_turn(members, workers=6, limit=1)
    assert served == list(range(1, 7))
    assert most == 1
