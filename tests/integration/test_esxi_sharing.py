"""What workers share: turns at loading and copying, space, masters that nobody uses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from pyVim.connect import Disconnect
from sqlalchemy.engine import Engine

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import FIRST, SECOND, EsxiSite, daemon_keys
from tests.site import OTHER_IMAGE, OTHER_REVISION
from vcld.schema.engine import Database
from vcld.store import leases

GIB = 1 << 30
Run = Callable[..., Any]


mode, hosts = esxi_fixtures.mode, esxi_fixtures.two_hosts
site, daemon = esxi_fixtures.site, esxi_fixtures.daemon
daemons = esxi_fixtures.daemons


@pytest.fixture
def run(database: Engine) -> Run:
    """Runs a function of the store in a transaction of its own."""
    shared = Database(database)
    return lambda work, *args, **facts: shared.run(lambda c: work(c, *args, **facts))


def test_leases_go_to_the_most_urgent_and_then_in_order_of_arrival(run: Run) -> None:
    def place(token: int) -> Any:
        return run(leases.advance, "x", token, limit=1)

    holder = run(leases.join, "x", reservationid=1, urgency=1)
    assert place(holder) == leases.Place(slot=0)
    late = run(leases.join, "x", reservationid=2, urgency=1)
    later = run(leases.join, "x", reservationid=3, urgency=1)
    user = run(leases.join, "x", reservationid=4, urgency=0)

    held = frozenset({holder})
    assert place(late) == leases.Place(slot=None, before=1, holders=held)
    assert place(user) == leases.Place(slot=None, before=0, holders=held)
    run(leases.release, "x", holder)
    assert place(later) == leases.Place(slot=None, before=2)
    assert place(user) == leases.Place(slot=0)
    run(leases.release, "x", user)
    assert place(late) == leases.Place(slot=0)


def test_lease_that_is_not_renewed_is_lost(site: EsxiSite, run: Run) -> None:
    token = run(leases.join, "x", reservationid=1)
    assert run(leases.advance, "x", token, limit=1) == leases.Place(slot=0)
    site.execute("UPDATE vcld_lease SET expires_at = UTC_TIMESTAMP() - INTERVAL 1 SECOND")

    other = run(leases.join, "x", reservationid=2)

    assert run(leases.advance, "x", other, limit=1) == leases.Place(slot=0)
    assert not run(leases.renew, {"x": token})
    assert run(leases.advance, "x", token, limit=1) is None


def test_next_worker_of_a_reservation_takes_over_what_the_dead_one_held(
    site: EsxiSite, run: Run
) -> None:
    run(leases.join, "x", reservationid=7)

    run(leases.forget, 7)

    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


def test_leases_of_workers_that_nobody_succeeded_are_swept_away(site: EsxiSite, run: Run) -> None:
    for reservationid, minutes in ((7, 11), (8, 1)):
        token = run(leases.join, "x", reservationid=reservationid)
        site.execute(
            f"UPDATE vcld_lease SET expires_at = UTC_TIMESTAMP() - INTERVAL {minutes} MINUTE"
            f" WHERE token = {token}"
        )

    run(leases.forget, 9)

    assert site.scalar("SELECT GROUP_CONCAT(reservationid) FROM vcld_lease") == "8"


def test_loads_per_host_are_bounded(site: EsxiSite, daemons: Daemons) -> None:
    site.variable("vmware|loads|esx1.example.org", 1)
    site.variable("vmware|loads", 2)
    for server in site.servers:
        server.rules({"method": "CreateVM_Task", "action": "slow", "seconds": 0.5})
    daemon = daemons.start(**daemon_keys(site))

    requests = [site.ask("reload", number) for number in range(1, 9)]

    eventually(lambda: "waiting for a turn at" in daemon.command("status").stdout, daemon.describe)
    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe, 60)
    most = [server.counted()["most"].get("CreateVM_Task") for server in site.servers]
    assert most[0] == 1
    assert most[1] is not None
    assert most[1] <= 2


def test_limit_that_is_no_number_is_told_of_and_the_next_counts(
    site: EsxiSite, daemons: Daemons
) -> None:
    site.variable("vmware|loads|esx1.example.org", "many")
    daemon = daemons.start(**daemon_keys(site))

    request = site.ask("reload", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    (told,) = daemon.events("a limit is no number, it does not count")
    assert (told["variable"], told["value"]) == ("vmware|loads|esx1.example.org", "many")


def test_user_who_waits_goes_before_loads_in_the_background(
    site: EsxiSite, daemons: Daemons
) -> None:
    site.variable("vmware|loads", 1)
    for server in site.servers:
        server.rules({"method": "CreateVM_Task", "action": "slow", "seconds": 1})
    daemon = daemons.start(**daemon_keys(site))
    for number in (1, 3, 5):
        site.ask("reload", number)
    waiting = "SELECT COUNT(*) FROM vcld_lease WHERE slot IS NULL AND name LIKE 'loads:%%'"
    eventually(lambda: site.scalar(waiting) == 2, daemon.describe)

    user = site.ask("new", 7)

    eventually(lambda: site.computer(7) == "reserved", daemon.describe)
    assert user
    ready = [
        line["computer"] for line in daemon.events("load state", loadstate="loadimagecomplete")
    ]
    assert ready.index("vm7") == 1


def test_copies_per_datastore_are_bounded_over_all_hosts(site: EsxiSite, daemons: Daemons) -> None:
    site.variable("vmware|copies", 1)
    for server in site.servers:
        server.rules({"method": "CopyVirtualDisk_Task", "action": "slow", "seconds": 4})
    daemon = daemons.start(**daemon_keys(site))

    first = site.ask("reload", 1)
    second = site.ask("reload", 2, image=OTHER_IMAGE, revision=OTHER_REVISION)

    eventually(
        lambda: (
            "waiting for a turn at copying to shared" in daemon.command("status", "--json").stdout
        ),
        daemon.describe,
    )
    eventually(lambda: site.pair(first) == site.pair(second) == "gone", daemon.describe)
    assert max(s.counted()["most"].get("CopyVirtualDisk_Task", 0) for s in site.servers) == 1
    assert any(
        "waiting for a turn at copying to shared" in line["text"]
        for line in daemon.events("load state", loadstate="info")
    )


def test_space_that_is_promised_to_one_load_is_not_given_to_another(
    site: EsxiSite, daemon: Daemon
) -> None:
    """Each load needs 1 GiB of swap and a little; there is room for one of two."""
    for folder in (FIRST,):
        shutil.copytree(site.repository / folder, site.masters / folder)
    for server in site.servers:
        server.free_space(shared=int(2.5 * GIB))
        server.rules({"method": "CreateVM_Task", "action": "slow", "seconds": 2})

    requests = [site.ask("reload", 1), site.ask("reload", 2)]

    ended = eventually(
        lambda: len(found := daemon.events("work ended")) == 2 and found, daemon.describe
    )
    assert {line["request_id"] for line in ended} == set(requests)
    outcomes = sorted(line["next_state"] for line in ended)
    assert outcomes == ["complete", "failed"]
    (reason,) = [line["reason"] for line in ended if line["next_state"] == "failed"]
    assert "not promised to other loads" in reason
    assert site.computer(1) == site.computer(2) == "available"


def test_unused_master_makes_room_and_a_used_one_does_not(site: EsxiSite, daemon: Daemon) -> None:
    """vm2 on the other host uses SECOND; FIRST is used by nobody."""
    loaded = site.ask("reload", 2, image=OTHER_IMAGE, revision=OTHER_REVISION)
    eventually(lambda: site.pair(loaded) == "gone", daemon.describe)
    shutil.copytree(site.repository / FIRST, site.masters / FIRST)
    site.store(site.repository, "simulator-third-v1")
    site.execute("UPDATE imagerevision SET imagename = 'simulator-third-v1' WHERE id = 22")
    for server in site.servers:
        server.free_space(shared=1 * GIB)

    request = site.ask("reload", 1, revision=22)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert daemon.events("master removed to make room", image=FIRST)
    assert not daemon.events("master removed to make room", image=SECOND)
    assert not (site.masters / FIRST).exists()
    assert (site.masters / SECOND).exists()
    assert (site.repository / FIRST).exists()


def test_no_master_is_removed_when_another_host_cannot_be_asked(
    site: EsxiSite, daemons: Daemons
) -> None:
    """Nor is it waited for as long as the load's own host is: others stand in line behind it."""
    daemon = daemons.start(**{**daemon_keys(site), "vsphere_patience": 600})
    shutil.copytree(site.repository / SECOND, site.masters / SECOND)
    site.servers[0].free_space(shared=1 * GIB)
    site.servers[1].rules({"method": "*", "action": "503"})
    site.execute("UPDATE computer SET vmhostid = 1 WHERE vmhostid IS NOT NULL AND id < 100")

    request = site.ask("reload", 1)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe, 90)
    assert (site.masters / SECOND).exists()
    assert daemon.events("another host on the datastore cannot be asked what it uses")


