"""Judging a load by what is seen of the node."""

from __future__ import annotations

import pytest

from vcld.provisioning.xcat.failures import (
    ImageBrokenError,
    InstallStuckError,
    NodeNeverBootedError,
)
from vcld.provisioning.xcat.watch import Limits, Phase, Sight, Watch, limits_for

INSTALL = "install rhels8-x86_64-a"
OLD = "11-21-2026 08:00:00"
NEW = "11-21-2026 09:00:00"


def sight(
    status: str = "booted", currstate: str = INSTALL, at: str = NEW, nodestat: str = ""
) -> Sight:
    return Sight(currstate=currstate, status=status, statustime=at, nodestat=nodestat)


@pytest.fixture
def watch() -> Watch:
    limits = Limits(boot_wait=100, no_progress=200, overall=1000)
    return Watch("blade1", sight(at=OLD, nodestat="sshd"), limits, began=0.0)


def test_a_load_goes_through_its_phases(watch: Watch) -> None:
    looks = [
        (sight("powering-on", nodestat="noping"), [], Phase.POWERED),
        (sight("powering-on", nodestat="noping"), ["DHCPREQUEST", "DHCPACK"], Phase.DHCP),
        (sight("installing", nodestat="installing prep"), [], Phase.INSTALLING),
        (sight("booting", "boot"), [], Phase.BOOTING),
        (sight("booted", "boot"), [], Phase.BOOTED),
    ]
    for now, (seen, dhcp, phase) in enumerate(looks):
        assert watch.look(seen, dhcp, now) is phase


def test_the_status_of_the_former_life_says_nothing(watch: Watch) -> None:
    assert watch.look(sight(at=OLD), [], 1) is Phase.POWERED


def test_a_site_without_status_reports_is_judged_by_the_next_boot_and_the_guest(
    watch: Watch,
) -> None:
    before = sight(at=OLD, currstate="boot")
    assert watch.look(before, [], 1) is Phase.BOOTING
    assert watch.look(before, [], 2, answers=True) is Phase.BOOTED


def test_what_monitoring_calls_alive_may_be_the_installer(watch: Watch) -> None:
    assert watch.look(sight("alive", nodestat="sshd"), [], 1) is not Phase.BOOTED
    assert watch.look(sight("alive", "boot"), [], 2) is Phase.BOOTED


def test_a_stateless_image_has_no_next_boot_from_disk(watch: Watch) -> None:
    netboot = "netboot rhels8-x86_64-a"
    assert watch.look(sight("netbooting", netboot), [], 1) is Phase.INSTALLING
    assert watch.look(sight("booted", netboot), [], 2) is Phase.BOOTED


def test_no_sign_of_life_is_the_nodes_fault(watch: Watch) -> None:
    seen = sight("powering-on", nodestat="noping")
    watch.look(seen, [], 1)
    with pytest.raises(NodeNeverBootedError, match="nodestat noping"):
        watch.look(seen, [], 101)


def test_a_step_that_does_not_move_fails_with_what_was_last_seen(watch: Watch) -> None:
    seen = sight("installing", nodestat="installing post scripts")
    watch.look(seen, [], 50)
    watch.look(seen, [], 249)
    with pytest.raises(InstallStuckError, match="installing post scripts"):
        watch.look(seen, [], 251)


def test_movement_without_end_is_limited_too(watch: Watch) -> None:
    for now in range(0, 1001, 100):
        watch.look(sight("installing", nodestat=f"installing {now}"), [], now)
    with pytest.raises(InstallStuckError, match="is not loaded after"):
        watch.look(sight("installing", nodestat="installing 1001"), [], 1001)


def test_time_in_which_xcat_was_away_does_not_count(watch: Watch) -> None:
    seen = sight("installing")
    watch.look(seen, [], 50)
    watch.excuse(300)
    assert watch.look(seen, [], 400) is Phase.INSTALLING


def test_a_failed_installation_is_the_images_fault(watch: Watch) -> None:
    watch.look(sight("installing"), [], 1)
    with pytest.raises(ImageBrokenError):
        watch.look(sight("failed"), [], 2)


@pytest.mark.parametrize(
    ("reloadtime", "still", "overall"), [(5, 600, 3600), (20, 1200, 3600), (45, 2700, 5400)]
)
def test_limits_follow_the_images_reload_time(reloadtime: int, still: int, overall: int) -> None:
    found = limits_for(reloadtime, boot_wait=600, no_progress=0, overall=0)
    assert (found.no_progress, found.overall) == (still, overall)
