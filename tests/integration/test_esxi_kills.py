"""Workers that are killed at each step of a load and of a capture; two-worker rules."""

from __future__ import annotations

import json

import pytest

from tests import esxi_fixtures
from tests.daemon import Daemon, eventually
from tests.esxi_site import CAPTURED, FIRST, EsxiSite
from tests.site import NEW_REVISION, REVISION

#: Calls of a first load, and of a load that replaces a VM.
LOAD_CALLS = (
    "MakeDirectory",
    "CopyVirtualDisk_Task",
    "PUT /folder",
    "MoveDatastoreFile_Task",
    "CreateVM_Task",
    "PowerOnVM_Task",
)
RELOAD_CALLS = ("PowerOffVM_Task", "UnregisterVM", "DeleteDatastoreFile_Task")
CAPTURE_CALLS = ("CopyVirtualDisk_Task", "PUT /folder", "MoveDatastoreFile_Task")


mode, hosts = esxi_fixtures.each_mode, esxi_fixtures.hosts
site, daemon = esxi_fixtures.site, esxi_fixtures.daemon


def kill_at(site: EsxiSite, daemon: Daemon, method: str) -> None:
    """Kill the worker while the call, or its task, is under way; it goes on at the host."""
    eventually(lambda: site.vcsim.counted()["calls"].get(method), daemon.describe)
    site.vcsim.rules()
    for worker in daemon.workers():
        worker.kill()


def slow_down(site: EsxiSite, method: str) -> None:
    action = "slow" if method.endswith("_Task") else "delay"
    site.vcsim.counted(reset=True)
    site.vcsim.rules({"method": method, "action": action, "seconds": 2})


def check_loaded(site: EsxiSite, daemon: Daemon, request: int) -> None:
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available", daemon.describe()
    machines = site.machines()
    assert list(machines) == [f"vm1_{FIRST}"]
    assert machines[f"vm1_{FIRST}"].power == "poweredOn"
    assert site.world.computer("vm1").imagerevision_id == REVISION
    assert site.content(site.masters, FIRST) == site.content(site.repository, FIRST)
    assert (site.masters / FIRST / "vcld-image.json").exists()


@pytest.mark.parametrize("method", LOAD_CALLS)
def test_load_whose_worker_is_killed_is_done_over(
    site: EsxiSite, daemon: Daemon, method: str
) -> None:
    slow_down(site, method)
    request = site.ask("reload", 1)

    kill_at(site, daemon, method)

    check_loaded(site, daemon, request)


@pytest.mark.parametrize("method", RELOAD_CALLS)
def test_load_whose_worker_is_killed_while_it_removes_the_old_vm_is_done_over(
    site: EsxiSite, daemon: Daemon, method: str
) -> None:
    first = site.ask("reload", 1)
    check_loaded(site, daemon, first)
    site.set_computer(1, "reload")
    slow_down(site, method)
    request = site.ask("reload", 1)

    kill_at(site, daemon, method)

    check_loaded(site, daemon, request)


@pytest.mark.parametrize("method", CAPTURE_CALLS)
def test_capture_whose_worker_is_killed_costs_no_disk_and_can_be_repeated(
    site: EsxiSite, daemon: Daemon, method: str
) -> None:
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    before = site.content(site.masters, FIRST)
    slow_down(site, method)
    site.set_state(request, "image")

    kill_at(site, daemon, method)

    eventually(lambda: site.pair(request).startswith("maintenance"), daemon.describe)
    assert site.computer(1) == "maintenance"
    own = site.vms / "vm1_2-v1" / "vm1_2-v1-flat.vmdk"
    assert json.loads(own.read_text())["imagerevision_id"] == NEW_REVISION
    assert site.content(site.masters, FIRST) == before
    for folder in (site.masters, site.repository):
        if (folder / CAPTURED).exists():  # it had its name already: then it is whole
            assert site.content(folder, CAPTURED)["imagerevision_id"] == NEW_REVISION
            assert (folder / CAPTURED / "vcld-image.json").exists()

    if any((folder / CAPTURED).exists() for folder in (site.masters, site.repository)):
        return
    site.set_state(request, "image", "inuse")
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION
    eventually(lambda: site.leftovers() == [], daemon.describe)