def test_space_is_what_is_free_now_and_not_what_the_host_last_saw(
    site: EsxiSite, daemon: Daemon
) -> None:
    for server in site.servers:
        server.free_space(shared=1 * GIB, seen=False)

    request = site.ask("reload", 1)

    ended = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert "too little space" in ended[0]["reason"]


def test_no_master_is_removed_when_a_vm_does_not_say_what_it_uses(
    site: EsxiSite, daemon: Daemon
) -> None:
    """vm2 on the other host cannot be reached now; its disk is linked to SECOND."""
    loaded = site.ask("reload", 2, image=OTHER_IMAGE, revision=OTHER_REVISION)
    eventually(lambda: site.pair(loaded) == "gone", daemon.describe)
    site.servers[1].set_connection("vm2_", "inaccessible")
    shutil.copytree(site.repository / FIRST, site.masters / FIRST)
    site.store(site.repository, "simulator-third-v1")
    site.execute("UPDATE imagerevision SET imagename = 'simulator-third-v1' WHERE id = 22")
    for server in site.servers:
        server.free_space(shared=1 * GIB)

    request = site.ask("reload", 1, revision=22)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert daemon.events("a VM does not say which disks it has")
    assert (site.masters / FIRST).exists()
    assert (site.masters / SECOND).exists()


