"""What work on ESXi hosts leaves when it is told to stop, or meets a fault in the middle."""

from __future__ import annotations

import shutil
from typing import Any

from pyVim.connect import Disconnect
from sqlalchemy.engine import Engine

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import CAPTURED, FIRST, SECOND, EsxiSite, daemon_keys
from tests.integration.test_esxi_kills import in_use
from tests.site import NEW_REVISION
from vcld.schema.engine import Database
from vcld.store import leases

GIB = 1 << 30
THIRD = "simulator-third-v1"

mode, hosts, site = esxi_fixtures.mode, esxi_fixtures.hosts, esxi_fixtures.site
daemons, daemon = esxi_fixtures.daemons, esxi_fixtures.daemon
both_modes = esxi_fixtures.both_modes


def calls(site: EsxiSite, method: str) -> int:
    return int(site.vcsim.counted()["calls"].get(method, 0))


def copying(site: EsxiSite, daemon: Daemon) -> int:
    """A capture that copies; the request."""
    request = in_use(site, daemon)
    site.vcsim.counted(reset=True)
    site.vcsim.rules({"method": "CopyVirtualDisk_Task", "action": "hang"})
    site.set_state(request, "image")
    eventually(lambda: calls(site, "CopyVirtualDisk_Task"), daemon.describe)
    before = calls(site, "WaitForUpdatesEx")
    eventually(lambda: calls(site, "WaitForUpdatesEx") > before, daemon.describe)
    return request


