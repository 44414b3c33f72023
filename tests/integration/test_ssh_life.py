"""A user's whole life on a real Linux host, through the daemon and the database."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.ssh_site import password_of
from tests.ssh_stays import LinuxSite


def test_user_logs_in_works_and_leaves_nothing_behind(linux: LinuxSite) -> None:
    site, network = linux.site, linux.network
    host = linux.install(kind="lab").host
    daemon = linux.start().daemon

    request = linux.reserve()
    assert host.users() == ["ada"]
    password = password_of(site, request)
    # Nobody gets in before the user has asked for it.
    assert not network.reaches("home", host.public)
    assert not network.reaches("elsewhere", host.public)

    linux.open(request)
    session = linux.log_in(request)
    assert session.says("id -un") == "ada"
    linux.until_pair(request, "inuse/reserved")
    # From now on only the user's own address gets in.
    assert not network.reaches("elsewhere", host.public)
    assert network.reaches("home", host.public)
    assert site.scalar("SELECT remoteIP FROM connectlog") == linux.home
    session.says("umask 077; echo mine > ~/secret; cp ~/secret /tmp/secret; cp ~/secret /var/tmp/"
                 "; (setsid sleep 1000 >/dev/null 2>&1 &); echo done")  # fmt: skip

    site.end(request)
    linux.until_pair(request, "gone")
    linux.until(lambda: site.computer(1) == "available")
    session.end()
    assert host.users() == []
    assert "sleep 1000" not in host.sh("ps axww")
    assert host.sh("find / -xdev -name secret; ls /home /tmp /var/tmp", check=False).split() == [
        "/home:", "/tmp:", "/var/tmp:",
    ]  # fmt: skip
    assert not network.reaches("home", host.public)
    assert not network.reaches("elsewhere", host.public)
    assert ":22 " not in host.sh(f"ss -Htln | grep {host.public}:", check=False)
    assert linux.elsewhere not in daemon.log_path.read_text()
    assert password not in daemon.log_path.read_text()


def test_wrong_password_opens_nothing(linux: LinuxSite) -> None:
    linux.install().start()
    request = linux.reserve()
    linux.open(request)
    linux.site.execute(f"UPDATE reservation SET pw = 'wrong' WHERE requestid = {request}")

    assert linux.log_in(request).result()[0] == 255
    assert linux.site.pair(request) == "pending/reserved"


def test_next_user_of_a_reloaded_computer_finds_nothing_of_the_first(linux: LinuxSite) -> None:
    site, host = linux.site, linux.install().host
    site.execute(
        "INSERT INTO user (id, unityid, affiliationid, firstname, lastname, email, "
        "lastupdated) VALUES (102, 'bob', 1, 'Bob', 'Test', 'bob@example.org', NOW())"
    )
    linux.start()
    for user, login in ((101, "ada"), (102, "bob")):
        request = linux.reserve(user=user)
        assert host.users() == [login]
        linux.open(request)
        session = linux.log_in(request, user=login)
        assert session.says("ls -A /home /tmp; echo mine > /tmp/file") == "/home:"
        assert session.says("") == login
        linux.until_pair(request, "inuse/reserved")
        session.end()
        site.end(request)
        linux.until(lambda: site.computer(1) == "available")
        linux.until(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0)


@pytest.mark.parametrize("kind", ["virtualmachine", "lab"])
def test_user_who_never_came_leaves_no_account(linux: LinuxSite, kind: str) -> None:
    linux.site.variable("acknowledgetimeout", 1)
    linux.install(kind=kind).start()

    request = linux.site.ask("new", 1)

    linux.until_pair(request, "complete/timeout")
    assert linux.site.ending(request) == "noack"
    assert linux.site.computer(1) == "available"
    assert linux.host.users() == []


def test_user_whose_time_is_over_is_shut_out_before_the_reload_has_its_turn(
    linux: LinuxSite,
) -> None:
    linux.install().start()
    request = linux.reserve()
    linux.open(request)
    session = linux.log_in(request)
    assert session.says("id -un") == "ada"
    linux.until_pair(request, "inuse/reserved")
    linux.site.write_script(rules=[{"step": "*", "state": "reload", "hang": True}])

    linux.site.end(request)

    linux.until_pair(request, "gone")
    assert not linux.network.reaches("home", linux.host.public)
    session.end()


def test_computer_whose_unseen_user_was_root_is_reloaded_whatever_it_says(linux: LinuxSite) -> None:
    linux.install().start()
    request = linux.reserve()
    linux.open(request)
    linux.host.sh("rm -f /etc/vcld/granted /etc/sudoers.d/vcld")

    linux.site.end(request)

    linux.until_pair(request, "gone")
    assert "granted to a user with root rights (ada)" in linux.daemon.log_path.read_text()
    reloads = "SELECT COUNT(*) FROM computerloadlog WHERE LOCATE('must be loaded', additionalinfo)"
    linux.until(lambda: linux.site.scalar(reloads) > 0)


def test_password_is_in_no_process_list_of_host_or_node(linux: LinuxSite) -> None:
    """Every process of the machine is watched, those of the host and the daemon among them."""
    linux.install().start()
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for pid in filter(str.isdecimal, os.listdir("/proc")):
                for name in ("cmdline", "environ"):
                    try:
                        seen.add(Path("/proc", pid, name).read_bytes())
                    except OSError:  # it has ended
                        continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        request = linux.reserve()
        linux.open(request)
    finally:
        over.set()
        watcher.join()

    password = password_of(linux.site, request).encode()
    assert any(b"useradd" in line or b"sh\0-s" in line for line in seen)
    assert not [line for line in seen if password in line]
