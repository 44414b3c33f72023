"""Simulated loads, captures and power."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import HOME, IMAGE, REVISION, SSH, Hardware, in_process, make_accounts
from vcld import guest, provisioning
from vcld.errors import (
    Blame,
    FatalProvisioningError,
    ImageNotFoundError,
    LoadTimeoutError,
    ProvisioningError,
    UnsupportedOperationError,
    WorkerStopped,
)
from vcld.guest.simulated_world import StoredImage
from vcld.guest.simulator import SimulatorGuest
from vcld.provisioning.interface import LoadStatus, PowerAction, PowerState
from vcld.provisioning.simulator import FLOWS, SimulatorProvisioner

SEED_ROWS = Path(__file__).parents[1] / "data" / "vcl-seed-rows.json"
LOAD_STEPS = [name for name, _ in FLOWS["virtualmachine"]] + ["guest:post-load"]
CAPTURE_STEPS = ["capture-prepare", "guest:pre-capture", "capture", "capture-store"]


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(tmp_path).says()


def status(hardware: Hardware, **facts: Any) -> LoadStatus:
    return hardware.provisioner(**facts).node_status().status


def test_plugins_are_found_by_their_module_names(hardware: Hardware) -> None:
    assert guest.GUESTS["os_simulator"].endswith(f":{SimulatorGuest.__name__}")
    assert provisioning.PROVISIONERS["provisioning_simulator"].endswith(
        f":{SimulatorProvisioner.__name__}"
    )


def test_loaded_computer_holds_the_revision_and_is_ready_once_tagged(hardware: Hardware) -> None:
    provisioner = hardware.provisioner()
    assert provisioner.node_status().status is LoadStatus.RELOAD

    provisioner.load()

    computer = hardware.world.computer("vm1")
    assert (computer.power, computer.imagerevision_id, computer.loads) == ("on", REVISION, 1)
    assert provisioner.node_status().status is LoadStatus.POST_LOAD
    provisioner.guest.tag_post_load()
    assert provisioner.node_status().status is LoadStatus.READY


def test_tainted_or_other_or_silent_computer_must_be_reloaded(hardware: Hardware) -> None:
    hardware.loaded()
    hardware.guest().tag_tainted("a user may have logged in")
    assert status(hardware) is LoadStatus.RELOAD

    hardware.loaded()
    with hardware.world.change("vm1") as computer:
        computer.imagerevision_id = REVISION + 1
    assert status(hardware) is LoadStatus.RELOAD

    hardware.loaded()
    hardware.world.set_reachable("vm1", reachable=False)
    assert status(hardware) is LoadStatus.RELOAD


@pytest.mark.parametrize("kind", ["virtualmachine", "blade"])
def test_load_tells_the_phases_of_the_flow_in_order_and_nothing_else(
    hardware: Hardware, kind: str
) -> None:
    rows = json.loads(SEED_ROWS.read_text())["computerloadflow"]
    flow = [row["state"] for row in rows if row["type"] == kind]
    phases = flow[flow.index("copyfrompartnerMN") + 1 : flow.index("loadimagecomplete")]

    hardware.provisioner(kind=kind).load()

    assert [name for name, _ in hardware.told] == phases


def test_phase_is_told_as_it_begins(hardware: Hardware) -> None:
    hardware.says(rules=[{"step": "startvm", "error": "LoadTimeoutError", "message": "no boot"}])

    with pytest.raises(LoadTimeoutError):
        hardware.provisioner().load()

    assert hardware.told[-1][0] == "startvm"


def test_long_copy_is_told_of_in_percent_under_the_same_phase(hardware: Hardware) -> None:
    hardware.says(delays={"transfervm": 1.01})

    hardware.provisioner().load()

    copying = [text for name, text in hardware.told if name == "transfervm"]
    assert [text.rpartition(", ")[2] for text in copying[1:]] == ["25 %", "50 %", "75 %"]
    assert {name for name, _ in hardware.told} == {name for name, _ in FLOWS["virtualmachine"]}


def test_load_begins_by_taking_the_old_system_and_its_users_away(hardware: Hardware) -> None:
    hardware.loaded()
    hardware.guest().grant_access([SSH])
    hardware.says(rules=[{"step": "startload", "error": "LoadTimeoutError"}])

    with pytest.raises(LoadTimeoutError):
        hardware.provisioner().load()

    computer = hardware.world.computer("vm1")
    assert computer.imagerevision_id is None
    assert (computer.accounts, computer.open_to, computer.power) == ([], None, "off")
    assert computer.loads == 1


@pytest.mark.parametrize("step", LOAD_STEPS)
def test_load_killed_at_any_step_leaves_no_computer_that_seems_ready(
    hardware: Hardware, step: str
) -> None:
    hardware.loaded()
    hardware.says(rules=[{"step": step, "times": 1, "signal": "KILL"}])

    assert in_process(hardware.provisioner().load) == -signal.SIGKILL

    killed = hardware.world.computer("vm1")
    whole = step == "guest:post-load"
    assert killed.imagerevision_id == (REVISION if whole else None)
    assert not killed.post_load
    assert status(hardware) is (LoadStatus.POST_LOAD if whole else LoadStatus.RELOAD)
    hardware.loaded()
    assert status(hardware) is LoadStatus.READY


def test_cancelled_load_stops_at_once_and_the_computer_holds_nothing(hardware: Hardware) -> None:
    hardware.loaded()
    hardware.says(delays={"startvm": 3600})

    def cancel(name: str) -> None:
        if name == "startvm":
            hardware.cancellation.stop("the request was deleted")

    hardware.on_progress = cancel
    with pytest.raises(WorkerStopped):
        hardware.provisioner().load()

    assert hardware.world.computer("vm1").imagerevision_id is None


def test_second_load_of_the_same_computer_makes_the_first_give_way(hardware: Hardware) -> None:
    # Two owners are somebody's bug: the slower one must not claim a disk that is not its own.
    other = Hardware(hardware.folder)

    def load_too(name: str) -> None:
        if name == "startvm":
            other.provisioner().load()

    hardware.on_progress = load_too

    with pytest.raises(ProvisioningError, match="at the same time") as caught:
        hardware.provisioner().load()

    assert caught.value.blame is Blame.NOBODY
    assert hardware.world.computer("vm1").loads == 1


def test_lab_computer_is_loaded_without_phases_and_unknown_types_are_refused(
    hardware: Hardware,
) -> None:
    hardware.provisioner(kind="lab").load()
    assert hardware.told == []
    assert hardware.world.computer("vm1.example.edu").loads == 1

    with pytest.raises(UnsupportedOperationError):
        hardware.provisioner(kind="toaster").load()


def test_public_address_that_is_found_out_is_returned(hardware: Hardware) -> None:
    assert hardware.provisioner().load() is None
    assert hardware.world.computer("vm1").public_ip == "198.51.100.5"

    hardware.says(addresses={"vm*": "198.51.100.200"})

    assert hardware.provisioner().load() == "198.51.100.200"
    assert hardware.world.computer("vm1").public_ip == "198.51.100.200"


def test_every_image_is_there_unless_it_is_said_to_be_missing(hardware: Hardware) -> None:
    assert hardware.provisioner().image_exists()

    hardware.says(missing_images=[IMAGE])

    assert not hardware.provisioner().image_exists()
    with pytest.raises(ImageNotFoundError):
        hardware.provisioner().load()
    with pytest.raises(ImageNotFoundError):
        hardware.provisioner().image_size_mib()


def test_missing_image_can_be_fetched_only_if_a_partner_has_it(hardware: Hardware) -> None:
    hardware.says(missing_images=[IMAGE])
    with pytest.raises(ImageNotFoundError, match="no partner"):
        hardware.provisioner().retrieve_image()

    hardware.says(partner_images=[IMAGE], image_sizes_mib={IMAGE: 700})
    for _ in range(2):
        hardware.provisioner().retrieve_image()

    assert hardware.provisioner().image_exists()
    assert hardware.provisioner().image_size_mib() == 700


def test_captured_image_is_the_computers_disk_and_the_disk_stays(hardware: Hardware) -> None:
    hardware.loaded()
    hardware.says(image_sizes_mib={IMAGE: 900})
    disk = hardware.world.computer("vm1").disk
    provisioner = hardware.provisioner(state="image")
    assert not provisioner.image_exists()

    provisioner.capture(keep_running=False)

    computer = hardware.world.computer("vm1")
    assert hardware.world.images() == {IMAGE: StoredImage(size_mib=900, disk=disk)}
    assert provisioner.image_exists()
    assert provisioner.image_size_mib() == 900
    assert (computer.disk, computer.power, computer.accounts) == (disk, "off", [])


def test_checkpoint_leaves_a_computer_that_goes_on_after_power_and_post_load(
    hardware: Hardware,
) -> None:
    hardware.loaded()
    provisioner = hardware.provisioner(state="checkpoint")

    provisioner.capture(keep_running=True)
    provisioner.power(PowerAction.ON)
    provisioner.guest.post_load()
    provisioner.guest.tag_post_load()
    provisioner.guest.reserve(make_accounts())
    provisioner.guest.grant_access([SSH])

    assert provisioner.guest.find_connection(HOME, [SSH]) is not None
    assert provisioner.node_status().status is LoadStatus.READY


def test_capture_never_overwrites_an_image(hardware: Hardware) -> None:
    hardware.loaded()
    before = StoredImage(size_mib=1, disk="precious")
    hardware.world.add_image(IMAGE, before)

    with pytest.raises(FatalProvisioningError, match=f"image {IMAGE} exists") as caught:
        hardware.provisioner(state="image").capture(keep_running=False)

    assert caught.value.blame is Blame.IMAGE
    assert hardware.world.images() == {IMAGE: before}
    assert hardware.world.computer("vm1").accounts == ["mmuster"], "nothing was begun"


@pytest.mark.parametrize("step", CAPTURE_STEPS)
def test_capture_killed_at_any_step_harms_no_disk_and_leaves_no_image(
    hardware: Hardware, step: str
) -> None:
    hardware.loaded()
    disk = hardware.world.computer("vm1").disk
    hardware.says(rules=[{"step": step, "times": 1, "signal": "KILL"}])

    def capture() -> None:
        hardware.provisioner(state="image").capture(keep_running=False)

    assert in_process(capture) == -signal.SIGKILL

    assert hardware.world.computer("vm1").disk == disk
    assert hardware.world.images() == {}
    capture()
    assert hardware.world.images()[IMAGE].disk == disk


def test_capture_is_stored_under_the_name_that_it_must_have(hardware: Hardware) -> None:
    hardware.loaded()
    hardware.says(capture_as={IMAGE: "renamed-v1"})
    provisioner = hardware.provisioner(state="image")
    assert provisioner.check_image_os() == "renamed-v1"

    provisioner.capture(keep_running=False)

    assert list(hardware.world.images()) == ["renamed-v1"]


def test_power_is_switched_and_being_so_already_is_success(hardware: Hardware) -> None:
    hardware.loaded()
    guest_ = hardware.guest()
    guest_.grant_access([SSH])
    guest_.find_connection(HOME, [SSH])
    provisioner = hardware.provisioner()

    provisioner.power(PowerAction.ON)
    assert hardware.world.computer("vm1").connected, "a running computer was not disturbed"
    provisioner.power(PowerAction.RESET)
    assert provisioner.power_status() is PowerState.ON
    assert not hardware.world.computer("vm1").connected
    for _ in range(2):
        provisioner.power(PowerAction.OFF)
        assert provisioner.power_status() is PowerState.OFF
    hardware.world.set_power("vm1", "suspended")
    assert provisioner.power_status() is PowerState.SUSPENDED


def test_unload_and_maintenance_remove_what_is_loaded(hardware: Hardware) -> None:
    hardware.loaded()
    hardware.provisioner().unload()
    assert hardware.world.computer("vm1").imagerevision_id is None

    hardware.loaded()
    assert hardware.provisioner().post_maintenance()
    assert hardware.world.computer("vm1").imagerevision_id is None


def test_maintenance_leaves_what_is_on_a_blade(hardware: Hardware) -> None:
    provisioner = hardware.provisioner(kind="blade")
    provisioner.load()

    assert not provisioner.post_maintenance()

    assert hardware.world.computer("vm1").imagerevision_id == REVISION


@pytest.mark.parametrize(
    ("step", "ask"),
    [
        ("image-exists", lambda p: p.image_exists()),
        ("image-size", lambda p: p.image_size_mib()),
        ("retrieve", lambda p: p.retrieve_image()),
        ("power-on", lambda p: p.power(PowerAction.ON)),
        ("power-off", lambda p: p.power(PowerAction.OFF)),
        ("power-reset", lambda p: p.power(PowerAction.RESET)),
        ("power-status", lambda p: p.power_status()),
        ("unload", lambda p: p.unload()),
        ("post-maintenance", lambda p: p.post_maintenance()),
        ("capture-finish", lambda p: p.capture(keep_running=False)),
    ],
)
def test_each_operation_has_a_step_at_which_it_can_fail(
    hardware: Hardware, step: str, ask: Any
) -> None:
    hardware.loaded()
    hardware.says(rules=[{"step": step, "error": "LoadTimeoutError", "message": "stuck"}])

    with pytest.raises(LoadTimeoutError, match="stuck"):
        ask(hardware.provisioner(state="image"))