def test_master_that_another_may_be_removing_is_not_linked_to(
    site: EsxiSite, daemon: Daemon, run: Run
) -> None:
    shutil.copytree(site.repository / FIRST, site.masters / FIRST)
    session = site.vcsim.connect()
    stores = session.RetrieveContent().rootFolder.childEntity[0].datastore
    (url,) = (store.summary.url for store in stores if store.name == "shared")
    Disconnect(session)
    name = f"master:{url}/masters/{FIRST}"
    token = run(leases.join, name, reservationid=4711)
    assert run(leases.advance, name, token, limit=1).slot == 0

    request = site.ask("reload", 1)

    waits = f"waiting for the copy of {FIRST} to datastore shared"
    eventually(lambda: ("info", waits) in site.load_log(request), daemon.describe)
    assert site.machines() == {}
    run(leases.release, name, token)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert list(site.machines()) == [f"vm1_{FIRST}"]


def test_vm_on_the_host_that_a_computer_was_on_before_keeps_its_files(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded = site.ask("reload", 1)
    eventually(lambda: site.pair(loaded) == "gone", daemon.describe)
    files = sorted((site.vms / "vm1_2-v1").iterdir())
    site.execute("UPDATE computer SET vmhostid = 2 WHERE id = 1")
    site.set_computer(1, "reload")

    request = site.ask("reload", 1)

    (ended,) = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert ended["reason"] == (
        "[shared] vms/vm1_2-v1 is in use by a VM on another host that sees the datastore: if vm1"
        " was on that host before, remove its VM there"
    )
    assert sorted((site.vms / "vm1_2-v1").iterdir()) == files
    assert site.servers[0].machines()[f"vm1_{FIRST}"].power == "poweredOn"
    assert site.servers[1].machines() == {}


def test_folder_that_a_dead_worker_left_is_removed_though_another_host_is_away(
    site: EsxiSite, daemons: Daemons
) -> None:
    (site.vms / "vm1_2-v1").mkdir(parents=True)
    (site.vms / "vm1_2-v1" / "vm1_2-v1.vmdk").write_text("half")
    site.servers[1].rules({"method": "*", "action": "503"})
    daemon = daemons.start(**daemon_keys(site))

    request = site.ask("reload", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert site.computer(1) == "available", daemon.describe()
