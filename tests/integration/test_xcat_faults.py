"""Blades, and what may go wrong with them (faults 45-47, 50-52 and 54)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, Daemons, eventually
from tests.fake_xcat import Times
from tests.site import IMAGE, USER, Site
from tests.xcat_blades import Blades, blades_for


@pytest.fixture
def blades(site: Site, daemons: Daemons, tmp_path: Path) -> Iterator[Blades]:
    with blades_for(site, daemons, tmp_path / "xcat") as made:
        yield made


@pytest.fixture
def slow(site: Site, daemons: Daemons, tmp_path: Path) -> Iterator[Blades]:
    """Blades that take so long to install that something can happen meanwhile."""
    with blades_for(site, daemons, tmp_path / "xcat", times=Times(install=4)) as made:
        yield made


def ended(blades: Blades, daemon: Daemon, *requests: int) -> None:
    """Wait until requests are over, one way or the other."""
    over = ("gone", "complete/", "failed/")
    eventually(
        lambda: all(blades.site.pair(request).startswith(over) for request in requests),
        daemon.describe,
        60,
    )


def failure(daemon: Daemon, request: int) -> str:
    """Why the request's work ended, as the log says."""
    ends = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    return str(ends[-1]["reason"])


# --- 45: commands that hang, flood, print rubbish


@pytest.mark.parametrize("kind", ["hang", "flood", "no-newline", "bad-utf8", "cut"])
@pytest.mark.parametrize("command", ["nodeset", "lsdef", "rpower"])
def test_a_command_that_goes_wild_once_does_no_harm(
    blades: Blades, command: str, kind: str
) -> None:
    blades.set(command_timeout=2)
    blades.xcat.fault(command, kind, times=1)
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available", daemon.describe()
    assert blades.node().disk == "simulator-first-v1"


# --- 46: rpower says on, the node is dead


def test_a_blade_that_a_reset_does_not_wake_gets_its_power_cycled_once(blades: Blades) -> None:
    blades.set(boot_wait=1.5)
    blades.node().dead_starts = 1
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available", daemon.describe()
    assert blades.xcat.count("rpower", "off") == 1
    assert blades.xcat.count("rpower", "on") == 1


def test_a_dead_blade_fails_with_what_was_last_seen(blades: Blades) -> None:
    blades.set(boot_wait=1)
    blades.node().dead = True
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "failed"
    text = failure(daemon, request)
    assert "gave no sign of life" in text
    assert "powering-on" in text
    assert blades.node().starts == 2
    assert blades.node().currstate == "boot"


def test_an_installation_that_hangs_is_tried_twice(blades: Blades) -> None:
    blades.set(no_progress=1.5)
    blades.node().stuck_in = "installing"
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "failed"
    assert "installing post scripts" in failure(daemon, request)
    assert blades.node().installs == 2


def test_a_lie_of_rpower_is_found_out(blades: Blades) -> None:
    blades.xcat.fault("rpower", "lie", argument="boot", times=1)
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available", daemon.describe()


# --- 47: a command fails once; some nodes of a range time out


@pytest.mark.parametrize("command", ["nodeset", "rpower", "rsetboot", "chdef"])
@pytest.mark.parametrize("kind", ["error", "quiet-error"])
def test_a_command_that_fails_once_is_repeated(blades: Blades, command: str, kind: str) -> None:
    blades.node().attributes["groups"] = "all,rack7"
    blades.xcat.fault(command, kind, times=1)
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available", daemon.describe()
    assert set(blades.node().attributes["groups"].split(",")) == {"all", "rack7", "compute"}


def test_silent_controllers_fail_their_own_blades_only(blades: Blades) -> None:
    blades.set(timeout_error_limit=2)
    blades.node(2).bmc_down = blades.node(4).bmc_down = True
    daemon = blades.start()
    requests = [blades.site.ask("reload", n) for n in range(1, 6)]
    ended(blades, daemon, *requests)
    states = [blades.site.computer(n) for n in range(1, 6)]
    assert states == ["available", "failed", "available", "failed", "available"], daemon.describe()
    assert "controller of blade2 does not answer" in failure(daemon, requests[1])


@pytest.mark.parametrize("command", ["nodeset", "rpower"])
def test_a_service_node_that_is_away_fails_no_blade(blades: Blades, command: str) -> None:
    """Xcatd cannot pass the command on; the blades of other service nodes have their answers."""
    fault = blades.xcat.fault(command, "undispatched", node="blade2")
    daemon = blades.start(max_attempts=50, poll_interval=1)
    requests = [blades.site.ask("reload", number) for number in (1, 2, 3)]
    ended(blades, daemon, requests[0], requests[2])
    (postponed, *_) = eventually(lambda: daemon.events("work postponed"), daemon.describe)
    assert "Unable to dispatch hierarchical sub-command to sn3" in postponed["reason"]
    fault.times = 0
    ended(blades, daemon, requests[1])
    assert [blades.site.computer(n) for n in (1, 2, 3)] == ["available"] * 3, daemon.describe()


