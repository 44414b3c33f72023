"""Faults of SSH and of computers, through the daemon."""

from __future__ import annotations

import json
import time

import pytest

from tests.ssh_site import press_connect
from tests.ssh_stays import LinuxSite


def test_fault_49_computer_that_takes_no_key_fails_with_the_keys_named(linux: LinuxSite) -> None:
    linux.install(prepare=": > /root/.ssh/authorized_keys").start(boot_timeout=1)

    request = linux.site.ask("new", 1)

    linux.until_pair(request, "failed/new")
    assert linux.site.computer(1) == "failed"
    assert "takes none of the management node's keys" in linux.reason_of(request)
    assert str(linux.network.node_key) in linux.reason_of(request)


def test_node_without_a_private_key_says_so_at_once(linux: LinuxSite) -> None:
    linux.install()
    linux.site.execute("UPDATE managementnode SET `keys` = ''")
    linux.start()
    request = linux.site.ask("new", 1)

    linux.until_pair(request, "failed/new")
    assert "names no private key" in linux.reason_of(request)
    assert linux.site.computer(1) == "available"


def test_fault_42_computer_that_stays_away_fails_within_its_limit(linux: LinuxSite) -> None:
    linux.install().host.cut()
    linux.start(boot_timeout=2, ssh_connect_timeout=1)

    request = linux.site.ask("new", 1)

    linux.until_pair(request, "failed/new")
    assert linux.site.computer(1) == "failed"
    assert f"vm1 ({linux.host.private} port 22) cannot be reached" in linux.reason_of(request)


def test_request_deleted_while_the_computer_starts_stops_the_wait(linux: LinuxSite) -> None:
    linux.install().host.cut()
    linux.start(boot_timeout=600, ssh_connect_timeout=1)
    request = linux.site.ask("new", 1)
    linux.until(lambda: "machinebooted" in linux.site.steps(request))

    linux.site.end(request)

    began = time.monotonic()
    linux.until_pair(request, "gone")
    assert time.monotonic() - began < 20


def test_fault_48_changed_host_key_of_a_lab_computer_waits_for_an_operator(
    linux: LinuxSite,
) -> None:
    linux.install(kind="lab")
    site = linux.site
    site.variable("acknowledgetimeout", 1)
    daemon = linux.start(boot_timeout=2).daemon
    first = site.ask("new", 1)
    linux.until_pair(first, "complete/timeout")
    shown = json.loads(daemon.command("hostkey", "show", "vm1", "--json").stdout)
    assert shown["key"].startswith("ssh-ed25519 SHA256:")
    linux.host.change_key()

    second = site.ask("new", 1)
    linux.until_pair(second, "failed/new")
    assert "run: vcld hostkey forget vm1" in linux.reason_of(second)
    assert linux.host.users() == []

    assert daemon.command("hostkey", "forget", "vm1").returncode == 0
    assert "no host key" in daemon.command("hostkey", "show", "vm1.example.org").stdout
    assert daemon.command("hostkey", "show", "nosuch").returncode == 10
    site.set_computer(1, "available")
    third = linux.reserve()
    assert site.pair(third) == "pending/reserved"


def test_fault_48_reload_brings_the_right_to_a_new_host_key(linux: LinuxSite) -> None:
    linux.install().start(boot_timeout=5)
    site = linux.site
    first = site.ask("reload", 1)
    linux.until_pair(first, "gone")
    known = site.scalar("SELECT hostkey FROM vcld_host_key")
    linux.host.change_key()

    second = site.ask("reload", 1)
    linux.until_pair(second, "gone")

    assert site.computer(1) == "available"
    assert site.scalar("SELECT hostkey FROM vcld_host_key") != known


def test_session_goes_on_through_a_restart_and_its_user_keeps_the_way_in(
    linux: LinuxSite,
) -> None:
    linux.install()
    linux.site.variable("general_inuse_check", 1)
    linux.start()
    request = linux.reserve()
    linux.open(request)
    session = linux.log_in(request, command="cat")
    assert session.says("here") == "here"
    linux.until_pair(request, "inuse/reserved")
    before = linux.host.sh("cat /proc/sys/kernel/random/boot_id")

    linux.site.set_state(request, "rebootsoft", "inuse")

    linux.until_pair(request, "inuse/rebootsoft")
    assert linux.host.sh("cat /proc/sys/kernel/random/boot_id") != before
    session.end()
    assert linux.network.reaches("home", linux.host.public)
    assert not linux.network.reaches("elsewhere", linux.host.public)

    # The user's own restart, of which nobody tells the daemon.
    linux.host.restart()
    assert linux.log_in(request, command="id -un").result() == (0, "ada\n")


def test_user_who_comes_from_another_address_is_followed(linux: LinuxSite) -> None:
    linux.install().start()
    request = linux.reserve()
    linux.open(request, "elsewhere")

    session = linux.log_in(request, "elsewhere", command="cat")
    assert session.says("here") == "here"

    linux.until_pair(request, "inuse/reserved")
    site = linux.site
    assert site.scalar("SELECT remoteIP FROM reservation") == linux.elsewhere
    row = site.scalar("SELECT CONCAT(userid, ' ', remoteIP, ' ', verified) FROM connectlog")
    assert row == f"101 {linux.elsewhere} 1"
    assert linux.network.reaches("elsewhere", linux.host.public)
    assert not linux.network.reaches("home", linux.host.public)
    session.end()


@pytest.mark.parametrize("name", ["x'; touch /trap; '", "$(touch /trap)", "a\nb"])
def test_fault_30_user_whose_name_can_be_no_account_fails_alone(
    linux: LinuxSite, name: str
) -> None:
    linux.install()
    with linux.site.engine.begin() as c:
        c.exec_driver_sql("UPDATE user SET unityid = %s WHERE id = 101", (name,))
    linux.start()

    request = linux.site.ask("new", 1)

    linux.until_pair(request, "failed/new")
    assert "can have no account on Linux" in linux.reason_of(request)
    assert linux.site.computer(1) == "available"
    assert linux.host.users() == []
    assert "trap" not in linux.host.sh("ls /")


def test_failure_after_access_was_granted_closes_the_computer_again(linux: LinuxSite) -> None:
    linux.install(prepare="touch /root/.vclcontrol")  # where the user's data should go
    request = linux.site.ask("new", 1)
    reservation = linux.site.scalar(f"SELECT id FROM reservation WHERE requestid = {request}")
    linux.site.variable(f"userdata|{reservation}", "data")
    linux.start()
    linux.until(lambda: linux.site.computer(1) == "reserved")

    press_connect(linux.site, request, linux.home)

    linux.until_pair(request, "failed/reserved")
    assert "postreserve" not in linux.site.steps(request)
    assert "post_reserve_userdata cannot be written" in linux.reason_of(request)
    assert not linux.network.reaches("home", linux.host.public)
    assert ":22" not in linux.host.sh(f"ss -Htln src {linux.host.public}")
