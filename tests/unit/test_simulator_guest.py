"""Simulated accounts, access and users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.samples import make_user
from tests.simulated import ELSEWHERE, HOME, LOGIN, SSH, Hardware, make_accounts
from vcld.errors import Blame, RemoteError
from vcld.guest.interface import EndState, Guest
from vcld.snapshot import Account, Sibling


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(tmp_path).says().loaded()


def make_open(hardware: Hardware, **script: Any) -> Guest:
    """The guest of a computer whose user may connect; the script is as given."""
    guest = hardware.says(**script).guest()
    guest.grant_access([SSH])
    return guest


def granted_ago(hardware: Hardware, seconds: float) -> None:
    with hardware.world.change("vm1") as computer:
        computer.opened_at -= seconds


def test_accounts_are_recorded_with_their_rights_and_without_the_password(
    hardware: Hardware,
) -> None:
    account = hardware.world.computer("vm1").users[LOGIN]

    assert (account.uid, account.root_access, account.public_keys) == (521, True, False)
    assert account.accepts("first-pw")
    assert not account.accepts("other-pw")
    written = (hardware.folder / "simulator" / "computer-vm1.json").read_text()
    assert LOGIN in written
    assert "first-pw" not in written


def test_account_without_a_password_accepts_none(hardware: Hardware) -> None:
    hardware.guest().sync_accounts(make_accounts(password=None))

    assert not hardware.world.computer("vm1").users[LOGIN].accepts("")


def test_sync_makes_the_accounts_exactly_these(hardware: Hardware) -> None:
    guest = hardware.guest()
    other = Account(user=make_user(id=22, unityid="other@x"), root_access=False, password="pw-2")

    guest.sync_accounts([*make_accounts(), other])
    before = hardware.world.computer("vm1").users
    assert sorted(before) == [LOGIN, "other"]

    guest.sync_accounts([*make_accounts(password="new-pw"), other])
    after = hardware.world.computer("vm1").users
    assert after[LOGIN].accepts("new-pw")
    assert after["other"] == before["other"], "what was right already stays as it is"

    guest.sync_accounts([other])
    assert hardware.world.computer("vm1").accounts == ["other"]


def test_user_whose_account_goes_is_cut_off(hardware: Hardware) -> None:
    guest = make_open(hardware)
    guest.find_connection(HOME, [SSH])

    guest.sync_accounts([])

    assert guest.find_connection(HOME, [SSH]) is None


def test_nobody_connects_before_access_is_granted(hardware: Hardware) -> None:
    guest = hardware.guest()
    assert guest.find_connection(HOME, [SSH]) is None

    guest.grant_access([SSH])

    found = guest.find_connection(HOME, [SSH])
    assert found is not None
    assert found.remote_ip == HOME


def test_nobody_connects_through_methods_that_open_no_port(hardware: Hardware) -> None:
    guest = hardware.guest()
    guest.grant_access([replace(SSH, disabled=True)])

    assert guest.find_connection(HOME, [SSH]) is None
    assert hardware.world.computer("vm1").open_ports == []


def test_user_connects_as_long_after_the_grant_as_the_script_says(hardware: Hardware) -> None:
    guest = make_open(hardware, users=[{"computer": "vm*", "connects_after": 100}])
    assert guest.find_connection(HOME, [SSH]) is None

    granted_ago(hardware, 100)

    assert guest.find_connection(HOME, [SSH]) is not None


def test_repeated_grant_does_not_begin_the_users_time_anew(hardware: Hardware) -> None:
    guest = make_open(hardware, users=[{"connects_after": 100}])
    granted_ago(hardware, 100)

    guest.grant_access([SSH])

    assert guest.find_connection(HOME, [SSH]) is not None


def test_user_leaves_when_the_script_says(hardware: Hardware) -> None:
    guest = make_open(hardware, users=[{"leaves_after": 100}])
    assert guest.find_connection(HOME, [SSH]) is not None

    granted_ago(hardware, 100)

    assert guest.find_connection(HOME, [SSH]) is None


@pytest.mark.parametrize(
    ("who", "comes"),
    [
        ({}, False),
        ({"user": "mm*"}, False),
        ({"user": "somebody"}, True),
        ({"request": 77}, False),
        ({"request": 78}, True),
        ({"computer": "vm2"}, True),
    ],
)
def test_user_who_never_connects_is_named_by_computer_request_or_login(
    hardware: Hardware, who: dict[str, Any], comes: bool
) -> None:
    guest = make_open(hardware, users=[{**who, "connects_after": "never"}])

    assert (guest.find_connection(HOME, [SSH]) is not None) is comes


def test_user_from_another_address_is_found_there_while_anybody_may_connect(
    hardware: Hardware,
) -> None:
    guest = make_open(hardware, users=[{"address": ELSEWHERE}])

    found = guest.find_connection(HOME, [SSH])

    assert found is not None
    assert found.remote_ip == ELSEWHERE


def test_address_that_is_not_let_in_cannot_connect_and_is_cut_off(hardware: Hardware) -> None:
    guest = make_open(hardware, users=[{"address": ELSEWHERE}])
    assert guest.find_connection(HOME, [SSH]) is not None

    guest.restrict_access(HOME, [SSH])

    assert hardware.world.computer("vm1").connected == {}
    assert guest.find_connection(HOME, [SSH]) is None
    assert hardware.world.computer("vm1").open_to == HOME
    assert hardware.world.computer("vm1").open_ports == ["TCP:22"]


def test_user_of_whom_no_address_is_known_is_not_found(hardware: Hardware) -> None:
    assert make_open(hardware).find_connection(None, [SSH]) is None


def test_sanitize_removes_accounts_and_access(hardware: Hardware) -> None:
    guest = make_open(hardware)

    guest.sanitize(make_accounts())

    computer = hardware.world.computer("vm1")
    assert (computer.accounts, computer.open_to, computer.open_ports) == ([], None, [])
    guest.sanitize(make_accounts())


def test_sanitize_refuses_while_a_user_is_connected_and_blames_nobody(hardware: Hardware) -> None:
    guest = make_open(hardware)
    guest.find_connection(HOME, [SSH])

    with pytest.raises(RemoteError, match="connected") as caught:
        guest.sanitize(make_accounts())

    assert caught.value.blame is Blame.NOBODY
    assert hardware.world.computer("vm1").accounts == [LOGIN]
    hardware.world.disconnect_user("vm1", LOGIN)
    guest.sanitize(make_accounts())
    assert hardware.world.computer("vm1").accounts == []


def test_sanitize_does_not_wait_for_a_user_who_has_left_meanwhile(hardware: Hardware) -> None:
    guest = make_open(hardware, users=[{"leaves_after": 100}])
    guest.find_connection(HOME, [SSH])
    granted_ago(hardware, 100)

    guest.sanitize(make_accounts())


def test_reasons_of_a_taint_are_collected(hardware: Hardware) -> None:
    guest = hardware.guest()

    for reason in ("scripts ran", "a user came", "scripts ran"):
        guest.tag_tainted(reason)

    assert guest.tags().tainted == "scripts ran,a user came"


def test_reboot_ends_connections_and_keeps_accounts_and_disk(hardware: Hardware) -> None:
    guest = make_open(hardware)
    guest.find_connection(HOME, [SSH])
    before = hardware.world.computer("vm1")

    guest.reboot(hard=False)

    after = hardware.world.computer("vm1")
    assert after.connected == {}
    assert (after.disk, after.accounts) == (before.disk, before.accounts)
    assert guest.is_responding()


def test_computer_that_is_off_answers_after_a_reboot_but_an_empty_one_never(
    hardware: Hardware,
) -> None:
    guest = hardware.guest()
    guest.shutdown()
    assert not guest.is_responding()
    guest.reboot(hard=True)
    assert guest.is_responding()

    hardware.provisioner().unload()
    with pytest.raises(RemoteError, match="holds nothing"):
        guest.reboot(hard=True)


def test_pre_capture_takes_everything_of_the_user_off_and_may_be_repeated(
    hardware: Hardware,
) -> None:
    guest = make_open(hardware)
    guest.tag_tainted("a user came")
    disk = hardware.world.computer("vm1").disk

    for _ in range(2):
        guest.pre_capture(EndState.OFF)

    computer = hardware.world.computer("vm1")
    assert (computer.accounts, computer.open_to, computer.tainted) == ([], None, "")
    assert (computer.power, computer.post_load, computer.disk) == ("off", False, disk)


def test_pre_capture_can_leave_the_computer_running(hardware: Hardware) -> None:
    guest = hardware.guest()

    guest.pre_capture(EndState.ON)

    assert guest.is_responding()


def test_cluster_console_and_fixed_address_are_seen_on_the_computer(hardware: Hardware) -> None:
    guest = hardware.guest()
    siblings = tuple(
        Sibling(id=n, computerid=n, managementnodeid=1, hostname=f"vm{n}",
                privateIPaddress=f"10.0.0.{n}", IPaddress=f"192.0.2.{n}")
        for n in (1, 2)
    )  # fmt: skip
    guest.reservation = replace(guest.reservation, siblings=siblings)

    guest.update_cluster()
    guest.notify_console("five minutes left")
    guest.set_fixed_ip("192.0.2.77")
    guest.reserve(make_accounts())

    computer = hardware.world.computer("vm1")
    assert computer.cluster == ["10.0.0.1", "10.0.0.2"]
    assert computer.notices == ["five minutes left"]
    assert computer.public_ip == "192.0.2.77", "a fixed address stays"


def test_post_reserve_script_runs_where_the_script_says(hardware: Hardware) -> None:
    assert not hardware.guest().post_reserve()

    hardware.says(post_reserve_scripts=["vm*"])

    assert hardware.guest().post_reserve()


ASKED: dict[str, Any] = {
    "guest:tags": lambda g: g.tags(),
    "guest:check-status": lambda g: g.check_status(),
    "guest:pre-reload": lambda g: g.pre_reload(),
    "guest:post-load": lambda g: g.post_load(),
    "guest:reserve": lambda g: g.reserve([]),
    "guest:grant-access": lambda g: g.grant_access([SSH]),
    "guest:post-reserve": lambda g: g.post_reserve(),
    "guest:restrict-access": lambda g: g.restrict_access(HOME, [SSH]),
    "guest:post-initial-connection": lambda g: g.post_initial_connection(),
    "guest:find-connection": lambda g: g.find_connection(HOME, [SSH]),
    "guest:sync-accounts": lambda g: g.sync_accounts([]),
    "guest:sanitize": lambda g: g.sanitize([]),
    "guest:reboot": lambda g: g.reboot(hard=False),
    "guest:hard-reboot": lambda g: g.reboot(hard=True),
    "guest:shutdown": lambda g: g.shutdown(),
    "guest:pre-capture": lambda g: g.pre_capture(EndState.OFF),
    "guest:post-reservation": lambda g: g.post_reservation(),
    "guest:post-capture": lambda g: g.post_capture(),
    "guest:update-cluster": lambda g: g.update_cluster(),
    "guest:set-fixed-ip": lambda g: g.set_fixed_ip("192.0.2.77"),
    "guest:notify-console": lambda g: g.notify_console("text"),
}


@pytest.mark.parametrize("step", ASKED)
def test_each_operation_has_a_step_at_which_it_can_fail_without_effect(
    hardware: Hardware, step: str
) -> None:
    before = hardware.world.computer("vm1")
    hardware.says(rules=[{"step": step, "error": "RemoteError", "message": "no luck"}])

    with pytest.raises(RemoteError, match="no luck"):
        ASKED[step](hardware.guest())

    assert hardware.world.computer("vm1") == before


@pytest.mark.parametrize(
    "step",
    sorted(ASKED.keys() - {"guest:check-status", "guest:pre-reload", "guest:post-reserve",
                           "guest:post-initial-connection", "guest:post-reservation",
                           "guest:post-capture", "guest:reboot", "guest:hard-reboot",
                           "guest:shutdown"}),
)  # fmt: skip
def test_silent_computer_is_an_error_and_not_changed(hardware: Hardware, step: str) -> None:
    hardware.world.set_power("vm1", "suspended")
    before = hardware.world.computer("vm1")

    with pytest.raises(RemoteError, match="does not answer: it is suspended"):
        ASKED[step](hardware.guest())

    assert hardware.world.computer("vm1") == before


def test_steps_of_a_handler_can_be_named_too(hardware: Hardware) -> None:
    hardware.says(rules=[{"step": "inuse:*", "error": "RemoteError"}])
    guest = hardware.guest()

    guest.on_step("new:load")
    with pytest.raises(RemoteError):
        guest.on_step("inuse:check")
