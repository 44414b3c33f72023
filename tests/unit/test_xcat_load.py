"""A load of a fake blade, without a daemon: its clock, and how its end is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_xcat import FakeXcat, Times
from tests.fake_xcat.nodes import Hooks, Node
from tests.xcat_alone import IMAGE, Bench
from vcld.guest.simulator import SimulatorGuest
from vcld.provisioning.xcat.failures import NodeNeverBootedError
from vcld.provisioning.xcat.load import Load


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
