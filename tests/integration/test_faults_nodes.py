"""Two management nodes, one database: who acts for whom, and fencing (faults 1, 7; invariant 2)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from sqlalchemy.engine import Engine

from tests.daemon import Daemon, Daemons, daemons_for, eventually
from tests.site import Site
from vcld.store import resources

#: A node counts as dead after so long; its own workers stop a little earlier.
TAKEOVER_SECONDS = 10


def both(site: Site, daemons: Daemons, **keys: object) -> tuple[Daemon, Daemon]:
    facts = {"takeover_after": TAKEOVER_SECONDS, **keys}
    return daemons.start(node=1, name="vcld1", **facts), daemons.start(
        node=2, name="vcld2", **facts
    )


def test_two_nodes_each_do_their_own_and_nothing_twice(two_nodes: Site, database_url: str) -> None:
    with daemons_for(two_nodes, database_url) as daemons:
        first, second = both(two_nodes, daemons)

        requests = [two_nodes.ask("reload", n, node=1 + n % 2) for n in range(1, 11)]

        eventually(lambda: all(two_nodes.pair(r) == "gone" for r in requests), first.describe)
        for daemon, ours in ((first, requests[1::2]), (second, requests[0::2])):
            began = sorted(line["request_id"] for line in daemon.events("work began"))
            assert began == ours
        assert all(two_nodes.world.machine(f"vm{n}").loads == 1 for n in range(1, 11))


def test_nodes_that_may_take_a_computer_over_are_known_by_address(two_nodes: Site) -> None:
    two_nodes.execute("UPDATE managementnode SET IPaddress = CONCAT('10.0.9.', id)")
    with two_nodes.engine.begin() as connection:
        assert resources.find_node_addresses(connection, 1) == ["10.0.9.1", "10.0.9.2"]
        assert resources.find_node_addresses(connection, 9999) == []
    two_nodes.execute(
        "UPDATE managementnode SET stateid = (SELECT id FROM state WHERE name = 'deleted')"
        " WHERE id = 2"
    )
    with two_nodes.engine.begin() as connection:
        assert resources.find_node_addresses(connection, 1) == ["10.0.9.1"]


def test_cluster_over_two_nodes_is_one_session(two_nodes: Site, database_url: str) -> None:
    with daemons_for(two_nodes, database_url) as daemons:
        first, second = both(two_nodes, daemons)

        request = two_nodes.ask("new", 1, 2)
        two_nodes.execute("UPDATE reservation SET managementnodeid = 2 WHERE computerid = 2")

        def describe() -> str:
            return first.describe() + second.describe()

        eventually(lambda: two_nodes.computer(2) == "reserved", describe)
        eventually(lambda: two_nodes.pair(request) == "pending/reserved", describe)
        two_nodes.connect(request)
        eventually(lambda: two_nodes.computer(1) == "inuse", describe)
        eventually(lambda: two_nodes.computer(2) == "inuse", describe)


def test_fault_26_child_that_never_begins_fails_the_cluster_within_the_limit(
    two_nodes: Site, database_url: str
) -> None:
    """Its management node has never had a daemon, so that nobody takes over either."""
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        daemon = daemons.start(cluster_begin_timeout=2)
        site.execute("DELETE FROM resourcemap")
        request = site.ask("new", 1, 2)
        site.execute("UPDATE reservation SET managementnodeid = 2 WHERE computerid = 2")

        eventually(lambda: site.pair(request) == "failed/new", daemon.describe)

        assert (
            "not all reservations of the cluster began within 2 s"
            in dict((name, text) for name, text in site.load_log(request))["failed"]
        )
        assert [site.computer(n) for n in (1, 2)] == ["available", "available"]
        assert site.claims() == []


def test_fault_07_stopped_daemon_is_fenced_off_and_its_worker_does_no_double_work(
    two_nodes: Site, database_url: str
) -> None:
    site = two_nodes
    site.write_script(delays={"transfervm": 300})
    with daemons_for(site, database_url) as daemons:
        first, second = both(site, daemons)
        request = site.ask("new", 1, node=1)
        eventually(lambda: "transfervm" in site.steps(request), first.describe)
        (worker,) = first.workers()
        stopped_at = time.monotonic()
        first.send(signal.SIGSTOP)

        # The worker stops by itself before anybody else begins.
        eventually(lambda: not first.workers(), first.describe)
        assert not second.events("work began")
        site.write_script(delays={"transfervm": 0})
        eventually(lambda: site.computer(1) == "reserved", second.describe)
        assert time.monotonic() - stopped_at > TAKEOVER_SECONDS - 2
        assert second.events("management node is silent, its work is taken over")
        assert site.scalar("SELECT MAX(managementnodeid) FROM reservation") == 2

        os.kill(first.pid, signal.SIGCONT)
        assert first.process is not None
        assert first.process.wait(30) != 0
        assert first.events("fenced off, everything is stopped")
        assert site.world.machine("vm1").loads == 1
        assert not worker.is_running()


def test_killed_node_s_requests_are_done_by_the_other(two_nodes: Site, database_url: str) -> None:
    """A power cut of one machine: nobody resigns, nobody hands back."""
    site = two_nodes
    site.write_script(delays={"transfervm": 300})
    with daemons_for(site, database_url) as daemons:
        first, second = both(site, daemons)
        loading = site.ask("new", 1, node=1)
        later = site.ask("new", 2, node=1, start=90000, seconds=180000)
        eventually(lambda: "transfervm" in site.steps(loading), first.describe)
        workers = first.workers()
        first.kill()
        for worker in workers:
            worker.kill()
        site.write_script(delays={"transfervm": 0})

        eventually(lambda: site.computer(1) == "reserved", second.describe, limit_seconds=45)

        site.execute(f"UPDATE request SET start = NOW() WHERE id = {later}")
        eventually(lambda: site.computer(2) == "reserved", second.describe)
        text = [info for name, info in site.load_log(loading) if name == "info"]
        assert any("management node that died" in info for info in text)


def test_cleanly_stopped_node_is_not_taken_over(two_nodes: Site, database_url: str) -> None:
    """A planned restart: the others wait."""
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        first, second = both(site, daemons, takeover_after=2)
        first.stop()

        request = site.ask("new", 1, node=1)

        time.sleep(5)
        assert site.pair(request) == "new/new"
        assert not second.events("management node is silent, its work is taken over")


def test_takeover_switched_off_leaves_a_dead_node_s_work_alone(
    two_nodes: Site, database_url: str
) -> None:
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        first, second = both(site, daemons, takeover_after=2, takeover="no")
        request = site.ask("new", 1, node=1, start=90000, seconds=180000)
        first.kill()

        time.sleep(5)

        assert (
            site.scalar(f"SELECT managementnodeid FROM reservation WHERE requestid={request}") == 1
        )
        assert not second.events("management node is silent, its work is taken over")


def test_node_that_may_not_manage_the_computers_keeps_nobody_from_taking_over(
    database: Engine, database_url: str, tmp_path: Path
) -> None:
    names = tuple(f"node{n}.example.org" for n in (1, 2, 3))
    site = Site(database, tmp_path, nodes=names).build()
    site.let_every_node_manage_all()
    site.execute(
        "DELETE FROM resourcegroupmembers WHERE resourceid = (SELECT r.id FROM resource r JOIN"
        " resourcetype t ON t.id = r.resourcetypeid WHERE t.name = 'managementnode' AND subid = 2)"
    )
    site.write_script(delays={"transfervm": 300})
    with daemons_for(site, database_url) as daemons:
        first, second = both(site, daemons)
        loading = site.ask("new", 1, node=1)
        eventually(lambda: "transfervm" in site.steps(loading), first.describe)
        workers = first.workers()
        first.kill()
        for worker in workers:
            worker.kill()
        site.write_script(delays={})
        eventually(
            lambda: second.events(
                "management node is silent, nothing of its work can be taken over here"
            ),
            second.describe,
        )
        third = daemons.start(node=3, name="vcld3", takeover_after=TAKEOVER_SECONDS)

        eventually(lambda: site.computer(1) == "reserved", third.describe)

        assert not second.events("management node is silent, its work is taken over")
        # The dead node lives again, and later work of its own is its own.
        again = daemons.start(node=1, name="vcld1", takeover_after=TAKEOVER_SECONDS)
        mine = site.ask("new", 2, node=1)
        eventually(lambda: site.computer(2) == "reserved", again.describe)
        assert again.events("work began", request_id=mine)
