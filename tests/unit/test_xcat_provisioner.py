"""The xCAT provisioner's contract, on the fake xCAT, without a daemon."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_xcat import FakeXcat
from tests.xcat_alone import IMAGE, Bench
from vcld.errors import Blame, FatalProvisioningError, ImageNotFoundError, LoadTimeoutError
from vcld.provisioning.interface import PowerAction, PowerState
from vcld.provisioning.xcat import capture, plan
from vcld.provisioning.xcat.failures import (
    BmcUnreachableError,
    ImageBrokenError,
    NodeUndefinedError,
    XcatRefusedError,
    XcatUnavailableError,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeXcat(tmp_path / "xcat") as xcat:
        for number in range(1, 5):
            xcat.add_node(f"blade{number}")
        yield Bench(xcat, tmp_path)


# --- power


def test_power_is_switched_and_seen(bench: Bench) -> None:
    made = bench.provisioner()
    for action, state in (
        (PowerAction.ON, "on"),
        (PowerAction.RESET, "on"),
        (PowerAction.OFF, "off"),
    ):
        made.power(action)
        assert bench.xcat.nodes["blade1"].power == state
        assert made.power_status() is PowerState(state)


def test_being_in_the_wanted_state_is_success_without_a_command(bench: Bench) -> None:
    bench.provisioner().power(PowerAction.OFF)
    assert bench.xcat.count("rpower", "off") == 0


def test_removing_what_is_gone_is_success(bench: Bench) -> None:
    """Fault 50."""
    bench.provisioner().unload()
    bench.provisioner(name="blade99").unload()


def test_a_blade_that_does_not_go_off_is_told_after_two_commands(bench: Bench) -> None:
    """Fault 52: it is an error, so the blade is reloaded or failed, and not forgotten."""
    bench.variables["power_wait"] = "0.3"
    made = bench.provisioner()
    made.power(PowerAction.ON)
    bench.xcat.nodes["blade1"].stays_on = True
    with pytest.raises(
        LoadTimeoutError, match="blade1 is not off: rpower off was accepted 2 times"
    ):
        made.unload()
    assert bench.xcat.count("rpower", "off") == 2


def test_timeouts_and_other_errors_are_counted_apart(bench: Bench) -> None:
    """Fault 51: four timeouts and two errors are below both limits."""
    bench.xcat.fault("rpower", "error", argument="on", text="ERROR: timeout", times=4)
    bench.xcat.fault("rpower", "error", argument="on", text="Invalid session", times=2)
    bench.provisioner().power(PowerAction.ON)
    assert bench.xcat.count("rpower", "on") == 7


@pytest.mark.parametrize(
    ("text", "count", "error"),
    [("Invalid session", 3, XcatRefusedError), ("ERROR: timeout", 5, BmcUnreachableError)],
)
def test_each_limit_ends_the_repetitions(
    bench: Bench, text: str, count: int, error: type[Exception]
) -> None:
    bench.xcat.fault("rpower", "error", argument="on", text=text)
    with pytest.raises(error, match="blade1"):
        bench.provisioner().power(PowerAction.ON)
    assert bench.xcat.count("rpower", "on") == count


def test_what_no_repetition_mends_is_not_repeated(bench: Bench) -> None:
    made = bench.provisioner()
    with pytest.raises(ImageBrokenError, match="Cannot find the OS image"):
        made.site.changes.set_next_boot("blade1", "osimage=nothing")
    assert bench.xcat.count("nodeset") == 1


def test_a_task_of_any_length_is_set(bench: Bench) -> None:
    task = f"runimage=http://mn/{'x' * 300}.tgz"
    bench.provisioner().site.changes.set_next_boot("blade1", task)
    assert bench.xcat.nodes["blade1"].currstate == task


@pytest.mark.parametrize("mgt", ["ipmi", "openbmc"])
def test_controllers_that_are_silent_all_at_once_are_not_at_fault(bench: Bench, mgt: str) -> None:
    for name, node in bench.xcat.nodes.items():
        node.attributes["mgt"] = mgt
        bench.provisioner(name=name).site.facts.definition()
        node.bmc_down = True
    for ask in (bench.provisioner().power_status, bench.provisioner().unload):
        with pytest.raises(XcatUnavailableError, match="is the management network down"):
            ask()
    bench.xcat.nodes["blade3"].bmc_down = False
    with pytest.raises(BmcUnreachableError, match="the controller of blade1 does not answer"):
        bench.provisioner().power_status()


def test_controllers_that_refuse_all_at_once_are_not_at_fault(bench: Bench) -> None:
    """Their password was changed, and xCAT was not told."""
    for name in bench.xcat.nodes:
        bench.provisioner(name=name).site.facts.definition()
    text = "[401] Login to BMC failed: Invalid username or password."
    refusal = bench.xcat.fault("rpower", "error", text=text)
    with pytest.raises(XcatUnavailableError, match="Invalid username or password") as found:
        bench.provisioner().power_status()
    assert found.value.blame is Blame.NOBODY
    refusal.node = "blade1"
    with pytest.raises(XcatRefusedError, match="failed 3 times"):
        bench.provisioner().power_status()


def test_a_client_of_xcats_that_does_not_run_is_told_in_its_own_words(bench: Bench) -> None:
    path = bench.xcat.root / "bin/lsdef"
    path.write_text('#!/bin/sh\necho "Can\'t locate xCAT/Client.pm in @INC" >&2; exit 2\n')
    with pytest.raises(XcatUnavailableError, match=r"lsdef .* with code 2: Can't locate xCAT"):
        bench.provisioner().site.facts.definition()


def test_why_xcats_daemon_does_not_answer_is_told(bench: Bench) -> None:
    path = bench.xcat.root / "bin/lsdef"
    path.write_text(
        "#!/bin/sh\necho Unable to open socket connection to xcatd daemon on localhost:3001.\n"
        "echo Connection failure: SSL connect attempt failed: certificate has expired >&2; exit 1\n"
    )
    with pytest.raises(XcatUnavailableError, match="certificate has expired"):
        bench.provisioner().site.facts.definition()


@pytest.mark.parametrize("name", ["-t", "a,b", "a b", "a;reboot", "@group", "a/b", "nöde"])
def test_a_name_that_is_more_than_a_node_to_xcat_is_refused(bench: Bench, name: str) -> None:
    with pytest.raises(NodeUndefinedError):
        bench.provisioner(name=name).power(PowerAction.ON)
    assert bench.xcat.calls == []


# --- images


def test_a_captured_image_is_its_files(bench: Bench) -> None:
    made = bench.provisioner()
    assert not made.image_exists()
    (bench.xcat.images / f"{IMAGE}-sda1.gz").write_bytes(b"x" * 3 * 2**20)
    (bench.xcat.images / f"{IMAGE}.sfdisk").write_bytes(b"x")
    (bench.xcat.images / "simulator-first-v10.img").write_bytes(b"x" * 2**24)
    assert bench.provisioner().image_exists()
    assert made.image_size_mib() == 4


def test_an_image_that_is_being_written_is_none(bench: Bench) -> None:
    """Fault 54."""
    (bench.xcat.images / f"{IMAGE}.img").write_bytes(b"x" * 2**20)
    (bench.xcat.images / f".{IMAGE}.vcld-partial").touch()
    made = bench.provisioner()
    assert not made.image_exists()
    with pytest.raises(ImageNotFoundError):
        made.image_size_mib()


def test_a_capture_on_a_server_that_lets_nobody_change_modes_is_an_image(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be mounted with root_squash, and the files be the blade's."""
    site = bench.provisioner().site

    def refuse(*_: object, **_facts: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with capture._written(site, IMAGE) as folder:
        (folder / f"{IMAGE}.img").write_bytes(b"disk")
        assert not bench.provisioner().image_exists()
        monkeypatch.setattr(Path, "chmod", refuse)
    assert bench.provisioner().image_exists()


def test_a_capture_whose_remains_cannot_be_removed_fails_with_its_own_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **_facts: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with (  # noqa: PT012 - the block is what fails
        pytest.raises(FatalProvisioningError, match="its console"),
        capture._written(bench.provisioner().site, IMAGE) as folder,
    ):
        (folder / f"{IMAGE}.img").write_bytes(b"disk")
        monkeypatch.setattr(Path, "unlink", refuse)
        raise FatalProvisioningError("see its console")


@pytest.mark.parametrize("name", ["../x", "a b", "a;b", "-x", "a\n", "$(a)", ""])
def test_a_name_that_is_no_image_is_refused(bench: Bench, name: str) -> None:
    with pytest.raises(FatalProvisioningError):
        bench.provisioner(image=name).image_exists(name)


def test_captured_files_are_loaded_in_the_older_form(bench: Bench) -> None:
    (bench.xcat.images / f"{IMAGE}.img").touch()
    made = plan.make_plan(bench.provisioner().site)
    assert made is not None
    assert (made.action, made.attributes["os"], made.group) == ("install", "image", "compute")


@pytest.fixture
def kickstart(bench: Bench) -> Bench:
    install, root = bench.xcat.root / "install", bench.xcat.root
    for name in ("rhels6.2", "rhels6.10", "rhels7.9"):
        (install / name / "x86_64").mkdir(parents=True)
    templates = root / "share/xcat/install/rh"
    templates.mkdir(parents=True)
    (templates / "rhel6.tmpl").touch()
    (templates / "default.tmpl").touch()
    return bench


KICKSTART = {"os_name": "rhel6", "os_installtype": "kickstart", "os_sourcepath": None}


def test_a_kickstart_image_takes_the_highest_minor_version_and_its_template(
    kickstart: Bench,
) -> None:
    made = plan.make_plan(kickstart.provisioner(image="rhel6-base9-v0", **KICKSTART).site)
    assert made is not None
    assert made.action == "osimage=rhel6-base9-v0"
    assert made.osimage["osvers"] == "rhels6.10"
    assert made.osimage["template"].endswith("/install/rh/rhel6.tmpl")
    assert made.osimage["pkgdir"].endswith("/install/rhels6.10/x86_64")


def test_the_sites_own_template_goes_before_xcats(kickstart: Bench) -> None:
    own = kickstart.xcat.root / "install/custom/install/rh/rhel6.tmpl"
    own.parent.mkdir(parents=True)
    own.touch()
    made = plan.make_plan(kickstart.provisioner(image="rhel6-base9-v0", **KICKSTART).site)
    assert made is not None
    assert made.osimage["template"] == str(own)


def test_a_kickstart_image_is_installed_by_an_osimage_of_its_own(kickstart: Bench) -> None:
    made = kickstart.provisioner(image="rhel6-base9-v0", **KICKSTART)
    loaded = plan.make_plan(made.site)
    assert loaded is not None
    plan.apply_definition(made.site, loaded, made.site.facts.definition_now())
    assert kickstart.xcat.osimages["rhel6-base9-v0"]["provmethod"] == "install"
    # Another worker may have found it missing at the same moment.
    plan.apply_definition(made.site, loaded, made.site.facts.definition_now())


def test_a_question_changes_nothing(kickstart: Bench) -> None:
    made = kickstart.provisioner(image="rhel6-base9-v0", **KICKSTART)
    assert made.image_exists()
    assert {call.command for call in kickstart.xcat.calls} == {"lsdef"}


def test_a_captured_kickstart_system_gets_the_name_of_its_image_os(kickstart: Bench) -> None:
    made = kickstart.provisioner(image="rhel6-base9-v1", state="image", **KICKSTART)
    assert made.check_image_os() == "rh6image-base9-v1"
    assert not made.image_exists("rh6image-base9-v1")
    other = {**KICKSTART, "os_name": "centos7"}
    made = kickstart.provisioner(image="centos7-a1-v1", **other)
    assert made.check_image_os() == "centos7image-a1-v1"
    assert kickstart.provisioner().check_image_os() is None
