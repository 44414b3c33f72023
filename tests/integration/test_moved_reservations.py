"""An administrator gives reservations to another management node, by ``managementnodeid``."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from tests.daemon import Daemon, Daemons, daemons_for, eventually
from tests.site import Site
from vcld.store.findings import Finding
from vcld.store.look import Looker


def start(site: Site, daemons: Daemons, **keys: object) -> tuple[Daemon, Daemon]:
    return (
        daemons.start(node=1, name="vcld1", **keys),
        daemons.start(node=2, name="vcld2", **keys),
    )


def wait_for_connect(site: Site, daemon: Daemon) -> int:
    """A request whose user has not pressed Connect yet: its claim waits without a worker."""
    request = site.ask("new", 1)
    eventually(lambda: "waiting" in {c.phase for c in site.claims()}, daemon.describe)
    return request


@pytest.mark.parametrize("first_stops", [False, True])
def test_waiting_request_is_taken_up_where_it_was_moved_to(
    two_nodes: Site, database_url: str, first_stops: bool
) -> None:
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        first, second = start(site, daemons)
        request = wait_for_connect(site, first)
        if first_stops:
            assert first.stop() == 0

        site.execute(f"UPDATE reservation SET managementnodeid = 2 WHERE requestid = {request}")
        site.connect(request)

        eventually(lambda: site.computer(1) == "inuse", second.describe)
        assert site.pair(request) in {"inuse/reserved", "pending/inuse", "inuse/inuse"}
        assert site.world.machine("vm1").loads == 1
        offers = [d for d in (first, second) for e in d.events("load state")
                  if e["loadstate"] == "reserved"]  # fmt: skip
        assert offers == [first], "what was done is remembered"


def test_work_of_a_dead_node_is_recovered_where_it_was_moved_to(
    two_nodes: Site, database_url: str
) -> None:
    """Nobody takes over by himself; the administrator does it by hand."""
    site = two_nodes
    site.write_script(delays={"transfervm": 300})
    with daemons_for(site, database_url) as daemons:
        first, second = start(site, daemons, takeover="no", takeover_after=8)
        request = site.ask("new", 1)
        eventually(lambda: "transfervm" in site.steps(request), first.describe)
        for worker in first.workers():
            worker.kill()
        first.kill()
        site.write_script(delays={"transfervm": 0})

        site.execute(f"UPDATE reservation SET managementnodeid = 2 WHERE requestid = {request}")

        eventually(lambda: site.computer(1) == "reserved", second.describe)
        assert site.pair(request) == "pending/reserved"


def test_worker_ends_its_work_and_the_next_step_is_done_where_it_was_moved_to(
    two_nodes: Site, database_url: str
) -> None:
    site = two_nodes
    site.write_script(delays={"transfervm": 2})
    with daemons_for(site, database_url) as daemons:
        first, second = start(site, daemons)
        request = site.ask("new", 1)
        eventually(lambda: "transfervm" in site.steps(request), first.describe)

        site.execute(f"UPDATE reservation SET managementnodeid = 2 WHERE requestid = {request}")

        eventually(lambda: site.computer(1) == "reserved", second.describe)
        assert {e["state"] for e in first.events("work began")} == {"new"}
        assert {e["state"] for e in second.events("work began")} == {"reserved"}
        assert site.world.machine("vm1").loads == 1


def test_many_that_were_moved_away_do_not_hide_what_is_due(
    two_nodes: Site, database: Engine
) -> None:
    """To a node without vcld, say: they stay due for ever, and a look returns so many only."""
    site = two_nodes
    request = site.ask("new", *range(1, 11), start=7200)
    site.set_state(request, "pending", "reserved")
    site.execute(
        "INSERT INTO vcld_claim (reservationid, requestid, managementnodeid, computerid, state,"
        " laststate, phase, daemon, token, claimed_at, next_at)"
        " SELECT id, requestid, 1, computerid, 'reserved', 'new', 'waiting', 'old', id,"
        " UTC_TIMESTAMP(), UTC_TIMESTAMP() FROM reservation"
    )
    site.execute("UPDATE reservation SET managementnodeid = 2")
    due = site.ask("new", 1)

    with database.begin() as connection:
        looked = {
            node: Looker(site.catalog, node, "").look(connection, limit=5).found for node in (1, 2)
        }

    assert [found.requestid for found in looked[1]] == [due]
    assert {found.finding for found in looked[2]} == {Finding.MOVED}
