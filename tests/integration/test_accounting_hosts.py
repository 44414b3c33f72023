"""Hosts and their shares, as the heartbeat keeps them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.accounts import Accounts, stay
from tests.daemon import Daemons, eventually
from tests.site import Site
from vcld.accounting.codes import HostState, LcmState, Reason, VmState
from vcld.accounting.keeping import Kept, keep
from vcld.schema import models as m
from vcld.schema.sqltime import after_site_now

BACKENDS = ("mariadb", "sqlite")


def kept(accounts: Accounts, last: Kept | None = None, node: int = 1) -> Kept:
    with accounts.engine.begin() as c:
        return keep(c, accounts.tables, node, silent_after_seconds=300, last=last)


@pytest.fixture
def vmhost(site: Site) -> int:
    """Computer 9 is a VM host with 64 GiB and 16 cores; vm1 and vm2 run on it."""
    with site.engine.begin() as c:
        profile = sa.insert(m.VMProfile).values(
            id=7, profilename="esx", imageid=2, datastorepath="datastore1"
        )
        c.execute(profile)
        c.execute(sa.insert(m.VMHost).values(id=70, computerid=9, vmprofileid=7))
        c.execute(sa.update(m.Computer).where(m.Computer.id == 9).values(
            type="blade", RAM=65536, procnumber=16, hostname="esx1.example.org"))  # fmt: skip
        c.execute(sa.update(m.Computer).where(m.Computer.id.in_([1, 2])).values(vmhostid=70))
    return 9


def running(site: Site, accounts: Accounts, computer: int, hid: int) -> int:
    """A session whose VM runs on the host; its reservation."""
    (oid,) = site.reservations(site.ask("inuse", computer))
    accounts.put(oid, stay(1000, 1001, 1002, 1002, hid=hid), state=3, memory=4096 * 1024, cpu=200)
    return oid


def test_share_of_a_vm_host_is_what_its_open_stays_take(
    site: Site, accounts: Accounts, vmhost: int
) -> None:
    site.let_every_node_manage_all()
    for computer in (1, 2):
        running(site, accounts, computer, vmhost)
    accounts.put(900_000, stay(10, 11, 12, 12, 20, etime=20, hid=vmhost))

    kept(accounts)

    with accounts.engine.begin() as c:
        c.execute(accounts.tables.user_pool.insert().values(oid=101, user_name="a", password=""))
    (share,) = (row for row in accounts.rows("host_shares") if row.hid == vmhost)
    assert (share.running_vms, share.max_mem, share.max_cpu) == (2, 65536 * 1024, 1600)
    assert (share.mem_usage, share.cpu_usage) == (8192 * 1024, 400)
    assert (share.free_mem, share.free_cpu) == (57344 * 1024, 1200)
    hosts = {row.oid: row for row in accounts.rows("host_pool")}
    assert hosts[vmhost].host_name == "esx1.example.org"
    assert hosts[vmhost].state == HostState.MONITORED
    assert abs(hosts[vmhost].last_mon_time - accounts.now()) < 5
    assert 1 not in hosts  # a VM on a VM host is none


@pytest.mark.parametrize(
    ("state", "expected"),
    [("maintenance", HostState.DISABLED), ("failed", HostState.ERROR),
     ("vmhostinuse", HostState.MONITORED)],
)  # fmt: skip
def test_state_of_the_computer_is_that_of_the_host(
    site: Site, accounts: Accounts, vmhost: int, state: str, expected: HostState
) -> None:
    site.let_every_node_manage_all()
    site.set_computer(vmhost, state)

    kept(accounts)

    assert {row.oid: row.state for row in accounts.rows("host_pool")}[vmhost] == expected


def test_host_that_nobody_looks_at_any_more_is_marked(
    site: Site, accounts: Accounts, vmhost: int
) -> None:
    site.let_every_node_manage_all()
    kept(accounts)
    site.execute("UPDATE host_pool SET last_mon_time = last_mon_time - 1000")
    site.execute("DELETE FROM resourcemap")

    kept(accounts)

    assert [row.state for row in accounts.rows("host_pool")] == [HostState.ERROR]


def beat(site: Site, seconds: int) -> None:
    """The heartbeat of every node was so long from now."""
    with site.engine.begin() as c:
        c.execute(sa.update(m.ManagementNode).values(lastcheckin=after_site_now(seconds)))


def test_vms_of_a_dead_node_are_unknown_until_it_is_back(site: Site, accounts: Accounts) -> None:
    accounts.put_base()
    oid = running(site, accounts, 1, 1)
    unknown, runs = (VmState.ACTIVE, LcmState.UNKNOWN), (VmState.ACTIVE, LcmState.RUNNING)
    beat(site, -1000)

    kept(accounts, node=2)
    assert accounts.state(oid) == unknown

    beat(site, 0)
    kept(accounts, node=2)
    assert accounts.state(oid) == runs
    kept(accounts, node=1)


def test_node_that_never_checked_in_is_not_taken_for_dead(site: Site, accounts: Accounts) -> None:
    accounts.put_base()
    oid = running(site, accounts, 1, 1)
    site.execute(f"UPDATE vm_pool SET lcm_state = {int(LcmState.UNKNOWN)} WHERE oid = {oid}")
    site.execute("UPDATE managementnode SET lastcheckin = NULL")

    kept(accounts, node=2)

    assert accounts.state(oid) == (VmState.ACTIVE, LcmState.RUNNING)
    kept(accounts, node=1)


@pytest.mark.parametrize("before", [True, False])
def test_vm_that_comes_and_vanishes_between_two_looks_ends(
    site: Site, accounts: Accounts, before: bool
) -> None:
    """No look ever saw it live."""
    accounts.put_base()
    if before:
        running(site, accounts, 1, 1)
    first = kept(accounts)
    oid = running(site, accounts, 2, 1)
    site.execute(
        f"DELETE FROM request WHERE id = (SELECT requestid FROM reservation WHERE id = {oid})"
    )

    kept(accounts, first)

    assert accounts.state(oid) == (VmState.DONE, LcmState.LCM_INIT)
    assert accounts.stays(oid)[0].reason == Reason.CANCEL


def test_vm_whose_reservation_vanishes_between_two_looks_ends(
    site: Site, accounts: Accounts
) -> None:
    accounts.put_base()
    oid = running(site, accounts, 1, 1)
    last = kept(accounts)
    assert last.vms == {oid}
    site.execute("DELETE FROM request")

    assert not kept(accounts, last).vms

    assert accounts.state(oid) == (VmState.DONE, LcmState.LCM_INIT)
    (ended,) = accounts.stays(oid)
    assert ended.reason == Reason.CANCEL
    assert ended.etime > 0


def test_daemon_keeps_hosts_beside_its_work(
    site: Site, daemons: Daemons, accounts: Accounts, vmhost: int
) -> None:
    daemons.start()
    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "pending/reserved")
    eventually(lambda: [row.running_vms for row in accounts.rows("host_shares")] == [1])
    (vm,) = site.reservations(request)
    assert [(stay.hid, stay.host_name) for stay in accounts.stays(vm)] == [
        (vmhost, "esx1.example.org")
    ]
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved")
    site.delete(request)
    eventually(lambda: accounts.state(vm) == (VmState.DONE, LcmState.LCM_INIT))
    eventually(lambda: [row.running_vms for row in accounts.rows("host_shares")] == [0])
