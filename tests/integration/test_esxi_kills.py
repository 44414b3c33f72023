"""Workers that are killed at each step of a load and of a capture; two-worker rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import CAPTURED, FIRST, EsxiSite, daemon_keys
from tests.site import NEW_REVISION, REVISION
from tests.steps import step_names
from vcld.provisioning import esxi
from vcld.provisioning.esxi.session import CHANGING, READING

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
#: Calls that change something of the host, and are no part of a load or capture.
BESIDES = {"Login", "Logout", "ContinueRetrievePropertiesEx"}
STEPS = step_names(Path(esxi.__file__).parent)
CLONE_STEPS = {step for step in STEPS if "clone" in step or "source" in step}
CAPTURE_CALLS = ("CopyVirtualDisk_Task", "PUT /folder", "MoveDatastoreFile_Task")


mode, hosts = esxi_fixtures.each_mode, esxi_fixtures.hosts
site, daemon = esxi_fixtures.site, esxi_fixtures.daemon
daemons = esxi_fixtures.daemons


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


def in_use(site: EsxiSite, daemon: Daemon) -> int:
    """A computer with a user, whose image gets a new revision."""
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    return request


def check_kept(site: EsxiSite, daemon: Daemon, request: int, master: object) -> None:
    """After a death in mid-capture: no disk is harmed, and the capture can be done over."""
    eventually(lambda: site.pair(request).startswith("maintenance"), daemon.describe)
    assert site.computer(1) == "maintenance"
    assert site.content(site.masters, FIRST) == master
    named = [place for place in (site.masters, site.repository) if (place / CAPTURED).exists()]
    for folder in named:  # it had its name already: then it is whole
        assert site.content(folder, CAPTURED)["imagerevision_id"] == NEW_REVISION
        assert (folder / CAPTURED / "vcld-image.json").exists()
    own = site.vms / "vm1_2-v1" / "vm1_2-v1-flat.vmdk"
    disk = json.loads(own.read_text() or "{}") if own.exists() else {}
    assert disk.get("imagerevision_id") in {None, NEW_REVISION}
    site.set_state(request, "image", "maintenance")  # as ``vcld retry`` does
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION
    # The dead worker's lease on the image ends after half a minute.
    eventually(lambda: site.leftovers() == [], daemon.describe, 60)


@pytest.mark.parametrize("method", CAPTURE_CALLS)
def test_capture_whose_worker_is_killed_costs_no_disk_and_can_be_repeated(
    site: EsxiSite, daemon: Daemon, method: str
) -> None:
    request = in_use(site, daemon)
    before = site.content(site.masters, FIRST)
    slow_down(site, method)
    site.set_state(request, "image")

    kill_at(site, daemon, method)

    check_kept(site, daemon, request, before)


def test_calls_at_which_workers_are_killed_are_all_that_change_something(
    site: EsxiSite, daemon: Daemon
) -> None:
    first = site.ask("reload", 1)
    check_loaded(site, daemon, first)
    site.set_computer(1, "reload")
    check_loaded(site, daemon, site.ask("reload", 1))
    made = set(site.vcsim.counted(reset=True)["calls"])
    request = in_use(site, daemon)
    site.vcsim.counted(reset=True)
    site.set_state(request, "image")
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    captured = set(site.vcsim.counted()["calls"])

    def changing(names: set[str]) -> set[str]:
        read = {name for name in names if name.startswith(READING) and name not in CHANGING}
        return {name for name in names - read - BESIDES if not name.startswith("GET ")}

    assert changing(made) == {*LOAD_CALLS, *RELOAD_CALLS}
    assert changing(captured) >= set(CAPTURE_CALLS)
    assert changing(captured) <= {*LOAD_CALLS, *RELOAD_CALLS}


class TestSteps:
    """The steps are read from the code: ``host.step("…")``; one that is new is killed at, too."""

    @pytest.fixture
    def mode(self, request: pytest.FixtureRequest) -> str:
        return "vc" if request.node.callspec.params["step"] in CLONE_STEPS else "esx"

    @pytest.mark.parametrize("step", [step for step in STEPS if step.startswith("load:")])
    def test_load_whose_worker_is_killed_at_a_step_is_done_over(
        self, site: EsxiSite, daemons: Daemons, step: str
    ) -> None:
        if step == "load:master-upload":
            site.use_local_repository()
        if step in CLONE_STEPS:
            site.variable("vmware|disk", "clone")
        daemon = daemons.start(**daemon_keys(site))
        site.write_script(rules=[{"step": step, "times": 1, "signal": "KILL"}])

        if step == "load:disk":
            site.make_server(1)
            eventually(lambda: site.computer(1) == "inuse", daemon.describe)
            machines = site.machines()
            assert list(machines) == [f"vm1_{FIRST}"]
            assert machines[f"vm1_{FIRST}"].parents == [None]
        else:
            request = site.ask("reload", 1)
            eventually(lambda: site.pair(request) == "gone", daemon.describe)
            assert site.computer(1) == "available", daemon.describe()

        (died,) = daemon.events("worker died, its work is repeated")
        assert "SIGKILL" in died["reason"]
        own = {name: vm for name, vm in site.machines().items() if name.startswith("vm1_")}
        assert list(own) == [f"vm1_{FIRST}"]
        assert own[f"vm1_{FIRST}"].power == "poweredOn"
        assert site.world.computer("vm1").imagerevision_id == REVISION
        assert site.content(site.masters, FIRST) == site.content(site.repository, FIRST)
        assert site.leftovers() == []
        if step != "load:started":  # then all is done, nobody loads again: they expire
            assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0

    @pytest.mark.parametrize("step", [step for step in STEPS if step.startswith("capture:")])
    def test_capture_whose_worker_is_killed_at_a_step_costs_no_disk(
        self, site: EsxiSite, daemon: Daemon, step: str
    ) -> None:
        if step == "capture:fetch":
            site.use_local_repository()
        request = in_use(site, daemon)
        before = site.content(site.masters, FIRST)
        site.write_script(rules=[{"step": step, "times": 1, "signal": "KILL"}])

        site.set_state(request, "image")

        (died,) = eventually(lambda: daemon.events("worker died, its request is ended"))
        assert "SIGKILL" in died["reason"]
        if step == "capture:fetch":
            site.execute("UPDATE vmprofile SET repositorypath = 'shared/repository'")
        check_kept(site, daemon, request, before)
