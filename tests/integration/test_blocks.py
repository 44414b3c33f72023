"""Block allocations through the real daemon, with a fake web site that makes the requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from sqlalchemy.engine import Engine

from tests.daemon import Daemon, Daemons, daemons_for, eventually
from tests.post_office import PostOffice
from tests.site import Site
from tests.web_site import PASSWORD, USER, FakeWebSite, serving
from vcld.config import Settings
from vcld.schema.engine import Database
from vcld.states import blockrequest
from vcld.store import blocks, nodes
from vcld.store.blocks import BlockAction
from vcld.waiting import Cancellation


@pytest.fixture
def web() -> Iterator[FakeWebSite]:
    with serving(FakeWebSite()) as running:
        running.answer = {"status": "success", "allocated": 3, "errormsg": "", "warningmsg": ""}
        yield running


def start(daemons: Daemons, web: FakeWebSite, **keys: Any) -> Daemon:
    daemon = daemons.make(
        xmlrpc_url=web.url, xmlrpc_username=USER, xmlrpc_pass=PASSWORD, xmlrpc_timeout=5, **keys
    )
    daemon.conf.chmod(0o600)
    return daemon.start()


def allocate(
    site: Site, *, starts: int = 600, ends: int = 7200, expires: int = 86400, node: int = 1,
    machines: int = 3,
) -> tuple[int, int]:  # fmt: skip
    """A block request with one block time, in seconds from now; both ids."""
    block = site.scalar("SELECT COALESCE(MAX(id), 0) + 1 FROM blockRequest")
    site.execute(
        "INSERT INTO blockRequest (id, name, imageid, numMachines, ownerid, managementnodeid,"
        f" expireTime, processing, status, repeating) VALUES ({block}, 'course', 2, {machines},"
        f" 101, {node}, NOW() + INTERVAL {expires} SECOND, 0, 'accepted', 'list')"
    )
    site.execute(
        "INSERT INTO blockTimes (id, blockRequestid, start, end) VALUES"
        f" ({block}, {block}, NOW() + INTERVAL {starts} SECOND, NOW() + INTERVAL {ends} SECOND)"
    )
    return block, block


def processed(site: Site, timeid: int) -> bool:
    return bool(site.scalar(f"SELECT processed FROM blockTimes WHERE id = {timeid}"))


def test_block_time_that_is_near_is_allocated_once(
    site: Site, daemons: Daemons, web: FakeWebSite
) -> None:
    block, near = allocate(site)
    _, far = allocate(site, starts=90000, ends=97200, expires=200000)

    daemon = start(daemons, web)

    eventually(lambda: processed(site, near), daemon.describe)
    assert not processed(site, far)
    assert web.calls == [("XMLRPCprocessBlockTime", (near, 1))]
    assert site.scalar(f"SELECT processing FROM blockRequest WHERE id = {block}") == 0


def test_other_node_s_blocks_are_left_alone(
    two_nodes: Site, database_url: str, web: FakeWebSite
) -> None:
    _, ours = allocate(two_nodes, node=1)
    _, theirs = allocate(two_nodes, node=2)
    with daemons_for(two_nodes, database_url) as daemons:
        daemon = start(daemons, web)

        eventually(lambda: processed(two_nodes, ours), daemon.describe)

    assert not processed(two_nodes, theirs)


def test_block_time_that_is_over_gives_its_computers_back(
    site: Site, daemons: Daemons, web: FakeWebSite
) -> None:
    _, over = allocate(site, starts=-7200, ends=-60)
    site.execute(
        f"INSERT INTO blockComputers (blockTimeid, computerid, imageid) VALUES ({over}, 1, 2)"
    )

    daemon = start(daemons, web)

    rows = "SELECT (SELECT COUNT(*) FROM blockTimes) + (SELECT COUNT(*) FROM blockComputers)"
    eventually(lambda: site.scalar(rows) == 0, daemon.describe)
    assert web.calls == []


def test_expired_allocation_is_completed(site: Site, daemons: Daemons, web: FakeWebSite) -> None:
    block, _ = allocate(site, starts=-9000, ends=-7200, expires=-60)

    daemon = start(daemons, web)

    status = f"SELECT status FROM blockRequest WHERE id = {block}"
    eventually(lambda: site.scalar(status) == "completed", daemon.describe)


def test_missing_web_site_keys_are_one_clear_line_and_the_daemon_goes_on(
    site: Site, daemons: Daemons
) -> None:
    _, timeid = allocate(site)
    daemon = daemons.start()

    eventually(lambda: daemon.events("block allocation cannot be prepared"), daemon.describe)
    other = site.ask("tomaintenance", 1)
    eventually(lambda: site.pair(other) == "gone", daemon.describe)

    (line,) = daemon.events("block allocation cannot be prepared")
    assert "xmlrpc_url" in line["reason"]
    assert not processed(site, timeid)


def test_owner_and_administrators_hear_once_of_an_allocation_that_waits(
    site: Site, daemons: Daemons
) -> None:
    site.execute("UPDATE managementnode SET sysadminEmailAddress = 'root@example.org'")
    allocate(site)
    with PostOffice.open() as office:
        for _ in range(2):
            daemon = daemons.start(smtp_server="127.0.0.1", smtp_port=office.port)
            eventually(
                lambda: daemon.events("work on block allocations failed"),  # noqa: B023
                daemon.describe,
            )
            assert daemon.stop() == 0

    told = {address for envelope in office.envelopes for address in envelope.rcpt_tos}
    assert told == {"ada@example.org", "root@example.org"}
    assert len(office.envelopes) == 2
    assert office.mail()["Subject"].strip() == "VCL Block allocation warning for course"
    assert "is not set up to ask the web site" in str(office.mail().get_content())


def test_fault_29_500_requests_of_block_allocations_within_a_minute(
    database: Engine, database_url: str, tmp_path: Path, web: FakeWebSite
) -> None:
    """All are done, a user who comes in between waits for none of them, the heart beats."""
    site = Site(database, tmp_path, computers=501).build()
    site.execute("UPDATE computer SET type = 'lab'")
    site.execute("UPDATE managementnode SET checkininterval = 12")
    times = [allocate(site, machines=250)[1] for _ in range(2)]
    state = site.catalog.state_id("reload")

    def make_requests(_method: str, params: Any) -> dict[str, Any]:
        first = 250 * times.index(params[0])
        with database.begin() as c:
            c.exec_driver_sql(
                "INSERT INTO request (id, stateid, laststateid, userid, start, end, daterequested)"
                f" SELECT {first} + seq, {state}, {state}, 2, NOW(), NOW() + INTERVAL 1 HOUR,"
                " NOW() FROM seq_1_to_250"
            )
            c.exec_driver_sql(
                "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid,"
                f" managementnodeid, lastcheck) SELECT {first} + seq, {first} + seq, 2, 21, 1,"
                " NULL FROM seq_1_to_250"
            )
        return {"status": "success", "allocated": 250, "errormsg": "", "warningmsg": ""}

    web.answer = make_requests
    with daemons_for(site, database_url) as daemons:
        daemon = start(daemons, web, max_workers=40, log_level="info")
        loaded = "SELECT COUNT(*) FROM computer WHERE currentimageid = 2"
        eventually(lambda: site.scalar(loaded) > 10, daemon.describe, limit_seconds=60)
        began = time.monotonic()
        user = site.ask("new", 501)
        while site.scalar("SELECT COUNT(*) FROM request WHERE userid = 2"):
            assert time.monotonic() - began < 120, daemon.describe()
            time.sleep(0.05)
            if site.computer(501) == "reserved" and user:
                assert site.scalar("SELECT COUNT(*) FROM request WHERE userid = 2") > 0
                user = 0

    assert user == 0, "the user waited for the reloads"
    assert site.scalar(loaded) >= 500
    assert site.scalar("SELECT COUNT(*) FROM computer WHERE stateid <> 2 AND id <= 500") == 0
    assert not daemon.events("heartbeat was late")


def test_fault_28_preload_that_is_cancelled_frees_its_computer(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    daemon = daemons.start()
    request = site.ask("new", 1, start=1800, seconds=3600)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)
    site.write_script(delays={})

    site.delete(request)

    eventually(lambda: site.claims() == [], daemon.describe, limit_seconds=10)
    eventually(lambda: site.computer(1) == "available", daemon.describe)


def test_expired_allocation_keeps_no_computer(
    site: Site, daemons: Daemons, web: FakeWebSite
) -> None:
    block, time_ = allocate(site, starts=-7200, ends=-300, expires=-300)
    site.execute(
        "INSERT INTO blockComputers (blockTimeid, computerid, imageid, reloadrequestid)"
        f" VALUES ({time_}, 1, 3, 0)"
    )

    daemon = start(daemons, web)

    status = f"SELECT status FROM blockRequest WHERE id = {block}"
    eventually(lambda: site.scalar(status) == "completed", daemon.describe)
    assert site.scalar("SELECT COUNT(*) FROM blockComputers") == 0
    assert site.scalar("SELECT COUNT(*) FROM blockTimes") == 0


def test_stopping_daemon_hands_a_block_back_at_once(
    site: Site, daemons: Daemons, web: FakeWebSite
) -> None:
    web.answer = {"status": "warning", "allocated": 1, "errormsg": "", "warningmsg": "few"}
    block, time_ = allocate(site)
    daemon = start(daemons, web, shutdown_grace=3)
    title = f"{daemon.title} {block}:{time_} 'course'"
    eventually(lambda: has_process(title), daemon.describe)

    assert daemon.stop() == 0

    assert site.scalar("SELECT processing FROM blockRequest") == 0
    assert not has_process(title)


def has_process(title: str) -> bool:
    return any(
        title in " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline"])
    )


def test_block_time_without_an_end_holds_up_no_other(
    site: Site, daemons: Daemons, web: FakeWebSite
) -> None:
    _, odd = allocate(site)
    _, sound = allocate(site)
    never = "'0000-00-00 00:00:00'"
    site.execute(
        f"SET STATEMENT sql_mode = '' FOR UPDATE blockTimes SET end = {never} WHERE id = {odd}"
    )

    daemon = start(daemons, web)

    eventually(lambda: processed(site, sound), daemon.describe)
    assert site.scalar(f"SELECT COUNT(*) FROM blockTimes WHERE id = {odd}") == 0
    assert [arguments for _, arguments in web.calls] == [(sound, 1)]


def test_blocks_of_a_node_that_died_are_prepared_by_another_that_can(
    two_nodes: Site, database_url: str, web: FakeWebSite
) -> None:
    site = two_nodes
    _, theirs = allocate(site, node=2)
    with daemons_for(site, database_url) as daemons:
        other = daemons.make(node=2, name="vcld2", takeover_after=3)
        other.start()
        daemon = start(daemons, web, takeover_after=3)
        other.kill()

        eventually(lambda: processed(site, theirs), daemon.describe)

        assert web.calls == [("XMLRPCprocessBlockTime", (theirs, 1))]
        assert site.scalar("SELECT managementnodeid FROM blockRequest") == 1


def test_block_time_that_is_extended_before_its_turn_comes_keeps_its_computers(
    site: Site, database: Engine
) -> None:
    """Blocks are done one after another, and the web site may take its time for the first."""
    _, time_id = allocate(site, starts=-7200, ends=-60)
    over, _ = allocate(site, starts=-7200, ends=-3600, expires=-60)
    site.execute(f"INSERT INTO blockComputers VALUES ({time_id}, 1, 2, 0)")
    with database.begin() as connection:
        due = {block.action: block for block in blocks.load_due(connection, 1)}
    site.execute("UPDATE blockTimes SET end = NOW() + INTERVAL 1 HOUR")
    site.execute("UPDATE blockRequest SET expireTime = NOW() + INTERVAL 1 DAY")

    for action in (BlockAction.END, BlockAction.EXPIRE):
        assert take(site, due[action])

    assert site.scalar("SELECT COUNT(*) FROM blockTimes") == 2
    assert site.scalar("SELECT COUNT(*) FROM blockComputers") == 1
    assert site.scalar(f"SELECT status FROM blockRequest WHERE id = {over}") == "accepted"


@pytest.mark.parametrize("edit", ["skip = 1", "start = NOW() + INTERVAL 2 DAY"])
def test_block_time_that_is_put_off_before_its_turn_comes_is_not_asked_for(
    site: Site, database: Engine, edit: str
) -> None:
    _, time_id = allocate(site)
    with database.begin() as connection:
        (due,) = blocks.load_due(connection, 1)
    site.execute(f"UPDATE blockTimes SET {edit}")

    assert take(site, due)

    assert not processed(site, time_id)
    assert site.scalar("SELECT processing FROM blockRequest") == 0


def take(site: Site, due: blocks.DueBlock) -> bool:
    """Its turn has come. Nothing is configured to ask the web site with."""
    database = Database(site.engine)
    node = database.run(lambda c: nodes.get_node(c, site.nodes[0]))
    log = structlog.get_logger()
    return blockrequest.process(Settings(), database, node, due, Cancellation(), log)
