"""Requests through the real daemon, a real database and VMware's API simulator."""

from __future__ import annotations

import shutil
from typing import Any

from pyVim.connect import Disconnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests import esxi_fixtures
from tests.daemon import Daemon, eventually
from tests.esxi_site import CAPTURED, FIRST, SECOND, EsxiSite
from tests.site import ADDRESS, IMAGE, NEW_REVISION, OTHER_IMAGE, OTHER_REVISION, REVISION

mode, hosts = esxi_fixtures.each_mode, esxi_fixtures.hosts
site, daemon = esxi_fixtures.site, esxi_fixtures.daemon
daemons = esxi_fixtures.daemons


def test_user_gets_a_vm_uses_it_and_it_is_loaded_anew(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)

    machine = site.machines()[f"vm1_{FIRST}"]
    assert machine.power == "poweredOn"
    assert machine.path == "[shared] vms/vm1_2-v1/vm1_2-v1.vmx"
    assert machine.disks == ["[shared] vms/vm1_2-v1/vm1_2-v1.vmdk"]
    assert machine.parents == [f"[shared] masters/{FIRST}/{FIRST}.vmdk"]
    assert (machine.cpus, machine.memory_mib) == (2, 1024)
    assert machine.macs[0] == "00:50:56:00:00:01"
    assert len(machine.macs) == 2
    assert machine.extra["vcl.computer_id"] == "1"
    assert site.world.computer("vm1").imagerevision_id == REVISION
    before = site.content(site.masters, FIRST)

    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert site.world.computer("vm1").open_to == ADDRESS
    site.end(request)

    eventually(lambda: site.computer(1) == "available", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    assert list(site.machines()) == [f"vm1_{FIRST}"]
    assert site.world.computer("vm1").accounts == []
    assert site.content(site.masters, FIRST) == before
    assert site.leftovers() == []
    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


def test_load_log_follows_the_flow_of_virtual_machines(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("new", 1)

    eventually(lambda: "acknowledgetimeout" in site.steps(request), daemon.describe)
    steps = [name for name in site.steps(request) if name not in {"begin", "exited", "info"}]
    assert list(dict.fromkeys(steps)) == [
        "statuscheck",
        "loadimageblade",
        "doesimageexists",
        "startload",
        "transfervm",
        "vmsetupconfig",
        "startvm",
        "machinebooted",
        "loadimagecomplete",
        "addinguser",
        "nodeready",
        "reserved",
        "acknowledgetimeout",
    ]


def test_reload_replaces_the_vm_and_its_folder(site: EsxiSite, daemon: Daemon) -> None:
    first = site.ask("reload", 1)
    eventually(lambda: site.pair(first) == "gone", daemon.describe)

    second = site.ask("reload", 1, image=OTHER_IMAGE, revision=OTHER_REVISION)
    eventually(lambda: site.pair(second) == "gone", daemon.describe)

    assert site.computer(1) == "available"
    assert list(site.machines()) == [f"vm1_{SECOND}"]
    assert [path.name for path in site.vms.iterdir()] == ["vm1_3-v1"]
    assert site.world.computer("vm1").imagerevision_id == OTHER_REVISION
    assert site.scalar("SELECT currentimageid FROM computer WHERE id = 1") == OTHER_IMAGE


def test_server_gets_a_disk_of_its_own(site: EsxiSite, daemon: Daemon) -> None:
    site.make_server(1)

    eventually(lambda: site.computer(1) == "inuse", daemon.describe)

    machine = site.machines()[f"vm1_{FIRST}"]
    assert machine.parents == [None]
    assert machine.power == "poweredOn"
    assert site.world.computer("vm1").imagerevision_id == REVISION


def in_use(site: EsxiSite, daemon: Daemon) -> int:
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    return request


def test_image_is_captured_archived_and_the_computer_loaded_with_it(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = in_use(site, daemon)
    before = site.content(site.masters, FIRST)

    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    for folder in (site.masters, site.repository):
        assert site.content(folder, CAPTURED)["imagerevision_id"] == NEW_REVISION
        assert (folder / CAPTURED / "vcld-image.json").exists()
        # What a Perl daemon on another node reads of the hardware.
        assert (folder / CAPTURED / f"{CAPTURED}.vmx.reference").read_text() != ""
    assert site.content(site.masters, FIRST) == before
    assert list(site.machines()) == [f"vm1_{CAPTURED}"]
    assert site.machines()[f"vm1_{CAPTURED}"].guest_id == "otherLinuxGuest"
    assert site.world.computer("vm1").imagerevision_id == NEW_REVISION
    assert [path.name for path in site.vms.iterdir()] == ["vm1_2-v2"]
    assert site.leftovers() == []
    assert site.scalar(f"SELECT size FROM image WHERE id = {IMAGE}") >= 1


def test_checkpoint_makes_an_image_and_the_user_keeps_the_vm(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = in_use(site, daemon)

    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "checkpoint")

    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert site.content(site.masters, CAPTURED)["imagerevision_id"] == NEW_REVISION
    machine = site.machines()[f"vm1_{FIRST}"]
    assert machine.power == "poweredOn"
    assert site.world.computer("vm1").accounts == ["ada"]


def test_image_that_is_made_the_production_one_is_loaded(site: EsxiSite, daemon: Daemon) -> None:
    request = in_use(site, daemon)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "checkpoint")
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.set_state(request, "makeproduction", "inuse")

    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    assert site.scalar(f"SELECT production FROM imagerevision WHERE id = {NEW_REVISION}") == 1
    assert list(site.machines()) == [f"vm1_{CAPTURED}"]
    assert site.computer(1) == "available"


def test_computer_becomes_a_vm_host(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("tovmhostinuse", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)

    assert site.computer(1) == "vmhostinuse"
    assert list(site.machines()) == [f"vm1_{FIRST}"]


def test_maintenance_removes_the_vm_and_takes_it_off_its_host(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded = site.ask("reload", 1)
    eventually(lambda: site.pair(loaded) == "gone", daemon.describe)

    request = site.ask("tomaintenance", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "maintenance"
    assert site.machines() == {}
    assert list(site.vms.iterdir()) == []
    assert site.scalar("SELECT vmhostid FROM computer WHERE id = 1") is None
    assert site.content(site.masters, FIRST)["imagerevision_id"] == REVISION


def test_vm_is_removed_from_a_host_in_maintenance_mode(site: EsxiSite, daemon: Daemon) -> None:
    loaded = site.ask("reload", 1)
    eventually(lambda: site.pair(loaded) == "gone", daemon.describe)
    session = site.vcsim.connect()
    content = session.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    for host in view.view:
        WaitForTask(host.EnterMaintenanceMode_Task(0))
    Disconnect(session)

    request = site.ask("tomaintenance", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "maintenance"
    assert site.machines() == {}


def test_sessions_are_closed_when_workers_end(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("reload", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)

    assert eventually(lambda: site.vcsim.expire_sessions() == 0)


def test_repository_may_be_a_folder_of_the_management_node(site: EsxiSite, daemon: Daemon) -> None:
    local = site.use_local_repository()
    request = in_use(site, daemon)
    assert site.content(site.masters, FIRST) == site.content(local, FIRST)

    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    assert site.content(local, CAPTURED) == site.content(site.masters, CAPTURED)
    assert site.content(local, CAPTURED)["imagerevision_id"] == NEW_REVISION
    assert sorted(path.name for path in local.iterdir()) == [FIRST, CAPTURED]
    assert site.leftovers() == []
    assert list(site.machines()) == [f"vm1_{CAPTURED}"]


def test_host_that_lists_each_disk_as_one_file_gives_all_of_it(
    site: EsxiSite, daemon: Daemon
) -> None:
    """As real hosts do: what holds the data is fetched by the disk's descriptor."""
    site.vcsim.list_whole_disks()
    local = site.use_local_repository()
    request = in_use(site, daemon)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    assert site.content(local, CAPTURED)["imagerevision_id"] == NEW_REVISION
    # What was fetched is whole by its own marker: another datastore gets it from there.
    shutil.rmtree(site.masters / CAPTURED)
    again = site.ask("reload", 2, revision=NEW_REVISION)
    eventually(lambda: site.pair(again) == "gone", daemon.describe)
    assert site.world.computer("vm2").imagerevision_id == NEW_REVISION


def make_by_hand(site: EsxiSite, name: str) -> None:
    """A VM as an administrator makes it, with the computer's MAC address; it runs."""
    shutil.copytree(site.repository / FIRST, site.vms / "by-hand")
    session = site.vcsim.connect()
    device: Any = vim.vm.device
    center = session.RetrieveContent().rootFolder.childEntity[0]
    compute = center.hostFolder.childEntity[0]
    devices = [
        device.VirtualLsiLogicController(key=1000, busNumber=0, sharedBus="noSharing"),
        device.VirtualDisk(
            key=2000,
            controllerKey=1000,
            unitNumber=0,
            capacityInKB=1024,
            backing=device.VirtualDisk.FlatVer2BackingInfo(
                fileName=f"[shared] vms/by-hand/{FIRST}.vmdk", diskMode="persistent"
            ),
        ),
        device.VirtualVmxnet3(
            key=4000,
            backing=device.VirtualEthernetCard.NetworkBackingInfo(deviceName="Private"),
            addressType="manual",
            macAddress="00:50:56:00:00:01",
        ),
    ]
    config = vim.vm.ConfigSpec(
        name=name,
        guestId="otherLinuxGuest",
        memoryMB=1024,
        numCPUs=1,
        files=vim.vm.FileInfo(vmPathName="[shared] vms/by-hand/by-hand.vmx"),
        deviceChange=[device.VirtualDeviceSpec(operation="add", device=one) for one in devices],
    )
    WaitForTask(center.vmFolder.CreateVM_Task(config, compute.resourcePool, compute.host[0]))
    (made,) = (vm for vm in center.vmFolder.childEntity if vm.name == name)
    WaitForTask(made.PowerOnVM_Task())
    Disconnect(session)


def test_vm_that_was_made_by_hand_is_captured_kept_and_not_in_the_way(
    site: EsxiSite, daemon: Daemon
) -> None:
    """As base images begin: a VM of any name that has the computer's MAC address."""
    site.vms.mkdir(exist_ok=True)
    make_by_hand(site, "vm1_base")
    request = in_use(site, daemon)
    assert list(site.machines()) == ["vm1_base"]
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    assert site.computer(1) == "available", daemon.describe()
    machines = site.machines()
    assert machines[f"vm1_{CAPTURED}"].power == "poweredOn"
    assert machines["vm1_base"].power == "poweredOff"
    assert (site.vms / "by-hand" / f"{FIRST}-flat.vmdk").exists()
