"""The files that simulated computers and images live in."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from tests.simulated import ELSEWHERE, HOME, LOGIN, SSH, Hardware, in_process
from vcld.errors import ConfigError
from vcld.guest.simulated_world import StoredImage, World


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(tmp_path).says()


def test_untouched_computer_is_off_and_empty(hardware: Hardware) -> None:
    computer = hardware.world.computer("vm1")

    assert (computer.power, computer.imagerevision_id, computer.accounts) == ("off", None, [])


def test_change_is_seen_by_other_processes(hardware: Hardware) -> None:
    assert in_process(lambda: hardware.world.set_power("vm1", "on")) == 0

    assert hardware.world.computer("vm1").power == "on"


def test_no_change_is_lost_between_processes(hardware: Hardware) -> None:
    def count() -> None:
        for _ in range(100):
            with hardware.world.change("vm1") as computer:
                computer.loads += 1

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert hardware.world.computer("vm1").loads == 200


def test_reader_never_sees_half_a_change(hardware: Hardware) -> None:
    def write() -> None:
        for number in range(200):
            with hardware.world.change("vm1") as computer:
                computer.disk = computer.tainted = str(number) * 50

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    while process.is_alive():
        computer = hardware.world.computer("vm1")
        assert computer.disk == computer.tainted
    assert process.exitcode == 0


def test_process_killed_in_a_change_leaves_the_computer_as_it_was_and_no_lock(
    hardware: Hardware,
) -> None:
    hardware.world.set_power("vm1", "on")

    def die() -> None:
        with hardware.world.change("vm1") as computer:
            computer.power = "off"
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_process(die) == -signal.SIGKILL

    assert hardware.world.computer("vm1").power == "on"
    hardware.world.set_power("vm1", "suspended")
    assert hardware.world.computer("vm1").power == "suspended"


def test_change_that_raises_is_not_written(hardware: Hardware) -> None:
    def fail() -> None:
        with hardware.world.change("vm1") as computer:
            computer.power = "on"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert hardware.world.computer("vm1").power == "off"


def test_names_never_leave_the_folder_nor_meet(hardware: Hardware) -> None:
    for number, name in enumerate(("../vm1", "vm1", "vm/1", "vm1.lock", "vm1.example.edu")):
        with hardware.world.change(name) as computer:
            computer.loads = number + 1

    assert hardware.world.computer("../vm1").loads == 1
    assert hardware.world.computer("vm1").loads == 2
    assert hardware.world.computer("vm/1").loads == 3
    assert hardware.world.computer("vm1.lock").loads == 4
    assert [entry.name for entry in hardware.folder.iterdir() if "vm" in entry.name] == []


def test_broken_file_is_named(hardware: Hardware) -> None:
    hardware.world.set_power("vm1", "on")
    file = hardware.folder / "simulator" / "computer-vm1.json"
    file.write_text("{")

    with pytest.raises(ConfigError, match=f"{file} is not a document"):
        hardware.world.computer("vm1")


def test_file_with_facts_that_nobody_knows_any_more_is_read(hardware: Hardware) -> None:
    hardware.world.set_power("vm1", "on")
    file = hardware.folder / "simulator" / "computer-vm1.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "former": 1}))

    assert hardware.world.computer("vm1").power == "on"


def test_folder_is_private(hardware: Hardware) -> None:
    hardware.world.set_power("vm1", "on")

    assert stat.S_IMODE((hardware.folder / "simulator").stat().st_mode) == 0o700


def test_default_folder_that_others_could_have_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"vcld-simulator-{os.getuid()}"
    World("")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="is not ours alone"):
        World("")

    folder.rename(tmp_path / "aside")
    (tmp_path / "aside").chmod(0o700)
    folder.symlink_to(tmp_path / "aside")
    with pytest.raises(ConfigError, match="is not ours alone"):
        World("")


def test_image_is_added_once(hardware: Hardware) -> None:
    world = hardware.world

    assert world.add_image("one", StoredImage(size_mib=5))
    assert not world.add_image("one", StoredImage(size_mib=6))

    assert {name: image.size_mib for name, image in world.images().items()} == {"one": 5}


def test_test_connects_a_user_only_where_the_firewall_lets_the_user_in(hardware: Hardware) -> None:
    world = hardware.loaded().world
    assert not world.connect_user("vm1", LOGIN, HOME)

    guest = hardware.guest()
    guest.grant_access([SSH])
    assert not world.connect_user("vm1", "stranger", HOME)
    assert world.connect_user("vm1", LOGIN, HOME)

    guest.restrict_access(HOME, [SSH])
    assert not world.connect_user("vm1", LOGIN, ELSEWHERE)
    found = guest.find_connection(None, [SSH])
    assert found is not None
    assert found.remote_ip == HOME


def test_user_that_a_test_disconnected_stays_away_whatever_the_script_says(
    hardware: Hardware,
) -> None:
    guest = hardware.loaded().guest()
    guest.grant_access([SSH])
    assert guest.find_connection(HOME, [SSH]) is not None

    hardware.world.disconnect_user("vm1", LOGIN)

    assert guest.find_connection(HOME, [SSH]) is None
