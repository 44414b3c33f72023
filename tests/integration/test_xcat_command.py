"""``vcld xcat``: what an operator sees of blades."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, Daemons
from tests.site import Site
from tests.xcat_blades import Blades, blades_for


@pytest.fixture
def blades(site: Site, daemons: Daemons, tmp_path: Path) -> Iterator[Blades]:
    with blades_for(site, daemons, tmp_path / "xcat") as made:
        yield made


@pytest.fixture
def vcld(blades: Blades) -> Daemon:
    """The command, with the site's configuration; the daemon does not run."""
    made = blades.daemons.make()
    made.environ["XCATROOT"] = str(blades.xcat.root)
    return made


def test_good_blades_are_told_as_such(blades: Blades, vcld: Daemon) -> None:
    blades.loaded(1)
    done = vcld.command("xcat", "check", "blade1", "blade2")
    assert done.returncode == 0, done.stderr
    assert "all is well" in done.stdout
    done = vcld.command("xcat", "check", "blade1", "--json")
    (found,) = json.loads(done.stdout)["nodes"]
    assert (found["power"], found["nodestat"], found["status"]) == ("on", "sshd", "booted")


def test_every_problem_of_a_blade_is_told_with_its_remedy(blades: Blades, vcld: Daemon) -> None:
    site = blades.site
    blades.node(1).attributes["mac"] = ""
    blades.node(2).attributes["currstate"] = "install rhels8-x86_64-a"
    blades.node(3).bmc_down = True
    site.execute("UPDATE computer SET eth0macaddress = '02:ff:00:00:00:01' WHERE id = 4")
    site.execute("UPDATE computer SET provisioningid = 3 WHERE id = 5")
    blades.xcat.without_dhcp.add("blade6")
    blades.node(7).attributes["currstate"] = "sysclone rhels8-x86_64"
    blades.node(8).is_unresolved = True
    blades.xcat.site["nodestatus"] = "n"
    blades.set(throttle="1e999", command_timeout="0.5", no_progress="ten", capture_method="copy")
    names = [f"blade{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8)]
    done = vcld.command("xcat", "check", *names, "all")
    assert done.returncode == 10
    for text in (
        "xCAT has no MAC address of blade1: chdef -t node -o blade1 mac=ADDRESS",
        "the DHCP server does not know blade6: makedhcp blade6",
        "warning: nodes do not report their status",
        "blade2 would install itself, or run a task, at its next start: nodeset blade2 boot",
        "blade7 would install itself",
        "xCAT finds no address of blade8: makehosts blade8, makedns blade8",
        "warning: variable xcat|throttle: '1e999' counts as not set",
        "warning: variable xcat|command_timeout: '0.5' counts as not set",
        "warning: variable xcat|no_progress: 'ten' counts as not set",
        "warning: variable xcat|capture_method: 'copy' is none of image, sysclone",
        "VCL has no computer 'all'",
        "the controller of blade3 does not answer",
        "xCAT has MAC address 02:00:00:00:00:04 for blade4, VCL has 02:ff:00:00:00:01",
        "VCL does not load blade5 with xCAT",
        "xCAT does not know all",
    ):
        assert text in done.stdout


def test_a_check_without_xcatd_says_so(blades: Blades, vcld: Daemon) -> None:
    blades.xcat.stop()
    done = vcld.command("xcat", "check", "blade1")
    assert done.returncode == 10
    assert "xCAT's daemon does not answer" in done.stdout


def test_a_dry_run_prints_the_commands_and_runs_none(blades: Blades, vcld: Daemon) -> None:
    blades.node().attributes["groups"] = "all,image"
    done = vcld.command("xcat", "dry-run", "blade1", "simulator-first-v1")
    assert done.stdout.splitlines() == [
        "chdef -t node -o blade1 -p groups=compute",
        "chdef -t node -o blade1 -m groups=image",
        "nodeset blade1 osimage=simulator-first-v1",
        "rsetboot blade1 net",
        "rpower blade1 boot",
    ]
    assert {call.command for call in blades.xcat.calls} == {"lsdef"}


def test_a_dry_run_of_an_unknown_image_fails_with_a_line(vcld: Daemon) -> None:
    done = vcld.command("xcat", "dry-run", "blade1", "nothing-v1")
    assert done.returncode == 10
    assert done.stderr == "vcld: there is no image revision named nothing-v1\n"
