"""Faults 31 to 41, 50 to 52 and 54 of ESXi hosts and vCenters, through the real daemon.

The transport's faults and the failing tasks are made by the front of tests/vcsim.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from pyVim.connect import Disconnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import FIRST, EsxiSite, daemon_keys
from tests.site import REVISION

mode, hosts, site = esxi_fixtures.mode, esxi_fixtures.hosts, esxi_fixtures.site
daemons = esxi_fixtures.daemons
both_modes = esxi_fixtures.both_modes


def start(site: EsxiSite, daemons: Daemons, **keys: Any) -> Daemon:
    return daemons.start(**{**daemon_keys(site), **keys})


def loaded(site: EsxiSite, daemon: Daemon, computer: int = 1) -> None:
    request = site.ask("reload", computer)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(computer) == "available", daemon.describe()


def failed(site: EsxiSite, daemon: Daemon, request: int) -> str:
    """Wait until a request has failed; why, as the log tells."""
    ended = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe, 60)
    assert ended[0]["next_state"] == "failed", daemon.describe()
    eventually(lambda: site.pair(request) == "gone" or site.pair(request).startswith("failed"))
    return str(ended[0]["reason"])


def calls(site: EsxiSite, method: str) -> int:
    return sum(server.counted()["calls"].get(method, 0) for server in site.servers)


@both_modes
def test_fault_31_session_that_expires_in_mid_task_is_renewed(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    site.vcsim.rules({"method": "PowerOnVM_Task", "action": "slow", "seconds": 3})
    request = site.ask("reload", 1)
    eventually(lambda: calls(site, "PowerOnVM_Task"), daemon.describe)

    assert site.vcsim.expire_sessions() == 1

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available", daemon.describe()
    assert daemon.events("the session has ended, logging in again")
    assert calls(site, "PowerOnVM_Task") == 1
    assert site.world.computer("vm1").is_answering


@pytest.mark.parametrize("method", ["CreateVM_Task", "PowerOnVM_Task", "CopyVirtualDisk_Task"])
def test_fault_32_task_in_progress_is_tried_again(
    site: EsxiSite, daemons: Daemons, method: str
) -> None:
    daemon = start(site, daemons)
    rule = {"method": method, "action": "error", "fault": "TaskInProgress", "times": 2}
    site.vcsim.rules(rule)

    loaded(site, daemon)

    assert calls(site, method) == 3
    assert not daemon.events("work postponed")


def test_fault_32_vm_that_cannot_start_fails_the_computer(site: EsxiSite, daemons: Daemons) -> None:
    daemon = start(site, daemons)
    rule = {"method": "PowerOnVM_Task", "action": "error", "fault": "GenericVmConfigFault"}
    site.vcsim.rules(rule)

    text = failed(site, daemon, site.ask("reload", 1))

    assert text.startswith("vm1 cannot be started: ")
    assert "GenericVmConfigFault" in text
    assert site.computer(1) == "failed"


def test_fault_32_task_that_never_ends_is_cancelled_and_blames_the_host(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons, vsphere_task_timeout=2)
    site.vcsim.rules({"method": "CreateVM_Task", "action": "hang"})

    text = failed(site, daemon, site.ask("reload", 1))

    assert "the task did not end within 2 s" in text
    assert site.computer(1) == "available"
    assert calls(site, "CancelTask") == 1


@both_modes
def test_fault_33_vm_that_runs_although_its_start_failed_is_taken(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    rule = {"method": "PowerOnVM_Task", "action": "late", "fault": "GenericVmConfigFault"}
    site.vcsim.rules(rule)

    loaded(site, daemon)

    assert site.machines()[f"vm1_{FIRST}"].power == "poweredOn"


@both_modes
def test_fault_34_invalid_vm_under_our_name_is_replaced(site: EsxiSite, daemons: Daemons) -> None:
    daemon = start(site, daemons)
    loaded(site, daemon)
    site.vcsim.set_connection("vm1_", "invalid")
    old = site.machines()[f"vm1_{FIRST}"].power
    assert old == "poweredOn"

    site.world.set_reachable("vm1", reachable=False)
    loaded(site, daemon)

    assert list(site.machines()) == [f"vm1_{FIRST}"]
    assert site.world.computer("vm1").is_answering


def test_faults_35_and_52_vm_that_cannot_be_removed_is_told_of_and_not_forgotten(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    loaded(site, daemon)
    site.set_computer(1, "reload")
    site.vcsim.rules({"method": "UnregisterVM", "action": "fault", "fault": "SystemError"})

    text = failed(site, daemon, site.ask("reload", 1))

    assert f"VM 'vm1_{FIRST}' cannot be removed" in text
    assert "it is still registered" in text
    assert site.computer(1) == "failed"
    assert list(site.machines()) == [f"vm1_{FIRST}"]

    site.vcsim.rules()
    site.set_computer(1, "reload")
    loaded(site, daemon)
    assert list(site.machines()) == [f"vm1_{FIRST}"]


@both_modes
def test_fault_36_host_that_is_away_after_the_copy_is_waited_for(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons, vsphere_patience=1, max_attempts=20)
    site.vcsim.rules(
        {"method": "CopyVirtualDisk_Task", "action": "slow", "seconds": 0.5},
        {"method": "CreateVM_Task", "action": "cut"},
        {"method": "RetrieveServiceContent", "action": "cut", "skip": 1},
    )
    request = site.ask("reload", 1)
    eventually(lambda: daemon.events("work postponed"), daemon.describe)
    assert site.computer(1) == "available"

    site.vcsim.rules()

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    assert calls(site, "CopyVirtualDisk_Task") == 1


def test_fault_37_full_datastore_is_noticed_before_anything_is_written(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    site.vcsim.free_space(shared=1 << 30)

    text = failed(site, daemon, site.ask("reload", 1))

    assert "datastore shared has too little space" in text
    assert site.computer(1) == "available"
    assert calls(site, "CopyVirtualDisk_Task") == 0
    assert calls(site, "CreateVM_Task") == 0
    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


@both_modes
def test_faults_37_and_54_datastore_that_fills_up_during_the_copy_keeps_no_part_of_it(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    site.vcsim.rules(
        {
            "method": "CopyVirtualDisk_Task",
            "action": "slow",
            "seconds": 0.5,
            "fault": "NoDiskSpace",
        }
    )

    text = failed(site, daemon, site.ask("reload", 1))

    assert text.endswith("the datastore is full")
    assert site.computer(1) == "available"
    assert list(site.masters.iterdir()) == []


@pytest.mark.parametrize("hosts", [2], indirect=True)
def test_fault_38_two_hosts_that_want_one_image_at_once_copy_it_once(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    for server in site.servers:
        server.rules({"method": "CopyVirtualDisk_Task", "action": "slow", "seconds": 1})

    requests = [site.ask("reload", number) for number in range(1, 7)]

    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe, 60)
    assert calls(site, "CopyVirtualDisk_Task") == 1
    assert len(site.machines()) == 6
    assert all(site.computer(number) == "available" for number in range(1, 7))


def add_foreign_vm(site: EsxiSite, name: str, mac: str, *, running: bool = True) -> None:
    """What another administrator of the same host makes."""
    session = site.vcsim.connect()
    center = session.RetrieveContent().rootFolder.childEntity[0]
    compute: Any = center.hostFolder.childEntity[0]
    card = vim.vm.device.VirtualVmxnet3(
        key=4000,
        backing=vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="Private"),
        addressType="manual",
        macAddress=mac,
    )
    change = vim.vm.device.VirtualDeviceSpec(operation="add", device=card)
    config = vim.vm.ConfigSpec(
        name=name,
        guestId="otherGuest",
        memoryMB=4,
        numCPUs=1,
        files=vim.vm.FileInfo(vmPathName=f"[local] {name}/{name}.vmx"),
        deviceChange=[change],
    )
    WaitForTask(center.vmFolder.CreateVM_Task(config, compute.resourcePool, compute.host[0]))
    if running:
        (made,) = (vm for vm in center.vmFolder.childEntity if vm.name == name)
        WaitForTask(made.PowerOnVM_Task())
    Disconnect(session)


@both_modes
def test_fault_39_other_vm_with_the_same_mac_is_named_and_left_alone(
    site: EsxiSite, daemons: Daemons
) -> None:
    add_foreign_vm(site, "printserver", "00:50:56:00:00:01")
    daemon = start(site, daemons)

    text = failed(site, daemon, site.ask("reload", 1))

    assert text.startswith("VM 'printserver' has the MAC address of vm1")
    assert site.computer(1) == "failed"
    assert list(site.machines()) == ["printserver"]


def test_fault_39_vm_that_is_off_may_have_the_same_mac(site: EsxiSite, daemons: Daemons) -> None:
    add_foreign_vm(site, "base", "00:50:56:00:00:01", running=False)
    daemon = start(site, daemons)

    loaded(site, daemon)

    assert daemon.events("another VM has the computer's MAC address: it must not be started")
    assert sorted(site.machines()) == ["base", f"vm1_{FIRST}"]


@both_modes
def test_vm_that_only_its_name_makes_ours_is_left_alone(site: EsxiSite, daemons: Daemons) -> None:
    add_foreign_vm(site, "vm1_backup", "00:50:56:00:07:07")
    daemon = start(site, daemons)

    loaded(site, daemon)

    assert site.machines()["vm1_backup"].power == "poweredOn"


def test_vm_of_another_site_with_a_computer_of_the_same_name_is_left_alone(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    loaded(site, daemon)
    session = site.vcsim.connect()
    center = session.RetrieveContent().rootFolder.childEntity[0]
    owner = vim.option.OptionValue(key="vcl.computer_id", value="4711")
    config = vim.vm.ConfigSpec(extraConfig=[owner], name="vm1_elsewhere")
    center.vmFolder.childEntity[0].ReconfigVM_Task(config)
    Disconnect(session)
    shutil.move(site.vms / "vm1_2-v1", site.vms / "kept")

    site.set_computer(1, "reload")
    request = site.ask("reload", 1)

    failed(site, daemon, request)
    assert "vm1_elsewhere" in site.machines()


def out_of_service(site: EsxiSite, daemon: Daemon) -> int:
    """A load that has logged in when the API begins to answer 503."""
    site.vcsim.rules({"method": "CreateVM_Task", "action": "slow", "seconds": 1})
    request = site.ask("reload", 1)
    eventually(lambda: calls(site, "CreateVM_Task"), daemon.describe)
    site.vcsim.rules({"method": "*", "action": "503"})
    return request


@both_modes
def test_fault_40_api_that_answers_503_is_asked_less_and_less_often(
    site: EsxiSite, daemons: Daemons
) -> None:
    """Six tries in vain: pauses of 0.2 to 5 s, eleven in all. A minute would be fifteen tries."""
    daemon = start(site, daemons, vsphere_patience=60)
    request = out_of_service(site, daemon)

    tries = eventually(
        lambda: len(found := daemon.events("the API does not answer, trying again")) >= 6 and found,
        daemon.describe,
    )
    site.vcsim.rules()

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    assert not daemon.events("work postponed")
    at = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in tries]
    pauses = [after - before for before, after in pairwise(at)]
    for pause, least in zip(pauses, (0.2, 0.4, 0.8, 1.6, 3.2), strict=False):
        assert pause >= least
    assert calls(site, "CreateVM_Task") == 1  # what had begun was not begun again


@both_modes
def test_fault_40_api_that_answers_503_beyond_the_patience_postpones_the_work(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons, vsphere_patience=1, max_attempts=20)
    request = out_of_service(site, daemon)

    (postponed, *_) = eventually(lambda: daemon.events("work postponed"), daemon.describe)
    assert "does not answer" in postponed["reason"]
    eventually(lambda: len(daemon.events("work postponed")) >= 3, daemon.describe, 60)
    assert site.computer(1) == "available"  # as it was before
    site.vcsim.rules()

    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert site.computer(1) == "available"
    assert list(site.machines()) == [f"vm1_{FIRST}"]


@both_modes
def test_fault_41_wrong_certificate_gets_no_password(site: EsxiSite, daemons: Daemons) -> None:
    site.write_vsphere(thumbprint="ab" * 32)
    daemon = start(site, daemons)

    text = failed(site, daemon, site.ask("reload", 1))

    assert text.startswith("the certificate of esx1.example.org has the thumbprint 44:8F:62")
    assert site.computer(1) == "available"
    assert calls(site, "Login") == 0
    assert site.vcsim.counted()["calls"] == {}


def test_fault_41_certificate_of_an_unknown_authority_is_refused_with_advice(
    site: EsxiSite, daemons: Daemons
) -> None:
    site.write_vsphere(thumbprint="")
    daemon = start(site, daemons)

    text = failed(site, daemon, site.ask("reload", 1))

    assert "is not trusted" in text
    assert "The server shows 44:8F:62" in text
    assert calls(site, "Login") == 0


def test_certificate_of_a_named_authority_is_accepted(site: EsxiSite, daemons: Daemons) -> None:
    authority = site.folder / "ca.pem"
    authority.write_text(site.vcsim.facts["ca"])
    site.write_vsphere(thumbprint="", ca_file=str(authority), certificate_name="example.com")
    daemon = start(site, daemons)

    loaded(site, daemon)


def test_certificate_that_bears_another_name_is_refused(site: EsxiSite, daemons: Daemons) -> None:
    authority = site.folder / "ca.pem"
    authority.write_text(site.vcsim.facts["ca"])
    site.write_vsphere(thumbprint="", ca_file=str(authority))
    daemon = start(site, daemons)

    assert "is not trusted" in failed(site, daemon, site.ask("reload", 1))
    assert calls(site, "Login") == 0


@both_modes
def test_fault_50_removing_what_is_gone_already_is_success(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    loaded(site, daemon)
    shutil.rmtree(site.vms / "vm1_2-v1")

    request = site.ask("tomaintenance", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.machines() == {}
    assert site.computer(1) == "maintenance"
    again = site.ask("tomaintenance", 1)
    eventually(lambda: site.pair(again) == "gone", daemon.describe)


def test_fault_51_wrong_password_is_tried_once_and_an_absent_host_as_often_as_allowed(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons, vsphere_patience=0)
    site.execute("UPDATE vmprofile SET password = 'wrong' WHERE profilename = 'vcsim'")
    text = failed(site, daemon, site.ask("reload", 1))
    assert "refuses the user root" in text
    assert "wrong" not in text
    assert calls(site, "Login") == 1
    assert not daemon.events("work postponed")

    site.vcsim.rules({"method": "*", "action": "503"})
    text = failed(site, daemon, site.ask("reload", 2))

    assert "does not answer" in text
    assert len(daemon.events("work postponed")) == 2
    assert site.computer(1) == site.computer(2) == "available"


def test_fault_54_left_parts_are_removed_and_damaged_masters_refused(
    site: EsxiSite, daemons: Daemons
) -> None:
    part = site.masters / f"{FIRST}.vcld-deadbeef"
    part.mkdir()
    (part / f"{FIRST}.vmdk").write_text("half")
    daemon = start(site, daemons)
    loaded(site, daemon)
    assert [path.name for path in site.masters.iterdir()] == [FIRST]
    marker = json.loads((site.masters / FIRST / "vcld-image.json").read_text())
    assert marker["image"] == FIRST

    flat = site.masters / FIRST / f"{FIRST}-flat.vmdk"
    flat.write_text(flat.read_text()[:10])
    site.set_computer(1, "reload")

    text = failed(site, daemon, site.ask("reload", 1))

    assert f"image {FIRST} in [shared] masters/{FIRST} is damaged" in text
    assert site.computer(1) == "available"
    assert site.machines()[f"vm1_{FIRST}"].power == "poweredOn"  # it was not touched


def test_deleted_request_ends_a_copy_within_seconds(site: EsxiSite, daemons: Daemons) -> None:
    daemon = start(site, daemons)
    site.vcsim.rules({"method": "CopyVirtualDisk_Task", "action": "hang"})
    request = site.ask("new", 1)
    eventually(lambda: calls(site, "CopyVirtualDisk_Task"), daemon.describe)

    began = time.monotonic()
    site.end(request)

    eventually(lambda: site.computer(1) == "available", daemon.describe, 10)
    assert time.monotonic() - began < 10
    assert calls(site, "CancelTask") == 1


def test_copy_is_verified_and_a_short_one_thrown_away(site: EsxiSite, daemons: Daemons) -> None:
    """The simulator writes half of the disk and says that it is done."""
    daemon = start(site, daemons)
    site.vcsim.rules({"method": "CopyVirtualDisk_Task", "action": "short"})

    text = failed(site, daemon, site.ask("reload", 1))

    assert "bytes instead of" in text
    assert list(site.masters.iterdir()) == []
    assert site.computer(1) == "available"


def test_image_that_is_nowhere_fails_the_request_only(site: EsxiSite, daemons: Daemons) -> None:
    shutil.rmtree(site.repository / FIRST)
    daemon = start(site, daemons)

    text = failed(site, daemon, site.ask("reload", 1))

    assert FIRST in text
    assert site.computer(1) == "available"


def test_dedicated_network_that_the_host_lacks_is_named(site: EsxiSite, daemons: Daemons) -> None:
    site.execute("UPDATE vmprofile SET virtualswitch1 = 'Nowhere' WHERE profilename = 'vcsim'")
    daemon = start(site, daemons)

    text = failed(site, daemon, site.ask("reload", 1))

    assert "the VM host has no network 'Nowhere', which its profile names; it has: " in text
    assert site.computer(1) == "available"


@pytest.mark.parametrize(
    ("method", "fault", "said"),
    [
        ("MakeDirectory", "NoPermission", "needs more rights"),
        ("RetrievePropertiesEx", "SystemError", "SystemError"),
        ("CreateFilter", "SystemError", "SystemError"),
    ],
)
def test_call_that_nothing_provides_for_is_no_surprise_and_blames_the_host(
    site: EsxiSite, daemons: Daemons, method: str, fault: str, said: str
) -> None:
    daemon = start(site, daemons)
    site.vcsim.rules({"method": method, "action": "fault", "fault": fault})
    if method == "CreateFilter":  # it is needed for tasks that take their time
        site.vcsim.rules(
            {"method": method, "action": "fault", "fault": fault},
            {"method": "CreateVM_Task", "action": "slow", "seconds": 1},
        )

    text = failed(site, daemon, site.ask("reload", 1))

    assert said in text
    assert site.computer(1) == "available"


def test_masters_content_is_what_the_repository_holds(site: EsxiSite, daemons: Daemons) -> None:
    daemon = start(site, daemons)

    threads = [threading.Thread(target=site.ask, args=("reload", n)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    eventually(lambda: len(site.machines()) == 3, daemon.describe)
    assert site.content(site.masters, FIRST) == site.content(site.repository, FIRST)
    assert site.content(site.masters, FIRST)["imagerevision_id"] == REVISION


def test_user_without_a_role_is_told_apart_from_a_host_that_is_away(
    site: EsxiSite, daemons: Daemons
) -> None:
    """A vCenter knows its users before it knows what they may do."""
    daemon = start(site, daemons)
    site.vcsim.rules({"method": "Login", "action": "fault", "fault": "NoPermission"})

    text = failed(site, daemon, site.ask("reload", 1))

    assert "knows the user root of its profile, but lets it do nothing" in text
    assert calls(site, "Login") == 1
    assert site.computer(1) == "available"


def test_session_that_ended_before_a_file_is_sent_is_made_anew(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = start(site, daemons)
    site.vcsim.rules({"method": "PUT /folder", "action": "401", "times": 1})

    loaded(site, daemon)

    assert site.leftovers() == []
    assert (site.masters / FIRST / "vcld-image.json").exists()


def test_folder_without_its_disk_is_told_of_before_anything_is_copied(
    site: EsxiSite, daemons: Daemons
) -> None:
    (site.masters / FIRST).mkdir()
    (site.masters / FIRST / f"{FIRST}.vmx.reference").write_text("")
    daemon = start(site, daemons)

    text = failed(site, daemon, site.ask("reload", 1))

    assert f"[shared] masters/{FIRST} is there but holds no {FIRST}.vmdk" in text
    assert "remove the folder" in text
    assert calls(site, "CopyVirtualDisk_Task") == 0
    assert site.computer(1) == "available"