@pytest.mark.parametrize("command", ["lsdef", "nodeset", "rpower"])
def test_a_right_that_xcat_does_not_give_is_told_and_fails_no_blade(
    blades: Blades, command: str
) -> None:
    blades.set(daemon_patience=1)
    blades.xcat.fault(command, "refuse", text="Permission denied for request")
    daemon = blades.start(max_attempts=1)
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available", daemon.describe()
    assert "Permission denied for request" in failure(daemon, request)


def test_an_image_whose_installation_fails_is_at_fault_itself(blades: Blades) -> None:
    site = blades.site
    blades.xcat.add_osimage("broken-v1")
    site.execute("UPDATE imagerevision SET imagename = 'broken-v1' WHERE id = 21")
    daemon = blades.start()
    request = site.ask("reload", 1)
    ended(blades, daemon, request)
    assert site.computer(1) == "available"
    assert "the installation failed" in failure(daemon, request)


def test_an_image_that_is_nowhere_is_at_fault_itself(blades: Blades) -> None:
    del blades.xcat.osimages["simulator-first-v1"]
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available"
    assert "simulator-first-v1" in failure(daemon, request)
    assert blades.node().starts == 0


@pytest.mark.parametrize("name", ["all", "blade99"])
def test_a_name_that_is_no_node_touches_no_blade(blades: Blades, name: str) -> None:
    """``all`` is a group of every node."""
    blades.site.execute(f"UPDATE computer SET hostname = '{name}.example.org' WHERE id = 1")
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert f"does not know {name}" in failure(daemon, request)
    assert all(node.starts == 0 for node in blades.xcat.nodes.values())


# --- xCAT's daemon is away


def test_a_minute_without_xcatd_in_the_middle_of_a_load_costs_nothing(slow: Blades) -> None:
    slow.set(daemon_patience=120, no_progress=20, boot_wait=20)
    daemon = slow.start()
    request = slow.site.ask("reload", 1)
    eventually(lambda: "xcatstage5" in slow.site.steps(request), daemon.describe)
    slow.xcat.stop()
    time.sleep(60)
    assert slow.site.computer(1) == "reloading", daemon.describe()
    slow.xcat.start()
    ended(slow, daemon, request)
    assert slow.site.computer(1) == "available", daemon.describe()
    assert slow.node().installs == 1


def test_without_xcatd_no_computer_fails(blades: Blades) -> None:
    blades.set(daemon_patience=1)
    blades.xcat.stop()
    daemon = blades.start(max_attempts=2)
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available"
    assert "xCAT's daemon does not answer" in failure(daemon, request)


# --- deletion, death, the line


def test_a_deleted_request_stops_its_load_at_once(slow: Blades) -> None:
    daemon = slow.start()
    request = slow.site.ask("new", 1)
    eventually(lambda: "xcatstage5" in slow.site.steps(request), daemon.describe)
    slow.site.end(request)
    eventually(lambda: slow.site.pair(request) == "gone", daemon.describe)
    eventually(lambda: daemon.workers() == [], daemon.describe, 5)
    assert slow.site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0
    assert slow.node().currstate == "boot"


def test_a_worker_that_is_killed_in_a_load_leaves_its_place_and_the_load_is_done(
    slow: Blades,
) -> None:
    slow.set(throttle=1)
    daemon = slow.start()
    request = slow.site.ask("reload", 1)
    eventually(lambda: "xcatstage5" in slow.site.steps(request), daemon.describe)
    os.kill(daemon.workers()[0].pid, signal.SIGKILL)
    ended(slow, daemon, request)
    assert slow.site.computer(1) == "available", daemon.describe()
    assert slow.site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


@pytest.mark.parametrize(
    "step", ["rinstall", "xcatstage2", "xcatstage1", "bootstate", "machinebooted"]
)
def test_a_worker_that_is_killed_at_any_step_leaves_a_load_that_is_done(
    site: Site, daemons: Daemons, tmp_path: Path, step: str
) -> None:
    with blades_for(site, daemons, tmp_path / "x", times=Times(post=1, boot=1)) as blades:
        daemon = blades.start()
        request = site.ask("reload", 1)
        eventually(lambda: daemon.events("load state", loadstate=step), daemon.describe)
        for worker in daemon.workers():
            with contextlib.suppress(ProcessLookupError):  # it may just have ended by itself
                os.kill(worker.pid, signal.SIGKILL)
        ended(blades, daemon, request)
        assert site.computer(1) == "available", daemon.describe()
        assert blades.node().disk == "simulator-first-v1"
        assert blades.node().currstate == "boot"
        assert site.world.computer("blade1").power == "on"
        # At once where the load is done over; where the blade is ready, by their own end.
        live = "SELECT COUNT(*) FROM vcld_lease WHERE expires_at > UTC_TIMESTAMP()"
        eventually(lambda: site.scalar(live) == 0, daemon.describe, 40)


