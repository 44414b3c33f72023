"""What administrators do to VMs by hand, beside vcld."""

from __future__ import annotations

import shutil
from typing import Any

from pyVim.task import WaitForTask
from pyVmomi import vim

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import CAPTURED, FIRST, EsxiSite, daemon_keys
from tests.integration.test_esxi_faults import add_foreign_vm, calls, loaded
from tests.integration.test_esxi_kills import in_use
from tests.site import NEW_REVISION

mode, hosts = esxi_fixtures.each_mode, esxi_fixtures.hosts
site = esxi_fixtures.site
daemons, daemon = esxi_fixtures.daemons, esxi_fixtures.daemon
NAME = f"vm1_{FIRST}"


def configure(vm: Any, **facts: Any) -> None:
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(**facts)))


def test_clone_that_somebody_made_of_the_computer_s_vm_is_left_alone(
    site: EsxiSite, daemon: Daemon
) -> None:
    """A clone has all of the other's configuration, and with that its owner."""
    add_foreign_vm(site, "vm1_backup", "00:50:56:00:07:07")
    owner = vim.option.OptionValue(key="vcl.computer_id", value="1")
    site.vcsim.administer("vm1_backup", lambda vm: configure(vm, extraConfig=[owner]))

    loaded(site, daemon)

    assert sorted(site.machines()) == ["vm1_backup", NAME]
    assert site.machines()["vm1_backup"].power == "poweredOn"


def test_vm_that_was_moved_to_another_folder_leaves_nothing_there(
    site: EsxiSite, daemon: Daemon
) -> None:
    """When vSphere moves a VM to another datastore, it names the folder after the VM."""
    loaded(site, daemon)
    folder = site.folder / "local0" / f"{NAME}_1"
    shutil.move(site.vms / "vm1_2-v1", folder)
    files = vim.vm.FileInfo(vmPathName=f"[local] {NAME}_1/vm1_2-v1.vmx")
    site.vcsim.administer(NAME, lambda vm: configure(vm, files=files))
    site.set_computer(1, "reload")

    loaded(site, daemon)

    assert site.machines()[NAME].path == "[shared] vms/vm1_2-v1/vm1_2-v1.vmx"
    assert not folder.exists()


def test_vm_that_somebody_removes_while_it_is_made_is_made_again(
    site: EsxiSite, daemon: Daemon
) -> None:
    rule = {"method": "CreateVM_Task", "action": "slow", "seconds": 2, "times": 1}
    site.vcsim.rules(rule)
    request = site.ask("reload", 1)
    eventually(lambda: calls(site, "CreateVM_Task"), daemon.describe)

    eventually(lambda: NAME in site.machines(), daemon.describe)
    site.vcsim.administer(NAME, lambda vm: vm.UnregisterVM())

    (postponed,) = eventually(lambda: daemon.events("work postponed"), daemon.describe)
    assert "vm1 was removed from its VM host, and not by this load" in postponed["reason"]
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    assert list(site.machines()) == [NAME]


def test_vm_that_was_renamed_is_still_the_computer_s(site: EsxiSite, daemon: Daemon) -> None:
    loaded(site, daemon)
    site.vcsim.administer(NAME, lambda vm: WaitForTask(vm.Rename_Task("Ada's own")))
    site.set_computer(1, "reload")

    loaded(site, daemon)

    assert list(site.machines()) == [NAME]


def test_vm_that_somebody_makes_while_a_load_waits_for_its_turn_is_seen(
    site: EsxiSite, daemons: Daemons
) -> None:
    site.variable("vmware|loads", 1)
    daemon = daemons.start(**daemon_keys(site))
    site.vcsim.rules({"method": "CreateVM_Task", "action": "slow", "seconds": 7, "match": NAME})
    first = site.ask("reload", 1)
    eventually(lambda: calls(site, "CreateVM_Task"), daemon.describe)
    second = site.ask("reload", 2)
    waits = "SELECT COUNT(*) FROM vcld_lease WHERE name LIKE 'loads:%%' AND slot IS NULL"
    eventually(lambda: site.scalar(waits), daemon.describe)

    add_foreign_vm(site, "printserver", "00:50:56:00:00:02")

    (ended,) = eventually(lambda: daemon.events("work ended", request_id=second), daemon.describe)
    assert ended["reason"].startswith("VM 'printserver' has the MAC address of vm2")
    eventually(lambda: site.pair(first) == "gone", daemon.describe)


def take_snapshot(vm: Any) -> None:
    """What a snapshot does to a VM's disk: it gets a child, which is written from now on."""
    device: Any = vim.vm.device
    (old,) = (one for one in vm.config.hardware.device if isinstance(one, device.VirtualDisk))
    path = old.backing.fileName
    backing = device.VirtualDisk.FlatVer2BackingInfo(
        fileName=path.replace(".vmdk", "-000001.vmdk"),
        diskMode="persistent",
        thinProvisioned=True,
        parent=device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode="persistent"),
    )
    new = device.VirtualDisk(
        key=-1,
        controllerKey=old.controllerKey,
        unitNumber=1,
        capacityInKB=old.capacityInKB,
        backing=backing,
    )
    child = device.VirtualDeviceSpec(operation="add", fileOperation="create", device=new)
    configure(vm, deviceChange=[child])
    configure(vm, deviceChange=[device.VirtualDeviceSpec(operation="remove", device=old)])


def test_snapshot_that_a_backup_makes_while_the_guest_shuts_down_is_captured_too(
    site: EsxiSite, daemon: Daemon
) -> None:
    """The simulator makes no files for snapshots: the disk is changed as they would."""
    request = in_use(site, daemon)
    site.write_script(delays={"capture:shut-down": 3})
    site.set_state(request, "image")
    held = "SELECT COUNT(*) FROM vcld_lease WHERE name LIKE 'master:%%' AND slot IS NOT NULL"
    eventually(lambda: site.scalar(held), daemon.describe)

    site.vcsim.administer(NAME, take_snapshot)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION
