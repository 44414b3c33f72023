"""Blades through the daemon: loads, reclaims, maintenance, on the fake xCAT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemons, eventually
from tests.site import IMAGE, NEW_REVISION, USER, Site
from tests.xcat_blades import Blades, blades_for

#: The phases of a load as ``computerloadflow`` has them for blades.
FLOW = ["rinstall", "xcatstage2", "xcatstage1", "xcatstage5", "bootstate", "machinebooted"]


@pytest.fixture
def blades(site: Site, daemons: Daemons, tmp_path: Path) -> Iterator[Blades]:
    with blades_for(site, daemons, tmp_path / "xcat") as made:
        yield made


def flow(steps: list[str]) -> list[str]:
    return [step for step in steps if step in FLOW]


def test_a_new_request_gets_its_image_and_is_reserved(blades: Blades) -> None:
    site = blades.site
    daemon = blades.start()
    request = site.ask("new", 1)
    eventually(
        lambda: site.computer(1) == "reserved" or "failed" in site.steps(request),
        daemon.describe,
    )
    assert site.pair(request).startswith(("reserved/", "pending/reserved")), daemon.describe()
    assert flow(site.steps(request)) == FLOW
    assert blades.node().disk == "simulator-first-v1"
    assert site.world.computer("blade1").accounts == ["ada"]


def test_a_reload_puts_the_wanted_revision_on_the_blade(blades: Blades) -> None:
    site = blades.site
    blades.loaded(1)
    daemon = blades.start()
    request = site.ask("reload", 1, revision=NEW_REVISION)
    eventually(
        lambda: site.pair(request) == "gone" or site.computer(1) == "failed", daemon.describe
    )
    assert site.computer(1) == "available", daemon.describe()
    assert blades.node().disk == "simulator-first-v2"


def test_a_blade_of_a_bladecenter_is_loaded_without_rsetboot(blades: Blades) -> None:
    """Its management module has a lasting boot sequence; xCAT refuses rsetboot for it."""
    site = blades.site
    blades.node().attributes["mgt"] = "blade"
    daemon = blades.start()
    request = site.ask("reload", 1)
    eventually(lambda: site.pair(request) == "gone" or site.computer(1) == "failed")
    assert site.computer(1) == "available", daemon.describe()
    assert blades.xcat.count("rsetboot") == 0


def test_a_blade_with_the_image_is_handed_out_without_a_load(blades: Blades) -> None:
    site = blades.site
    blades.loaded(1)
    daemon = blades.start()
    site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert not [call for call in blades.xcat.calls if call.command in {"nodeset", "rpower"}]


def test_a_session_ends_in_a_reload_of_the_blade(blades: Blades) -> None:
    site = blades.site
    daemon = blades.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    eventually(lambda: site.claims() and site.claims()[0].phase == "waiting")
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert blades.node().installs == 2
    assert site.world.computer("blade1").accounts == []


def test_maintenance_does_nothing_to_the_blade(blades: Blades) -> None:
    site = blades.site
    daemon = blades.start()
    request = site.ask("tomaintenance", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "maintenance"
    assert blades.xcat.calls == []


def test_a_blade_becomes_a_host_of_virtual_machines(blades: Blades) -> None:
    site = blades.site
    daemon = blades.start()
    request = site.ask("tovmhostinuse", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "vmhostinuse"
    assert blades.node().installs == 1


def test_a_cluster_of_eight_blades_is_reserved(blades: Blades) -> None:
    site = blades.site
    daemon = blades.start()
    site.ask("new", *range(1, 9))
    eventually(lambda: {site.computer(n) for n in range(1, 9)} == {"reserved"}, daemon.describe)
    assert all(blades.node(n).installs == 1 for n in range(1, 9))


@pytest.fixture
def imaging(blades: Blades) -> Blades:
    """A blade whose user wants it to become the new image ``simulator-mine-v1``."""
    site = blades.site
    blades.loaded(1)
    blades.xcat.has_old_forms = True
    site.execute(
        "INSERT INTO imagerevision (id, imageid, revision, userid, datecreated, deleted,"
        f" production, imagename) VALUES (99, {IMAGE}, 9, {USER}, NOW(), 1, 0, 'simulator-mine-v1')"
    )
    blades.revisions["simulator-mine-v1"] = 99
    return blades


@pytest.mark.parametrize("method", ["image", "runimage=http://mn/capture.tgz"])
def test_a_captured_image_is_stored_and_loaded_again(imaging: Blades, method: str) -> None:
    site = imaging.site
    imaging.set(capture_method=method)
    daemon = imaging.start()
    request = site.ask("image", 1, laststate="inuse", revision=99)
    eventually(lambda: site.pair(request) in {"gone", "maintenance/image"}, daemon.describe)
    eventually(lambda: imaging.node().disk == "simulator-mine-v1", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    stored = sorted(path.name for path in imaging.xcat.images.iterdir())
    assert stored == ["simulator-mine-v1.img"]
    assert (imaging.xcat.images / stored[0]).stat().st_mode & 0o777 == 0o644
    assert "image" not in imaging.node().attributes["groups"].split(",")
    assert site.scalar("SELECT deleted FROM imagerevision WHERE id = 99") == 0


def test_xcats_own_capture_makes_an_osimage_of_the_running_blade(imaging: Blades) -> None:
    site = imaging.site
    imaging.set(capture_method="sysclone")
    daemon = imaging.start()
    request = site.ask("image", 1, laststate="inuse", revision=99)
    eventually(lambda: site.pair(request) in {"gone", "maintenance/image"}, daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert "simulator-mine-v1" in imaging.xcat.osimages
    assert imaging.node().disk == "simulator-mine-v1"


def test_a_failed_capture_leaves_the_blade_in_maintenance_and_no_partial_image(
    imaging: Blades,
) -> None:
    site = imaging.site
    site.execute("UPDATE imagerevision SET imagename = 'unwritable-v1' WHERE id = 99")
    daemon = imaging.start()
    request = site.ask("image", 1, laststate="inuse", revision=99)
    eventually(lambda: site.pair(request).startswith("maintenance"), daemon.describe)
    assert site.computer(1) == "maintenance"
    assert list(imaging.xcat.images.iterdir()) == []
    assert imaging.node().currstate == "boot"
    assert imaging.node().disk == "simulator-first-v1"


CAUSES = {
    "method": "'copy' is none of image",
    "folder": "images cannot be written to",
    "present xCAT": "Unknown state image requested",
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_capture_that_cannot_be_done_does_not_shut_the_blade_down(
    imaging: Blades, cause: str
) -> None:
    site = imaging.site
    if cause == "method":
        imaging.set(capture_method="copy")
    elif cause == "folder":
        site.execute("UPDATE managementnode SET installpath = '/proc/nothing'")
    else:
        imaging.xcat.has_old_forms = False
    daemon = imaging.start()
    request = site.ask("image", 1, laststate="inuse", revision=99)
    eventually(lambda: site.pair(request).startswith("maintenance"), daemon.describe)
    (end,) = daemon.events("work ended", request_id=request)
    assert CAUSES[cause] in end["reason"]
    assert (imaging.node().power, imaging.node().phase) == ("on", "booted")


def test_a_checkpoint_gives_the_blade_back_to_its_user(imaging: Blades) -> None:
    site = imaging.site
    daemon = imaging.start()
    request = site.ask("checkpoint", 1, laststate="inuse", revision=99)
    eventually(
        lambda: site.pair(request).endswith("reserved") or site.computer(1) == "maintenance",
        daemon.describe,
    )
    assert site.computer(1) in {"checkpoint", "reserved", "inuse"}, daemon.describe()
    assert (imaging.xcat.images / "simulator-mine-v1.img").exists()
    assert imaging.node().power == "on"