def test_a_setting_that_cannot_be_read_fails_no_blade(blades: Blades) -> None:
    blades.set(servicenode="sn 1")
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert blades.site.computer(1) == "available"
    assert "xcat|servicenode: 'sn 1' is not a machine" in failure(daemon, request)


def test_loads_wait_for_their_place_in_the_order_of_asking(blades: Blades) -> None:
    blades.set(throttle=1)
    daemon = blades.start()
    requests: list[int] = []

    def is_in_line() -> bool:
        return len(daemon.events("load state", loadstate="rinstall")) == len(requests)

    for number in (3, 1, 2):
        requests.append(blades.site.ask("reload", number))
        eventually(is_in_line, daemon.describe)
    ended(blades, daemon, *requests)
    starts = [
        call.arguments[0]
        for call in blades.xcat.calls
        if call.command == "nodeset" and call.arguments[1].startswith("osimage=")
    ]
    assert starts == ["blade3", "blade1", "blade2"]


def test_the_load_log_says_why_a_load_waits(slow: Blades) -> None:
    slow.set(throttle=1)
    daemon = slow.start()
    first = slow.site.ask("reload", 1)
    eventually(lambda: "xcatstage2" in slow.site.steps(first), daemon.describe)
    second = slow.site.ask("reload", 2)
    eventually(
        lambda: any("waiting for a place" in text for _, text in slow.site.load_log(second)),
        daemon.describe,
    )
    ended(slow, daemon, first, second)


# --- 54: partial images


def test_a_capture_whose_worker_dies_leaves_nothing_that_counts_as_an_image(
    site: Site, daemons: Daemons, tmp_path: Path
) -> None:
    with blades_for(site, daemons, tmp_path / "xcat", times=Times(capture=6)) as blades:
        blades.loaded(1)
        blades.xcat.has_old_forms = True
        site.execute(
            "INSERT INTO imagerevision (id, imageid, revision, userid, datecreated, deleted,"
            f" production, imagename) VALUES (99, {IMAGE}, 9, {USER}, NOW(), 1, 0, 'mine-v1')"
        )
        image = blades.xcat.images / "mine-v1.img"
        daemon = blades.start()
        request = site.ask("image", 1, laststate="inuse", revision=99)
        eventually(lambda: image.exists() and image.stat().st_size > 1, daemon.describe)
        os.kill(daemon.workers()[0].pid, signal.SIGKILL)
        eventually(lambda: site.pair(request).startswith("maintenance"), daemon.describe)

        load = site.ask("reload", 2, revision=99)
        ended(blades, daemon, load)
        assert blades.node(2).starts == 0
        assert "mine-v1" in failure(daemon, load)


def test_a_nodeset_without_effect_is_noticed_before_the_blade_is_restarted(
    blades: Blades,
) -> None:
    blades.xcat.fault("nodeset", "lie")
    daemon = blades.start()
    request = blades.site.ask("reload", 1)
    ended(blades, daemon, request)
    assert "has no effect on blade1" in failure(daemon, request)
    assert blades.node().starts == 0


def test_a_management_network_that_is_down_fails_no_blade(blades: Blades) -> None:
    """All controllers are silent at once: it is retried later, and nobody is at fault."""
    blades.set(timeout_error_limit=2)
    for number in range(1, 7):
        blades.node(number).bmc_down = True
    daemon = blades.start(max_attempts=50, poll_interval=1)
    requests = [blades.site.ask("reload", number) for number in range(1, 7)]
    eventually(lambda: daemon.events("work postponed"), daemon.describe)
    for number in range(1, 7):
        blades.node(number).bmc_down = False
    ended(blades, daemon, *requests)
    assert [blades.site.computer(n) for n in range(1, 7)] == ["available"] * 6, daemon.describe()


def test_a_load_that_was_taken_away_leaves_the_blade_to_its_new_owner(slow: Blades) -> None:
    """The worker stands still while somebody else takes the reservation."""
    site = slow.site
    daemon = slow.start()
    request = site.ask("reload", 1)
    eventually(lambda: "xcatstage5" in site.steps(request), daemon.describe)
    worker = daemon.workers()[0]
    worker.suspend()
    daemon.kill()
    site.execute("UPDATE vcld_claim SET token = token + 1, revoked = 0")
    worker.resume()
    eventually(lambda: not daemon.workers(), daemon.describe, 60)
    assert slow.xcat.count("nodeset", "boot") == 0