@both_modes
def test_capture_whose_request_is_taken_away_leaves_the_vm_running_and_no_copy(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = copying(site, daemon)

    site.delete(request)

    eventually(lambda: site.leftovers() == [] and not daemon.workers(), daemon.describe)
    assert site.machines()[f"vm1_{FIRST}"].power == "poweredOn"
    assert not (site.repository / CAPTURED).exists()
    assert calls(site, "CancelTask") == 1
    assert calls(site, "PowerOnVM_Task") == 1
    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


def test_capture_that_an_operator_stops_leaves_the_vm_running(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = copying(site, daemon)

    site.set_state(request, "maintenance", "image")

    eventually(lambda: site.leftovers() == [] and not daemon.workers(), daemon.describe)
    assert site.machines()[f"vm1_{FIRST}"].power == "poweredOn"
    site.vcsim.rules()
    site.set_state(request, "image", "maintenance")
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION


def test_capture_that_is_refused_a_folder_leaves_the_vm_running(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = in_use(site, daemon)
    site.vcsim.rules({"method": "MakeDirectory", "action": "fault", "fault": "NoPermission"})

    site.set_state(request, "image")

    eventually(lambda: site.pair(request).startswith("maintenance"), daemon.describe)
    assert daemon.events("the capture failed, the VM is started again")
    assert site.machines()[f"vm1_{FIRST}"].power == "poweredOn"


def test_capture_that_stops_at_a_host_that_is_away_ends_all_the_same(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = copying(site, daemon)

    site.vcsim.rules({"method": "*", "action": "503"})
    site.delete(request)

    eventually(lambda: not daemon.workers(), daemon.describe, 30)
    assert not daemon.events("worker died, its work is repeated")


@both_modes
def test_capture_goes_on_when_its_session_has_ended_before_a_file_is_sent(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = in_use(site, daemon)
    site.vcsim.counted(reset=True)
    site.vcsim.rules({"method": "PUT /folder", "action": "401", "times": 1})

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION
    assert not daemon.events("the capture failed, the VM is started again")


def test_upload_begins_again_when_its_session_has_ended(site: EsxiSite, daemons: Daemons) -> None:
    site.use_local_repository()
    daemon = daemons.start(**daemon_keys(site))
    site.vcsim.rules({"method": "PUT /folder", "action": "401", "times": 1})

    request = site.ask("reload", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    assert not daemon.events("work postponed")
    assert site.content(site.masters, FIRST) == site.content(site.folder / "archive", FIRST)


def test_file_that_is_refused_to_every_session_is_not_sent_for_ever(
    site: EsxiSite, daemons: Daemons
) -> None:
    daemon = daemons.start(**daemon_keys(site), max_attempts=1)
    site.vcsim.rules({"method": "PUT /folder", "action": "401"})

    request = site.ask("reload", 1)

    (ended,) = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert ended["reason"].endswith("the session has ended")
    assert calls(site, "PUT /folder") == 2
    assert site.leftovers() == []


def test_leases_are_kept_while_the_host_is_away(site: EsxiSite, daemons: Daemons) -> None:
    daemon = daemons.start(**{**daemon_keys(site), "vsphere_patience": 60})
    site.vcsim.rules({"method": "CreateVM_Task", "action": "slow", "seconds": 1})
    request = site.ask("reload", 1)
    eventually(lambda: calls(site, "CreateVM_Task"), daemon.describe)
    expiry = "SELECT MIN(expires_at) FROM vcld_lease"

    site.vcsim.rules({"method": "*", "action": "503"})
    eventually(lambda: daemon.events("the API does not answer, trying again"), daemon.describe)
    before = site.scalar(expiry)

    eventually(lambda: site.scalar(expiry) > before, daemon.describe)
    site.vcsim.rules()
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert not daemon.events("work postponed")


def damaged(site: EsxiSite, daemon: Daemon) -> dict[str, Any]:
    """A load from the node's own repository that fails; how it ended."""
    request = site.ask("reload", 1)
    (ended,) = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert site.leftovers() == []
    assert calls(site, "PUT /folder") == 0
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    return dict(ended)


def test_marker_of_the_node_s_repository_that_is_no_text_is_named(
    site: EsxiSite, daemon: Daemon
) -> None:
    local = site.use_local_repository()
    (local / FIRST / "vcld-image.json").write_bytes(b"\xff\xfe{")

    reason = damaged(site, daemon)["reason"]

    assert reason.startswith(f"image {FIRST} in the repository {local} cannot be read: ")
    assert reason.endswith("vcld-image.json: it is no text")


def test_image_of_the_node_s_repository_whose_data_are_gone_is_not_sent(
    site: EsxiSite, daemon: Daemon
) -> None:
    local = site.use_local_repository()
    text = f'# Disk DescriptorFile\nRW 2048 VMFS "{FIRST}-flat.vmdk"\n'
    (local / FIRST / f"{FIRST}.vmdk").write_text(text)
    (local / FIRST / f"{FIRST}-flat.vmdk").unlink()

    reason = damaged(site, daemon)["reason"]

    assert f"{FIRST}-flat.vmdk is not there; restore it" in reason


def test_upload_that_cannot_be_made_a_master_is_removed(site: EsxiSite, daemon: Daemon) -> None:
    site.use_local_repository()
    site.vcsim.rules({"method": "CopyVirtualDisk_Task", "action": "error", "fault": "FileFault"})

    request = site.ask("reload", 1)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert calls(site, "PUT /folder")
    assert site.leftovers() == []


def test_folder_in_the_way_of_a_capture_is_told_of_before_the_vm_is_shut_down(
    site: EsxiSite, daemon: Daemon
) -> None:
    local = site.use_local_repository()
    (local / CAPTURED).mkdir()
    (local / CAPTURED / "part").write_text("")
    request = in_use(site, daemon)
    site.vcsim.counted(reset=True)

    site.set_state(request, "image")

    (ended,) = eventually(
        lambda: daemon.events("work ended", next_state="maintenance"), daemon.describe
    )
    assert ended["reason"] == (
        f"{local / CAPTURED} is there but holds no {CAPTURED}.vmdk: remove the folder"
    )
    assert calls(site, "CopyVirtualDisk_Task") == 0
    assert site.world.computer("vm1").is_answering


def test_repository_that_is_not_there_is_told_of_before_the_vm_is_shut_down(
    site: EsxiSite, daemon: Daemon
) -> None:
    local = site.use_local_repository()
    request = in_use(site, daemon)
    site.vcsim.counted(reset=True)
    shutil.rmtree(local)

    site.set_state(request, "image")

    (ended,) = eventually(
        lambda: daemon.events("work ended", next_state="maintenance"), daemon.describe
    )
    assert ended["reason"].startswith(f"the repository {local} is not there on this management")
    assert calls(site, "CopyVirtualDisk_Task") == 0
    assert site.world.computer("vm1").is_answering


def test_repository_of_the_node_without_room_is_told_of_before_anything_is_copied(
    site: EsxiSite, daemon: Daemon
) -> None:
    """A snapshot of the VM's disk is larger than any disk."""
    site.use_local_repository()
    request = in_use(site, daemon)
    with (site.vms / "vm1_2-v1" / "vm1_2-v1-000001.vmdk").open("wb") as writer:
        writer.truncate(8 << 40)
    site.vcsim.counted(reset=True)

    site.set_state(request, "image")

    (ended,) = eventually(
        lambda: daemon.events("work ended", next_state="maintenance"), daemon.describe
    )
    assert ended["reason"].startswith(f"{CAPTURED} needs 83886")
    assert f" MB in {site.folder / 'archive'}, where " in ended["reason"]
    assert calls(site, "CopyVirtualDisk_Task") == 0
    assert site.machines()[f"vm1_{FIRST}"].power == "poweredOn"


def test_name_of_an_image_that_ends_in_a_space_is_refused(site: EsxiSite, daemon: Daemon) -> None:
    site.execute("UPDATE imagerevision SET imagename = CONCAT(imagename, ' ')")

    request = site.ask("reload", 1)

    (ended,) = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert ended["reason"] == f"'{FIRST} ' cannot be the name of an image"


def test_masters_that_are_the_repository_s_own_images_are_never_removed(
    site: EsxiSite, daemon: Daemon
) -> None:
    """Both paths are one folder; and a folder of this node that the host has as a datastore."""
    for path in ("/vmfs/volumes/shared/masters", str(site.masters)):
        shutil.rmtree(site.masters, ignore_errors=True)
        site.execute(f"UPDATE vmprofile SET repositorypath = '{path}'")
        for image in (FIRST, SECOND):
            site.store(site.masters, image)
        site.vcsim.free_space(shared=GIB)
        site.set_computer(1, "available")

        request = site.ask("reload", 1)

        eventually(lambda: daemon.events("work ended"), daemon.describe)
        eventually(lambda: site.pair(request) == "gone", daemon.describe)  # noqa: B023
        (ended,) = daemon.events("work ended", request_id=request)
        assert "too little space" in ended["reason"]
        assert sorted(path.name for path in site.masters.iterdir()) == [FIRST, SECOND]


def test_image_is_captured_once_where_both_paths_are_one_folder(
    site: EsxiSite, daemons: Daemons
) -> None:
    site.execute("UPDATE vmprofile SET repositorypath = 'shared/masters'")
    site.store(site.masters, FIRST)
    daemon = daemons.start(**daemon_keys(site))
    request = in_use(site, daemon)

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.masters, CAPTURED)["imagerevision_id"] == NEW_REVISION


def test_what_dead_copies_left_makes_room_first_and_what_goes_on_stays(
    site: EsxiSite, daemon: Daemon, database: Engine
) -> None:
    dead, alive = site.masters / f"{SECOND}.vcld-removed", site.masters / f"{THIRD}.vcld-12345678"
    site.execute(f"UPDATE imagerevision SET imagename = '{THIRD}' WHERE id = 22")
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "part.vmdk").write_text("half")
    session = site.vcsim.connect()
    stores = session.RetrieveContent().rootFolder.childEntity[0].datastore
    (url,) = (store.summary.url for store in stores if store.name == "shared")
    Disconnect(session)
    shared, name = Database(database), f"master:{url}/masters/{THIRD}"
    token = shared.run(lambda c: leases.join(c, name, reservationid=4711))
    shared.run(lambda c: leases.advance(c, name, token, limit=1))
    site.vcsim.free_space(shared=GIB)

    request = site.ask("reload", 1)

    eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert not dead.exists()
    assert alive.exists()
    assert [path.name for path in site.masters.iterdir()] == [alive.name]


@both_modes
def test_session_that_ends_during_the_copy_of_a_capture_is_renewed(
    site: EsxiSite, daemon: Daemon
) -> None:
    request = in_use(site, daemon)
    site.vcsim.counted(reset=True)
    site.vcsim.rules({"method": "CopyVirtualDisk_Task", "action": "slow", "seconds": 3})
    site.set_state(request, "image")
    eventually(lambda: calls(site, "CopyVirtualDisk_Task"), daemon.describe)

    assert site.vcsim.expire_sessions() == 1

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION
    assert calls(site, "CopyVirtualDisk_Task") == 2  # to the repository, and as a master
    assert daemon.events("the session has ended, logging in again")
    assert not daemon.events("the capture failed, the VM is started again")
