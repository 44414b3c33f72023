"""Hosts and VMs as their provisioner measures them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.accounts import Accounts, stay
from tests.daemon import Daemon, Daemons, eventually
from tests.site import Site
from vcld.accounting import probes
from vcld.accounting.codes import HostState
from vcld.accounting.keeping import Kept, keep
from vcld.config import Settings
from vcld.errors import ProvisioningError
from vcld.provisioning import find_probe
from vcld.provisioning.probing import HostProbe, HostUsage, Measurement, VmUsage
from vcld.provisioning.simulated_probe import (
    DISK_MIB,
    IDLE_PERCENT,
    LOAD_KIB,
    OWN_CPU_PERCENT,
    USER_PERCENT,
    VM_DISK_MIB,
)
from vcld.schema import models as m
from vcld.schema.engine import Database

MIB = 1024

BACKENDS = ("mariadb", "sqlite")


@pytest.fixture
def vmhost(site: Site) -> int:
    """Computer 9 is a VM host that nothing provisions; vm1 and vm2 run on it."""
    with site.engine.begin() as c:
        none = c.scalar(sa.select(m.Provisioning.id).where(m.Provisioning.name != "simulator"))
        c.execute(
            sa.insert(m.VMProfile).values(
                id=7, profilename="esx", imageid=2, datastorepath="ds1", username="root",
                password="s3cret-of-the-host",
            )
        )  # fmt: skip
        c.execute(sa.insert(m.VMHost).values(id=70, computerid=9, vmprofileid=7))
        c.execute(sa.update(m.Computer).where(m.Computer.id == 9).values(
            type="blade", RAM=65536, procnumber=16, hostname="esx1.example.org",
            provisioningid=none))  # fmt: skip
        c.execute(sa.update(m.Computer).where(m.Computer.id.in_([1, 2])).values(vmhostid=70))
    site.let_every_node_manage_all()
    return 9


class Log:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.told.append({"event": event, **facts})

    exception = warning


class Probe(HostProbe):
    """Says what the test wants."""

    says: Mapping[str, Any] = {}

    def measure(self) -> Measurement:
        said = type(self).says
        if "error" in said:
            raise said["error"]
        vms = {vm.reservationid: said["vm"] for vm in self.host.vms if "vm" in said}
        return Measurement(host=said.get("host", HostUsage()), vms=vms)


def probed(accounts: Accounts, last: Kept | None = None, *, kind: type[HostProbe] | None = Probe,
           **settings: Any) -> list[dict[str, Any]]:  # fmt: skip
    """One look of the daemon; what it tells."""
    log = Log()

    def finder(module: str) -> type[HostProbe] | None:
        return kind if module == "provisioning_simulator" else None

    with accounts.engine.begin() as c:
        kept = keep(c, accounts.tables, 1, silent_after_seconds=300, last=last, find_probe=finder)
    chosen = replace(Settings(), **settings)
    probes.probe_hosts(Database(accounts.engine), accounts.tables, chosen, kept.probed, finder, log)
    return log.told


def running(site: Site, accounts: Accounts, computer: int, hid: int) -> int:
    (oid,) = site.reservations(site.ask("inuse", computer))
    accounts.put(oid, stay(1000, 1001, 1002, 1002, hid=hid), state=3, memory=4096 * MIB, cpu=200)
    return oid


@pytest.fixture
def owner(accounts: Accounts) -> None:
    with accounts.engine.begin() as c:
        c.execute(accounts.tables.user_pool.insert().values(oid=101, user_name="a", password=""))


def share(accounts: Accounts, hid: int) -> Any:
    (row,) = (row for row in accounts.rows("host_shares") if row.hid == hid)
    return row


def host(accounts: Accounts, hid: int) -> Any:
    (row,) = (row for row in accounts.rows("host_pool") if row.oid == hid)
    return row


def test_what_the_host_says_is_kept_beside_what_was_handed_out(
    site: Site, accounts: Accounts, owner: None, vmhost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    oid = running(site, accounts, 1, vmhost)
    usage = HostUsage(max_cpu_percent=3200, used_cpu_percent=700, max_memory_kib=128 * MIB,
                      used_memory_kib=28 * MIB, max_disk_mib=9000, used_disk_mib=4000)  # fmt: skip
    vm = VmUsage(cpu_percent=37, memory_kib=555, sent_kib=11, received_kib=22)
    monkeypatch.setattr(Probe, "says", {"host": usage, "vm": vm})

    assert probed(accounts) == []

    found = share(accounts, vmhost)
    assert (found.max_cpu, found.used_cpu, found.free_cpu) == (3200, 700, 2500)
    assert (found.max_mem, found.used_mem, found.free_mem) == (128 * MIB, 28 * MIB, 100 * MIB)
    assert (found.max_disk, found.used_disk, found.free_disk) == (9000, 4000, 5000)
    assert (found.running_vms, found.mem_usage, found.cpu_usage) == (1, 4096 * MIB, 200)
    assert host(accounts, vmhost).state == HostState.MONITORED
    assert "<USEDCPU>700</USEDCPU>" in host(accounts, vmhost).template
    measured = accounts.vm(oid)
    assert (measured.cpu, measured.memory, measured.net_tx, measured.net_rx) == (37, 555, 11, 22)
    assert abs(measured.last_poll - accounts.now()) < 5

    # Measured figures of the VM do not count as what it was given.
    probed(accounts)
    assert share(accounts, vmhost).mem_usage == 4096 * MIB


def test_what_the_host_does_not_say_stays(
    site: Site, accounts: Accounts, owner: None, vmhost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    oid = running(site, accounts, 1, vmhost)
    monkeypatch.setattr(Probe, "says", {"vm": VmUsage(cpu_percent=0, memory_kib=2**40)})

    probed(accounts)

    vm = accounts.vm(oid)
    assert (vm.cpu, vm.memory, vm.net_tx) == (0, 2**31 - 1, 0)
    assert share(accounts, vmhost).max_cpu == 0


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (ProvisioningError("esx1 refuses the login"), "esx1 refuses the login", 0),
        (ZeroDivisionError("password s3cret"), "ZeroDivisionError", 1),  # a bug: each time
    ],
)
def test_host_that_cannot_be_asked_is_in_error_and_keeps_its_figures(
    accounts: Accounts,
    vmhost: int,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
    again: int,
) -> None:
    monkeypatch.setattr(Probe, "says", {"host": HostUsage(max_cpu_percent=3200)})
    probed(accounts)
    monkeypatch.setattr(Probe, "says", {"error": error})

    told = probed(accounts)

    assert host(accounts, vmhost).state == HostState.ERROR
    assert share(accounts, vmhost).max_cpu == 3200
    assert reason in {line.get("reason") for line in told}
    assert len(probed(accounts)) == again
    assert "s3cret" not in str(told)
    monkeypatch.setattr(Probe, "says", {"host": HostUsage()})
    probed(accounts)
    assert host(accounts, vmhost).state == HostState.MONITORED


def test_host_in_maintenance_is_not_asked(
    site: Site, accounts: Accounts, vmhost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.set_computer(vmhost, "maintenance")
    monkeypatch.setattr(Probe, "says", {"error": ProvisioningError("asked")})

    assert probed(accounts) == []

    assert host(accounts, vmhost).state == HostState.DISABLED


def test_probe_is_given_the_host_with_its_profile_and_its_vms(
    site: Site, accounts: Accounts, owner: None, vmhost: int
) -> None:
    oid = running(site, accounts, 2, vmhost)
    seen = []

    class Looking(Probe):
        def measure(self) -> Measurement:
            seen.append(self.host)
            return super().measure()

    probed(accounts, kind=Looking)

    (given,) = seen
    assert (given.computerid, given.hostname, given.procnumber) == (9, "esx1.example.org", 16)
    assert given.vmhost is not None
    assert given.vmhost.profile.password == "s3cret-of-the-host"
    assert "s3cret-of-the-host" not in repr(given)
    assert [(vm.reservationid, vm.node_name, vm.ram_mib) for vm in given.vms] == [
        (oid, "vm2", 4096)
    ]


def test_host_that_hangs_costs_its_own_time_only(
    site: Site, accounts: Accounts, vmhost: int
) -> None:
    """A simulated host hangs; a blade beside it is measured in the same look."""
    with site.engine.begin() as c:
        c.execute(sa.update(m.Computer).where(m.Computer.id == 8).values(type="blade"))
    site.write_script(rules=[{"step": "host:probe", "computer": "esx1", "hang": True}])

    told = probed(
        accounts, kind=find_probe("provisioning_simulator"),
        simulator_config=str(site.script_path), accounting_probe_timeout_seconds=0.3,
    )  # fmt: skip

    assert host(accounts, vmhost).state == HostState.ERROR
    assert host(accounts, 8).state == HostState.MONITORED
    assert [line["computer"] for line in told] == ["esx1.example.org"]


def test_host_that_the_node_no_longer_manages_is_left_alone(
    site: Site, accounts: Accounts, vmhost: int
) -> None:
    first = kept_once(accounts)
    assert vmhost in first.hosts
    site.execute("DELETE FROM resourcemap")

    second = kept_once(accounts, first)  # its last reservation may just have ended
    site.execute("UPDATE host_pool SET last_mon_time = last_mon_time - 1000")
    kept_once(accounts, second)

    assert host(accounts, vmhost).state == HostState.ERROR


def kept_once(accounts: Accounts, last: Kept | None = None) -> Kept:
    """A look of a daemon without probes; every host has its rows afterwards."""
    with accounts.engine.begin() as c:
        return keep(c, accounts.tables, 1, silent_after_seconds=300, last=last)


def test_module_without_a_plugin_has_no_probe() -> None:
    assert find_probe("provisioning_unheard_of") is None


def test_daemon_measures_hosts_and_vms(
    site: Site, daemons: Daemons, accounts: Accounts, vmhost: int
) -> None:
    kept_once(accounts)
    daemon = daemons.start()
    request = site.ask("new", 1)
    (vm,) = site.reservations(request)
    eventually(lambda: site.pair(request) == "pending/reserved")

    busy = OWN_CPU_PERCENT + IDLE_PERCENT
    eventually(lambda: share(accounts, vmhost).used_cpu == busy)
    assert share(accounts, vmhost).max_disk == DISK_MIB
    assert share(accounts, vmhost).used_disk == VM_DISK_MIB
    assert (accounts.vm(vm).cpu, accounts.vm(vm).net_rx) == (IDLE_PERCENT, LOAD_KIB)

    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved")
    eventually(lambda: accounts.vm(vm).cpu == IDLE_PERCENT + USER_PERCENT)
    assert accounts.breaches() == []
    record = {item["MachineName"]: item for item in records(daemon)}["The first on vm1"]
    assert (record["CpuCount"], record["Memory"]) == (2, 4096)


def records(daemon: Daemon) -> list[dict[str, Any]]:
    return list(json.loads(daemon.command("accounting", "records", "--site", "S", "--json").stdout))


def test_hung_host_delays_neither_requests_nor_the_end_of_the_daemon(
    site: Site, daemons: Daemons, accounts: Accounts, vmhost: int
) -> None:
    site.write_script(rules=[{"step": "host:probe", "computer": "esx1", "hang": True}])
    kept_once(accounts)
    daemon = daemons.start(accounting_probe_timeout=3600, max_workers=1)
    eventually(lambda: host(accounts, vmhost).state == HostState.MONITORING)

    request = site.ask("new", 1)
    eventually(lambda: site.pair(request) == "pending/reserved")
    site.end(request)
    eventually(lambda: site.pair(request) == "gone" or site.pair(request).startswith("complete"))

    assert daemon.stop() == 0
    assert not daemon.events("heartbeat was late")
    assert daemon.workers() == []


def test_tables_that_vanish_are_told_and_stop_neither_daemon_nor_work(
    site: Site, daemons: Daemons, accounts: Accounts, vmhost: int
) -> None:
    kept_once(accounts)
    site.write_script(delays={"host:probe": 0.5})
    daemon = daemons.start()
    eventually(lambda: host(accounts, vmhost).state == HostState.MONITORING)
    site.execute("ALTER TABLE host_shares RENAME TO hidden")

    eventually(lambda: daemon.events("work beside the loop failed"))
    request = site.ask("new", 1)
    eventually(lambda: site.pair(request) == "pending/reserved")
    site.execute("ALTER TABLE hidden RENAME TO host_shares")

    told = len(daemon.events("work beside the loop failed"))
    eventually(lambda: host(accounts, vmhost).state == HostState.MONITORED)
    assert told >= 1


def test_probe_whose_process_dies_is_tried_again(
    site: Site, daemons: Daemons, accounts: Accounts, vmhost: int
) -> None:
    site.write_script(
        rules=[{"step": "host:probe", "computer": "esx1", "signal": "KILL", "times": 1}]
    )
    kept_once(accounts)
    daemon = daemons.start()

    eventually(lambda: daemon.events("measuring hosts failed"))
    eventually(lambda: host(accounts, vmhost).state == HostState.MONITORED)
