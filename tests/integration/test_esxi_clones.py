"""Linked clones by a vCenter.

vcsim knows CloneVM, but makes empty disks of it. That the disk of a clone is a child of its
source's, and that a linked clone without a snapshot is refused, is hand-made in
tests/vcsim/clones.go.
"""

from __future__ import annotations

import pytest
from pyVim.task import WaitForTask

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import CAPTURED, FIRST, SECOND, EsxiSite, daemon_keys
from tests.site import IMAGE, NEW_REVISION, OTHER_IMAGE, OTHER_REVISION, REVISION

GIB = 1 << 30
mode, hosts = esxi_fixtures.vcenter, esxi_fixtures.hosts
site = esxi_fixtures.site
daemons = esxi_fixtures.daemons
SOURCE = f"vcld-source_{FIRST}"


@pytest.fixture
def variables(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the site's variables say before the daemon starts."""
    return getattr(request, "param", {"vmware|disk": "clone"})


@pytest.fixture
def daemon(site: EsxiSite, daemons: Daemons, variables: dict[str, str]) -> Daemon:
    for name, value in variables.items():
        site.variable(name, value)
    return daemons.start(**daemon_keys(site))


def saying(**variables: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("variables", [variables], indirect=True, ids=["-"])


def loaded(
    site: EsxiSite,
    daemon: Daemon,
    computer: int,
    *,
    image: int = IMAGE,
    revision: int = REVISION,
) -> None:
    request = site.ask("reload", computer, image=image, revision=revision)
    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert site.computer(computer) == "available", daemon.describe()


def test_computer_gets_a_clone_with_all_that_a_vm_of_vcl_has(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded(site, daemon, 1)

    machines = site.machines()
    assert sorted(machines) == [SOURCE, f"vm1_{FIRST}"]
    source, clone = machines[SOURCE], machines[f"vm1_{FIRST}"]
    assert source.power == "poweredOff"
    assert source.parents == [f"[shared] masters/{FIRST}/{FIRST}.vmdk"]
    assert source.macs == []
    assert clone.power == "poweredOn"
    assert clone.parents == source.disks
    assert clone.path == "[shared] vm1_2-v1/vm1_2-v1.vmx"
    assert clone.macs[0] == "00:50:56:00:00:01"
    assert len(clone.macs) == 2
    assert (clone.cpus, clone.memory_mib) == (2, 1024)
    assert clone.extra["vcl.computer_id"] == "1"
    assert site.world.computer("vm1").imagerevision_id == REVISION
    assert site.vcsim.counted()["calls"]["CopyVirtualDisk_Task"] == 1


def test_clones_share_a_source_and_leave_nothing_but_it(site: EsxiSite, daemon: Daemon) -> None:
    requests = [site.ask("reload", number) for number in (1, 2, 3)]
    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe, 60)
    assert site.vcsim.counted()["calls"]["CloneVM_Task"] == 3
    assert site.vcsim.counted()["calls"]["CreateVM_Task"] == 1

    loaded(site, daemon, 1, image=OTHER_IMAGE, revision=OTHER_REVISION)
    gone = site.ask("tomaintenance", 2)
    eventually(lambda: site.pair(gone) == "gone", daemon.describe)

    assert sorted(site.machines()) == [
        SOURCE,
        f"vcld-source_{SECOND}",
        f"vm1_{SECOND}",
        f"vm3_{FIRST}",
    ]
    folders = {path.name for path in (site.folder / "shared").iterdir()}
    assert folders == {"masters", "repository", "vms", "vm1_3-v1", "vm3_2-v1"}


def test_clone_is_captured_with_all_that_its_parents_hold(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    for folder in (site.masters, site.repository):
        assert site.content(folder, CAPTURED)["imagerevision_id"] == NEW_REVISION
    assert site.content(site.masters, FIRST)["imagerevision_id"] == REVISION


@saying(
    **{
        "vmware|disk": "copy",
        "vmware|disk|profile|vcsim": "clone",
        f"vmware|disk|image|{IMAGE}": "linked",
    }
)
def test_image_has_the_last_word_on_its_disk_and_the_profile_the_next(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded(site, daemon, 1)
    loaded(site, daemon, 2, image=OTHER_IMAGE, revision=OTHER_REVISION)

    machines = site.machines()
    assert machines[f"vm1_{FIRST}"].parents == [f"[shared] masters/{FIRST}/{FIRST}.vmdk"]
    assert machines[f"vm2_{SECOND}"].parents == machines[f"vcld-source_{SECOND}"].disks


def test_server_has_a_disk_of_its_own_whatever_the_profile_says(
    site: EsxiSite, daemon: Daemon
) -> None:
    site.make_server(1)

    eventually(lambda: site.computer(1) == "inuse", daemon.describe)

    assert site.machines()[f"vm1_{FIRST}"].parents == [None]


@saying(**{f"vmware|disk|image|{IMAGE}": "mirrored"})
def test_kind_of_disk_that_is_none_is_named_with_its_variable(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = site.ask("reload", 1)

    ended = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)

    wanted = f"variable vmware|disk|image|{IMAGE} is 'mirrored', but disks are: linked, copy, clone"
    assert ended[0]["reason"] == wanted
    assert site.computer(1) == "available"


def test_source_without_clones_makes_room_with_its_master_and_one_with_clones_does_not(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded(site, daemon, 1)
    loaded(site, daemon, 2, image=OTHER_IMAGE, revision=OTHER_REVISION)
    gone = site.ask("tomaintenance", 1)
    eventually(lambda: site.pair(gone) == "gone", daemon.describe)
    site.store(site.repository, "simulator-third-v1")
    site.execute("UPDATE imagerevision SET imagename = 'simulator-third-v1' WHERE id = 22")
    site.vcsim.free_space(shared=1 * GIB)

    request = site.ask("reload", 3, revision=22)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert daemon.events("master removed to make room", image=FIRST)
    assert not daemon.events("master removed to make room", image=SECOND)
    assert SOURCE not in site.machines()
    assert f"vcld-source_{SECOND}" in site.machines()
    assert not list(site.vms.glob(f"vcld-source_{FIRST}*"))
    assert not (site.masters / FIRST).exists()
    assert (site.masters / SECOND).exists()


def test_source_that_is_broken_is_replaced_and_not_removed_from_under_its_clones(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded(site, daemon, 1)
    site.vcsim.set_connection("vcld-source_", "invalid")

    loaded(site, daemon, 2)

    assert site.vcsim.counted()["calls"]["CreateVM_Task"] == 2
    assert len(list(site.vms.glob(f"{SOURCE}.*"))) == 2
    assert site.machines()[f"vm2_{FIRST}"].power == "poweredOn"


def test_source_whose_snapshot_is_gone_keeps_the_files_that_clones_need(
    site: EsxiSite, daemon: Daemon
) -> None:
    loaded(site, daemon, 1)
    (folder,) = site.vms.glob(f"{SOURCE}.*")
    disks = sorted(folder.glob("*.vmdk"))
    site.vcsim.administer(SOURCE, lambda vm: WaitForTask(vm.RemoveAllSnapshots_Task()))

    loaded(site, daemon, 2)

    parents = site.machines()[f"vm1_{FIRST}"].parents
    assert parents == [f"[shared] vms/{folder.name}/{folder.name}.vmdk"]
    assert disks
    assert sorted(folder.glob("*.vmdk")) == disks
    assert site.machines()[f"vm2_{FIRST}"].parents != parents


def test_folder_that_a_source_has_left_goes_with_its_master(site: EsxiSite, daemon: Daemon) -> None:
    loaded(site, daemon, 1)
    site.vcsim.administer(SOURCE, lambda vm: vm.UnregisterVM())
    gone = site.ask("tomaintenance", 1)
    eventually(lambda: site.pair(gone) == "gone", daemon.describe)
    assert list(site.vms.glob(f"{SOURCE}.*"))
    site.vcsim.free_space(shared=1 * GIB)

    request = site.ask("reload", 2, image=OTHER_IMAGE, revision=OTHER_REVISION)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert daemon.events("master removed to make room", image=FIRST)
    assert not list(site.vms.glob(f"{SOURCE}.*"))


def test_images_whose_long_names_differ_at_the_end_have_sources_of_their_own(
    site: EsxiSite, daemon: Daemon
) -> None:
    names = {REVISION: f"{'x' * 67}-v1", OTHER_REVISION: f"{'x' * 67}-v2"}
    for revision, name in names.items():
        site.store(site.repository, name, imagerevision_id=revision)
        site.execute(f"UPDATE imagerevision SET imagename = '{name}' WHERE id = {revision}")

    loaded(site, daemon, 1)
    loaded(site, daemon, 2, image=OTHER_IMAGE, revision=OTHER_REVISION)

    sources = {name: vm for name, vm in site.machines().items() if name.startswith("vcld-source_")}
    assert {vm.extra["vcl.source_of"] for vm in sources.values()} == set(names.values())
    assert all(len(name) <= 80 for name in sources)


def test_plan_names_the_clone(site: EsxiSite, daemons: Daemons) -> None:
    site.variable("vmware|disk", "clone")
    daemon = daemons.make(**daemon_keys(site))
    request = site.ask("new", 1)

    done = daemon.command("esxi", "plan", str(request))

    assert done.returncode == 0, done.stderr
    assert "in [shared] vm1_2-v1" in done.stdout
    assert "a linked clone" in done.stdout
