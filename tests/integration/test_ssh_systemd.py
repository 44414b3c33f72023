"""Linux computers with a real systemd as first process, and what manages their network.

Not run: udev (there is none in a container's namespaces), SELinux, Ubuntu's own image.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import pytest

from tests.ssh_guests import SSH, Bench, ready
from tests.ssh_hosts import Host, Login, Network
from vcld.guest.interface import EndState
from vcld.snapshot import Reservation

HOME = "198.51.100.201"
#: Of the public network the second card asks DHCP, by what the test is about.
NETWORKD = """
printf '[Match]\\nName=eth1\\n[Network]\\nDHCP=ipv4\\n' > /etc/systemd/network/20-image.network
systemctl -q enable systemd-networkd 2> /dev/null
"""
NETPLAN = """
printf 'network:\\n  version: 2\\n  ethernets:\\n    eth1: {dhcp4: true}\\n' > /etc/netplan/50-image.yaml
systemctl -q enable systemd-networkd 2> /dev/null
"""
NETWORKMANAGER = """
mkdir -p /etc/NetworkManager/conf.d
printf '[keyfile]\\nunmanaged-devices=interface-name:eth0\\n' > /etc/NetworkManager/conf.d/test.conf
printf '[connection]\\nid=image\\ntype=ethernet\\n[ipv4]\\nmethod=auto\\n' \
    > /etc/NetworkManager/system-connections/image.nmconnection
