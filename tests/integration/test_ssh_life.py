"""A user's whole life on a real Linux host, through the daemon and the database."""

from __future__ import annotations

from functools import partial

import pytest

from tests.daemon import Daemons, eventually
from tests.site import Site
from tests.ssh_hosts import Login, Network
from tests.ssh_site import TAGS, password_of, press_connect, until_reserved, use_linux


def test_user_logs_in_works_and_leaves_nothing_behind(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    home, elsewhere = ssh_network.client("home", 201), ssh_network.client("elsewhere", 202)
    use_linux(site, ssh_network, host, kind="lab")
    daemon = daemons.start()

    request = site.ask("new", 1)
    until_reserved(site, 1, daemon.describe)
    assert host.users() == ["ada"]
    password = password_of(site, request)
    # Nobody gets in before the user has asked for it.
    assert not ssh_network.reaches("home", host.public)
    assert not ssh_network.reaches("elsewhere", host.public)

    press_connect(site, request, home)
    eventually(lambda: ssh_network.reaches("home", host.public), daemon.describe)
    assert Login(ssh_network, "home", "ada", host.public, "wrong").result()[0] == 255
    session = Login(ssh_network, "home", "ada", host.public, password, command="exec sh")
    assert session.says("id -un") == "ada"
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    # From now on only the user's own address gets in.
    assert not ssh_network.reaches("elsewhere", host.public)
    assert ssh_network.reaches("home", host.public)
    assert site.scalar("SELECT remoteIP FROM connectlog") == home
    session.says("umask 077; echo mine > ~/secret; cp ~/secret /tmp/secret; cp ~/secret /var/tmp/"
                 "; (setsid sleep 1000 >/dev/null 2>&1 &); echo done")  # fmt: skip

    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    session.end()
    assert host.users() == []
    assert "sleep 1000" not in host.sh("ps axww")
    assert host.sh("find / -xdev -name secret; ls /home /tmp /var/tmp", check=False).split() == [
        "/home:", "/tmp:", "/var/tmp:",
    ]  # fmt: skip
    assert not ssh_network.reaches("home", host.public)
    assert not ssh_network.reaches("elsewhere", host.public)
    assert ":22 " not in host.sh(f"ss -Htln | grep {host.public}:", check=False)
    assert elsewhere not in daemon.log_path.read_text()
    assert password not in daemon.log_path.read_text()


def test_next_user_of_a_reloaded_computer_finds_nothing_of_the_first(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    home = ssh_network.client("home", 201)
    use_linux(site, ssh_network, host)
    site.execute(
        "INSERT INTO user (id, unityid, affiliationid, firstname, lastname, email, "
        "lastupdated) VALUES (102, 'bob', 1, 'Bob', 'Test', 'bob@example.org', NOW())"
    )
    daemon = daemons.start()
    for user, login in ((101, "ada"), (102, "bob")):
        request = site.ask("new", 1, user=user)
        until_reserved(site, 1, daemon.describe)
        assert host.users() == [login]
        press_connect(site, request, home)
        eventually(lambda: ssh_network.reaches("home", host.public), daemon.describe)
        session = Login(ssh_network, "home", login, host.public, password_of(site, request),
                        command="exec sh")  # fmt: skip
        assert session.says("ls -A /home /tmp; echo mine > /tmp/file") == "/home:"
        assert [session.says("") for _ in range(1)]
        eventually(partial(_is_inuse, site, request), daemon.describe)
        session.end()
        site.end(request)
        eventually(lambda: site.computer(1) == "available", daemon.describe, 60)
        eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)


@pytest.mark.parametrize("kind", ["virtualmachine", "lab"])
def test_user_who_never_came_leaves_no_account(
    site: Site, daemons: Daemons, ssh_network: Network, kind: str
) -> None:
    site.variable("acknowledgetimeout", 1)
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host, kind=kind)
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "complete/timeout", daemon.describe)
    assert site.ending(request) == "noack"
    assert site.computer(1) == "available"
    assert host.users() == []


def _is_inuse(site: Site, request: int) -> bool:
    return site.pair(request) == "inuse/reserved"
