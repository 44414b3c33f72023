"""A load of a fake blade, without a daemon: its clock, and how its end is seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_xcat import FakeXcat, Times
from tests.fake_xcat.nodes import Hooks, Node
from tests.xcat_alone import IMAGE, Bench
from vcld.errors import Blame, ProvisioningError, WorkerStopped
from vcld.guest.simulator import SimulatorGuest
from vcld.provisioning.leasing import Turn
from vcld.provisioning.xcat import sharing
from vcld.provisioning.xcat.failures import ImageBrokenError, NodeNeverBootedError
from vcld.provisioning.xcat.load import Load, boot_from_disk_after_failure


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeXcat(tmp_path / "xcat") as xcat:
        for number in range(1, 4):
            xcat.add_node(f"blade{number}")
        xcat.add_osimage(IMAGE)
        made = Bench(xcat, tmp_path)
        made.variables.update(poll="0.1", syslog="none")
        yield made


def load(bench: Bench) -> None:
    """Load blade1, whose guest answers as soon as its image has booted."""
    made = bench.provisioner()
    assert isinstance(made.guest, SimulatorGuest)
    world = made.guest.world

    def up(node: Node, _image: str) -> None:
        with world.change(node.name) as computer:
            computer.set_power("on")
            computer.imagerevision_id = 1

    bench.xcat.nodes["blade1"].hooks = Hooks(up=up)
    Load(made.site, made.guest).run()


@pytest.mark.timeout(60)
def test_limits_run_although_xcat_takes_longer_than_the_pause_between_looks(bench: Bench) -> None:
    """On a real site one ``nodestat`` of dead nodes takes longer than ``xcat|poll``."""
    bench.variables["boot_wait"] = "1.5"
    bench.xcat.nodes["blade1"].dead = True
    bench.xcat.delay = 0.3
    began = time.monotonic()
    with pytest.raises(NodeNeverBootedError):
        load(bench)
    assert time.monotonic() - began < 15


def test_time_without_xcatd_at_the_power_cycle_is_no_time_of_the_blade(bench: Bench) -> None:
    bench.variables["boot_wait"] = "1.5"
    bench.xcat.nodes["blade1"].times = Times(post=0.7)
    bench.xcat.fault("rpower", "cut", argument="boot", times=4)
    load(bench)
    assert bench.xcat.count("rpower", "off") == 0


def test_a_site_that_has_switched_status_reports_off_still_sees_the_end(bench: Bench) -> None:
    """``site.nodestatus=n``: what was reported before stays in the table."""
    node = bench.xcat.nodes["blade1"]
    node.set_status("booted")
    node.set_status = lambda status: None  # type: ignore[method-assign]
    bench.variables["no_progress"] = "5"
    load(bench)
    assert node.installs == 1
    assert bench.told[-1][0] == "machinebooted"


@pytest.mark.parametrize(("mgt", "count"), [("ipmi", 1), ("redfish", 1), ("blade", 0)])
def test_the_network_comes_first_where_the_controller_can_say_so(
    bench: Bench, mgt: str, count: int
) -> None:
    bench.xcat.nodes["blade1"].attributes["mgt"] = mgt
    load(bench)
    assert bench.xcat.count("rsetboot", "net") == count


def test_a_clone_that_is_being_written_is_a_sign_of_life(bench: Bench) -> None:
    """An osimage of ``imgcapture -t sysclone``: xCAT reports nothing until it is written."""
    bench.xcat.add_osimage(IMAGE, provmethod="sysclone", profile="compute")
    bench.xcat.nodes["blade1"].times = Times(install=3)
    bench.variables["boot_wait"] = "1"
    load(bench)
    node = bench.xcat.nodes["blade1"]
    assert (node.starts, node.disk) == (1, IMAGE)
    assert "xcatstage5" in [name for name, _ in bench.told]


def test_a_load_that_is_given_up_is_not_armed_again_by_another_workers_command(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker runs one ``nodeset`` for both blades; meanwhile a request is deleted.

    xCAT does commands side by side: ``nodeset boot`` of the deleted one may be done first, and
    its blade would be installed anew at the next start, under whoever has it then.
    """
    serve, joint = bench.xcat.serve, threading.Event()

    def slow_for_two(command: str, arguments: list[str]) -> bytes:
        if command == "nodeset" and "," in arguments[0]:
            joint.set()
            time.sleep(1.5)
        return serve(command, arguments)

    monkeypatch.setattr(bench.xcat, "serve", slow_for_two)
    monkeypatch.setattr(sharing, "GATHER_SECONDS", 1.0)
    action = f"osimage={IMAGE}"
    leader = threading.Thread(
        target=bench.provisioner().site.changes.set_next_boot, args=("blade1", action)
    )
    deleted = Bench(bench.xcat, bench.folder, variables=bench.variables)
    site = deleted.provisioner(name="blade2").site
    stopped: list[str] = []

    def follow() -> None:
        try:
            with (
                site.leases.take("loads", "a place", Turn()),
                boot_from_disk_after_failure(site, action),
            ):
                site.changes.set_next_boot("blade2", action)
        except WorkerStopped as err:
            stopped.append(err.reason)

    leader.start()
    wait_for(lambda: any((bench.folder / "vcld-xcat").glob("nodeset*.lease")))
    follower = threading.Thread(target=follow)
    follower.start()
    assert joint.wait(10)
    deleted.cancellation.stop("the request was deleted")
    follower.join()
    leader.join()
    assert stopped == ["the request was deleted"]
    states = [bench.xcat.nodes[name].currstate for name in ("blade1", "blade2")]
    assert states == [f"install rhels8-x86_64-{IMAGE}", "boot"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


# --- whose fault it is that nodeset does not do its work


@pytest.mark.parametrize(
    ("text", "is_nodes"),
    [
        ("Unable to find template file: /install/custom/x.tmpl", True),
        ("Install image not found in /install/rhels8/x86_64", False),
        ('Did you run "genimage" before running "packimage"? kernel cannot be found', False),
        ("The os image simulator-first-v1 does not exists on the osimage table for blade1", False),
    ],
)
def test_an_image_that_xcat_cannot_prepare_is_at_fault_itself(
    bench: Bench, text: str, is_nodes: bool
) -> None:
    """Issues 2846 and 4345 of xCAT, and its anaconda.pm."""
    bench.xcat.fault("nodeset", "error" if is_nodes else "refuse", text=text)
    with pytest.raises(ImageBrokenError) as found:
        load(bench)
    assert found.value.blame is Blame.IMAGE
    assert text in str(found.value)
    assert bench.xcat.nodes["blade1"].starts == 0


def test_a_dhcp_server_that_does_not_run_is_no_blades_fault(bench: Bench) -> None:
    """The nodes' lines come nonetheless, but no node would start from the network."""
    bench.xcat.is_dhcp_down = True
    with pytest.raises(ProvisioningError, match="dhcp server is not running") as found:
        load(bench)
    assert found.value.blame is Blame.MANAGEMENT_NODE
    assert bench.xcat.nodes["blade1"].starts == 0


def test_a_blade_for_which_xcat_prepares_no_start_is_not_started(bench: Bench) -> None:
    bench.xcat.nodes["blade1"].is_unresolved = True
    with pytest.raises(ProvisioningError, match="blade1 can not be resolved"):
        load(bench)
    assert bench.xcat.nodes["blade1"].starts == 0


def test_files_of_a_captured_image_need_an_xcat_that_loads_them(bench: Bench) -> None:
    del bench.xcat.osimages[IMAGE]
    (bench.xcat.images / f"{IMAGE}.img").touch()
    with pytest.raises(ImageBrokenError, match="have been deprecated"):
        load(bench)
    assert bench.xcat.count("nodeset", "install") == 1