chmod 600 /etc/NetworkManager/system-connections/*
systemctl -q enable NetworkManager 2> /dev/null
"""
MANAGERS = {"networkd": NETWORKD, "netplan": NETPLAN, "NetworkManager": NETWORKMANAGER}
#: A real DHCP server on the public network.
ROUTER = """
printf '[Match]\\nName=eth1\\n[Network]\\nAddress=198.51.100.1/24\\nDHCPServer=yes\\n[DHCPServer]\\n\
PoolOffset=100\\nPoolSize=50\\nEmitDNS=no\\n' > /etc/systemd/network/20-router.network
systemctl -q enable systemd-networkd 2> /dev/null
"""


@pytest.fixture
def host(ssh_network: Network) -> Host:
    ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    return ssh_network.host("vm1", system="systemd")


def addresses(host: Host) -> list[str]:
    shown = host.sh("ip -o -4 addr show dev eth1 scope global | awk '{print $4}'")
    return shown.split()


def eventually(condition: Callable[[], bool], host: Host, limit_seconds: float = 60) -> None:
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(host.sh("ip addr; networkctl; nmcli dev; journalctl -n 80 -q"
                                         " --no-pager", check=False))  # fmt: skip
        time.sleep(0.1)


def test_user_comes_and_goes_and_the_firewall_outlives_a_restart(host: Host) -> None:
    network = host.network
    guest = ready(host)
    assert not network.reaches("home", host.public)

    guest.grant_access([SSH])
    assert host.sh("systemctl is-active ext_sshd") == "active\n"
    session = Login(network, "home", "ada", host.public, "pw-of-ada", command="exec sh")
    assert session.says("id -un") == "ada"
    assert "ada" in host.sh("loginctl list-users --no-legend")
    session.says("(setsid sleep 1000 > /dev/null 2>&1 &); echo done")
    guest.restrict_access(HOME, [SSH])
    assert not network.reaches("elsewhere", host.public)
    found = guest.find_connection(HOME, [SSH])
    assert found is not None
    assert found.verified

    host.restart()
    assert host.sh("systemctl is-active vcld-boot") == "active\n"
    eventually(lambda: network.reaches("home", host.public), host)
    assert not network.reaches("elsewhere", host.public)
    session.end()

    session = Login(network, "home", "ada", host.public, "pw-of-ada")
    assert session.says("here") == "here"
    guest.tag_tainted("a user may have logged in")
    guest.sanitize([])
    session.end()
    assert host.users() == []
    assert host.sh("ls /run/user /home") == "/home:\n\n/run/user:\n0\n"
    eventually(lambda: "ada" not in host.sh("loginctl list-users", check=False), host)
    assert not network.reaches("home", host.public)
    assert host.sh("systemctl is-active ext_sshd", check=False) == "inactive\n"
    assert guest.is_responding()


def test_rules_of_the_image_that_come_late_at_a_boot_do_not_open_it(host: Host) -> None:
    slow = "/etc/systemd/system/nftables.service.d"
    host.sh(f"systemctl -q enable nftables 2> /dev/null; mkdir -p {slow};"
            f" printf '[Service]\\nExecStartPre=/bin/sleep 1\\n' > {slow}/slow.conf")  # fmt: skip
    ready(host)

    host.restart()

    eventually(lambda: _is_active(host, "nftables") and _is_active(host, "vcld-boot"), host)
    assert host.sh("nft list tables").split("\n")[:2] == ["table inet filter", "table inet vcld"]


def _is_active(host: Host, unit: str) -> bool:
    return host.sh(f"systemctl is-active {unit}", check=False) == "active\n"


def test_units_are_what_systemd_takes(host: Host) -> None:
    ready(host).grant_access([SSH])

    said = host.sh("systemd-analyze verify ext_sshd.service vcld-boot.service 2>&1", check=False)

    assert [line for line in said.splitlines() if "vcld" in line or "ext_sshd" in line] == []
    assert host.sh("systemctl is-enabled vcld-boot") == "enabled\n"


def test_users_sshd_ends_without_the_management_nodes(host: Host) -> None:
    """Both need /run/sshd, which a unit that makes it takes away as it stops."""
    guest = ready(host)
    guest.grant_access([SSH])
    host.sh("systemctl restart ssh; systemctl stop ext_sshd")
    guest.remote.close()
    assert guest.is_responding()

    host.sh("systemctl stop ssh; rmdir /run/sshd; systemctl start ext_sshd")
    assert Login(host.network, "home", "ada", host.public, "pw-of-ada", command="id -un").result() == (
        0, "ada\n",
    )  # fmt: skip


def test_sshd_that_systemd_listens_for_leaves_the_public_address_free(
    ssh_network: Network,
) -> None:
    ssh_network.client("home", 201)
    host = ssh_network.host(
        "vm1", system="systemd", prepare="systemctl -q disable ssh; systemctl -q enable ssh.socket"
    )
    assert "systemd" in host.sh("ss -Htlnp 'sport = :22'")

    guest = ready(host)
    guest.grant_access([SSH])

    # The service of this connection takes what it had made with it.
    guest.remote.close()
    eventually(lambda: host.sh("systemctl list-units --no-legend 'ssh@*'") == "", host)
    assert guest.is_responding()
    done = Login(ssh_network, "home", "ada", host.public, "pw-of-ada", command="id -un")
    assert done.result() == (0, "ada\n")
    host.restart()
    assert host.sh("systemctl is-active ssh.socket", check=False) == "inactive\n"
    assert guest.is_responding()


def test_soft_reboot_and_shutdown_by_systemd(host: Host) -> None:
    bench = Bench(host)
    guest = bench.guest()
    guest.post_load()
    before = guest.find_boot_id()

    guest.reboot(hard=False)
    assert guest.find_boot_id() != before
    guest.shutdown()

    assert bench.switched == []
    assert not host.is_on


def test_firewalld_as_a_service(ssh_network: Network) -> None:
    for name, number in (("home", 201), ("elsewhere", 202)):
        ssh_network.client(name, number)
    host = ssh_network.host(
        "vm1", system="systemd", prepare="systemctl -q enable firewalld 2> /dev/null"
    )
    guest = ready(host)
    guest.grant_access([SSH])
    guest.restrict_access(HOME, [SSH])

    assert ssh_network.reaches("home", host.public)
    assert not ssh_network.reaches("elsewhere", host.public)
    host.restart()
    eventually(lambda: ssh_network.reaches("home", host.public), host)
    assert not ssh_network.reaches("elsewhere", host.public)
    assert guest.is_responding()


def test_zone_of_the_image_lets_nobody_in(ssh_network: Network) -> None:
    ssh_network.client("home", 201)
    host = ssh_network.host(
        "vm1", system="systemd", prepare="systemctl -q enable firewalld 2> /dev/null"
    )
    host.sh("firewall-cmd -q --permanent --zone=trusted --add-source=198.51.100.0/24;"
            " firewall-cmd -q --reload; systemd-run -q python3 -m http.server 8080")  # fmt: skip
    eventually(lambda: ssh_network.reaches("home", host.public, 8080), host)

    guest = ready(host)

    assert not ssh_network.reaches("home", host.public, 8080)
    guest.grant_access([SSH])
    assert ssh_network.reaches("home", host.public)
    assert not ssh_network.reaches("home", host.public, 8080)


def test_firewalld_that_comes_up_late_keeps_no_user_out(ssh_network: Network) -> None:
    for name, number in (("home", 201), ("elsewhere", 202)):
        ssh_network.client(name, number)
    host = ssh_network.host("vm1", system="systemd")
    guest = ready(host)
    host.sh("systemctl start firewalld")

    guest.grant_access([SSH])

    assert ssh_network.reaches("home", host.public)
    guest.restrict_access(HOME, [SSH])
    assert not ssh_network.reaches("elsewhere", host.public)
    assert ssh_network.reaches("home", host.public)
    host.sh("systemctl stop firewalld")
    assert not ssh_network.reaches("elsewhere", host.public)
    assert ssh_network.reaches("home", host.public)


@pytest.mark.parametrize("manager", MANAGERS)
def test_address_by_dhcp_is_found_and_a_fixed_one_takes_its_place_for_good(
    ssh_network: Network, manager: str
) -> None:
    ssh_network.host("router", system="systemd", prepare=ROUTER)
    host = ssh_network.host("vm1", system="systemd", prepare=MANAGERS[manager])
    host.sh(f"ip addr del {host.public}/24 dev eth1", check=False)

    found = Bench(host).guest().post_load()
    assert found is not None
    leased = [part for part in addresses(host) if part.startswith(f"{found}/")]
    assert 100 <= int(found.rsplit(".", 1)[1]) < 150

    bench = Bench(host, node={"publicIPconfiguration": "static", "publicDNSserver": "192.0.2.53",
                              "publicDefaultGateway": "198.51.100.1"})  # fmt: skip
    bench.change = fixed("198.51.100.77")
    for _ in range(2):
        assert bench.guest().post_load() is None
        assert addresses(host) == ["198.51.100.77/24"]
    assert ("staticIPaddress", "vm1 has the fixed address 198.51.100.77") in bench.told
    assert "default via 198.51.100.1 dev eth1" in host.sh("ip route show default")

    # Nothing of what was set by hand is left after a restart: what comes back was kept.
    host.sh("ip addr flush dev eth1; ip route flush default")
    host.restart()
    eventually(lambda: addresses(host) == ["198.51.100.77/24"], host)
    assert "default via 198.51.100.1 dev eth1" in host.sh("ip route show default")
    assert "192.0.2.53" in host.sh("cat /etc/resolv.conf; networkctl status eth1; nmcli dev show"
                                   " eth1", check=False)  # fmt: skip

    # An image of it asks DHCP again.
    bench.guest().pre_capture(EndState.ON)
    host.sh("ip addr flush dev eth1")
    host.restart()
    bench.host_keys.clear()
    eventually(lambda: bool(set(leased) & set(addresses(host))) or any(
        100 <= int(a.split("/")[0].rsplit(".", 1)[1]) < 150 for a in addresses(host)), host)  # fmt: skip
    assert "198.51.100.77/24" not in addresses(host)


def fixed(address: str) -> Callable[[Reservation], Reservation]:
    return lambda made: dataclasses.replace(
        made, computer=dataclasses.replace(made.computer, IPaddress=address)
    )


def test_card_that_the_image_forgot_asks_dhcp(ssh_network: Network) -> None:
    ssh_network.host("router", system="systemd", prepare=ROUTER)
    enable = "systemctl -q enable systemd-networkd 2> /dev/null"
    host = ssh_network.host("vm1", system="systemd", prepare=enable)
    host.sh("ip addr flush dev eth1; ip link set eth1 down")

    found = Bench(host).guest().post_load()

    assert found is not None
    assert found.startswith("198.51.100.1")


def test_sshd_goes_by_its_red_hat_name(ssh_network: Network) -> None:
    """A stand-in: Debian's sshd under the unit name that the family of Red Hat has."""
    host = ssh_network.host(
        "vm1",
        system="systemd",
        prepare="systemctl -q disable ssh\n"
        "sed '/^Alias/d' /lib/systemd/system/ssh.service > /etc/systemd/system/sshd.service\n"
        "rm -f /etc/init.d/ssh; ln -s /dev/null /etc/systemd/system/ssh.service\n"
        "systemctl -q enable sshd",
    )
    guest = ready(host)

    assert f"ListenAddress {host.private}" in host.sh("cat /etc/ssh/sshd_config")
    assert host.private in host.sh("ss -Htlnp 'sport = :22'")
    host.restart()
    assert guest.is_responding()
