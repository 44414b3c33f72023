"""Faults of SSH and of computers, through the daemon."""

from __future__ import annotations

import json
import time

import pytest

from tests.daemon import Daemons, eventually
from tests.site import Site
from tests.ssh_hosts import Login, Network, run
from tests.ssh_site import TAGS, password_of, press_connect, until_reserved, use_linux


def reason_of(site: Site, request: int) -> str:
    return next(text for name, text in reversed(site.load_log(request)) if name == "failed")


def test_fault_49_computer_that_takes_no_key_fails_with_the_keys_named(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=f"{TAGS}; : > /root/.ssh/authorized_keys")
    use_linux(site, ssh_network, host)
    daemon = daemons.start(boot_timeout=1)

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    assert site.computer(1) == "failed"
    assert "takes none of the management node's keys" in reason_of(site, request)
    assert str(ssh_network.node_key) in reason_of(site, request)


def test_fault_42_computer_that_stays_away_fails_within_its_limit(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host)
    host.cut()
    daemon = daemons.start(boot_timeout=2, ssh_connect_timeout=1)

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    assert site.computer(1) == "failed"
    assert f"vm1 ({host.private} port 22) cannot be reached" in reason_of(site, request)


def test_request_deleted_while_the_computer_starts_stops_the_wait(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host)
    host.cut()
    daemon = daemons.start(boot_timeout=600, ssh_connect_timeout=1)
    request = site.ask("new", 1)
    eventually(lambda: "machinebooted" in site.steps(request), daemon.describe)

    site.end(request)

    began = time.monotonic()
    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert time.monotonic() - began < 20


def test_fault_48_changed_host_key_of_a_lab_computer_waits_for_an_operator(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host, kind="lab")
    site.variable("acknowledgetimeout", 1)
    daemon = daemons.start(boot_timeout=2)
    first = site.ask("new", 1)
    eventually(lambda: site.pair(first) == "complete/timeout", daemon.describe)
    shown = json.loads(daemon.command("hostkey", "show", "vm1", "--json").stdout)
    assert shown["key"].startswith("ssh-ed25519 SHA256:")
    host.change_key()

    second = site.ask("new", 1)
    eventually(lambda: site.pair(second) == "failed/new", daemon.describe)
    assert "run: vcld hostkey forget vm1" in reason_of(site, second)
    assert host.users() == []

    assert daemon.command("hostkey", "forget", "vm1").returncode == 0
    assert "no host key" in daemon.command("hostkey", "show", "vm1.example.org").stdout
    assert daemon.command("hostkey", "show", "nosuch").returncode == 10
    site.set_computer(1, "available")
    third = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.pair(third) == "pending/reserved"


def test_fault_48_reload_brings_the_right_to_a_new_host_key(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host)
    daemon = daemons.start(boot_timeout=5)
    first = site.ask("reload", 1)
    eventually(lambda: site.pair(first) == "gone", daemon.describe)
    known = site.scalar("SELECT hostkey FROM vcld_host_key")
    host.change_key()

    second = site.ask("reload", 1)
    eventually(lambda: site.pair(second) == "gone", daemon.describe)

    assert site.computer(1) == "available"
    assert site.scalar("SELECT hostkey FROM vcld_host_key") != known


def test_session_goes_on_through_a_restart_and_its_user_keeps_the_way_in(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    home = ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    use_linux(site, ssh_network, host)
    site.variable("general_inuse_check", 1)
    daemon = daemons.start()
    request = site.ask("new", 1)
    until_reserved(site, 1, daemon.describe)
    press_connect(site, request, home)
    eventually(lambda: ssh_network.reaches("home", host.public), daemon.describe)
    session = Login(ssh_network, "home", "ada", host.public, password_of(site, request))
    assert session.says("here") == "here"
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    before = host.sh("cat /proc/sys/kernel/random/boot_id")

    site.set_state(request, "rebootsoft", "inuse")

    eventually(lambda: site.pair(request) == "inuse/rebootsoft", daemon.describe)
    assert host.sh("cat /proc/sys/kernel/random/boot_id") != before
    session.end()
    host.sh("/etc/init.d/ext_sshd start")
    assert ssh_network.reaches("home", host.public)
    assert not ssh_network.reaches("elsewhere", host.public)


def test_user_who_comes_from_another_address_is_followed(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    home = ssh_network.client("home", 201)
    elsewhere = ssh_network.client("elsewhere", 202)
    use_linux(site, ssh_network, host)
    daemon = daemons.start()
    request = site.ask("new", 1)
    until_reserved(site, 1, daemon.describe)
    press_connect(site, request, home)
    eventually(lambda: ssh_network.reaches("elsewhere", host.public), daemon.describe)

    session = Login(ssh_network, "elsewhere", "ada", host.public, password_of(site, request))
    assert session.says("here") == "here"

    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert site.scalar("SELECT remoteIP FROM reservation") == elsewhere
    row = site.scalar("SELECT CONCAT(userid, ' ', remoteIP, ' ', verified) FROM connectlog")
    assert row == f"101 {elsewhere} 1"
    assert ssh_network.reaches("elsewhere", host.public)
    assert not ssh_network.reaches("home", host.public)
    session.end()


@pytest.mark.parametrize("name", ["x'; touch /trap; '", "$(touch /trap)", "a\nb"])
def test_fault_30_user_whose_name_can_be_no_account_fails_alone(
    site: Site, daemons: Daemons, ssh_network: Network, name: str
) -> None:
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host)
    with site.engine.begin() as c:
        c.exec_driver_sql("UPDATE user SET unityid = %s WHERE id = 101", (name,))
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    assert "can have no account on Linux" in reason_of(site, request)
    assert site.computer(1) == "available"
    assert host.users() == []
    assert "trap" not in host.sh("ls /")
    assert run("true") == ""
