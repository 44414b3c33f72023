"""The firewall of a Linux computer, with each of the tools a host may have."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time

import pytest

from tests.ssh_guests import SSH, WEB, WEB_SERVICE, Bench, ready
from tests.ssh_hosts import Host, Network, wait_for_port
from vcld.errors import RemoteError
from vcld.guest.linux.guest import LinuxGuest
from vcld.snapshot import Sibling

NO_NFT = "rm -f /usr/sbin/nft"
LEGACY = (
    f"{NO_NFT}; for tool in iptables ip6tables; do for what in '' -save -restore; do"
    " ln -sf $tool-legacy$what /usr/sbin/$tool$what; done; done"
)
FIREWALLD = """
cat > /etc/rcS.d/S05firewalld <<'END'
#!/bin/sh
mkdir -p /run/dbus
dbus-daemon --system --fork --nopidfile
firewalld
until firewall-cmd --state >/dev/null 2>&1; do sleep 0.1; done
END
chmod 755 /etc/rcS.d/S05firewalld
"""
TOOLS = {"nftables": "", "iptables-nft": NO_NFT, "iptables-legacy": LEGACY, "firewalld": FIREWALLD}


@pytest.fixture(params=TOOLS)
def host(ssh_network: Network, request: pytest.FixtureRequest) -> Host:
    """A host with one of the tools, and two users' computers."""
    ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    return ssh_network.host("vm1", prepare=TOOLS[request.param] + WEB_SERVICE)


def who_gets_in(network: Network, host: Host, port: int = 22) -> list[str]:
    names = ("home", "elsewhere")
    return [name for name in names if network.reaches(name, host.public, port)]


def test_each_stage_lets_in_whom_it_should_and_survives_a_restart(
    ssh_network: Network, host: Host
) -> None:
    assert who_gets_in(ssh_network, host) == ["home", "elsewhere"]
    guest = ready(host)
    home = "198.51.100.201"
    assert who_gets_in(ssh_network, host) == []

    guest.grant_access([SSH, WEB])
    assert who_gets_in(ssh_network, host) == ["home", "elsewhere"]
    assert who_gets_in(ssh_network, host, 8080) == ["home", "elsewhere"]

    guest.restrict_access(home, [SSH, WEB])
    guest.restrict_access(home, [SSH, WEB])
    assert who_gets_in(ssh_network, host) == ["home"]
    assert who_gets_in(ssh_network, host, 8080) == ["home"]

    host.restart()
    assert who_gets_in(ssh_network, host) == ["home"]
    # What no boot script starts runs again when the session is looked at.
    assert who_gets_in(ssh_network, host, 8080) == []
    guest.restrict_access(home, [SSH, WEB])
    assert who_gets_in(ssh_network, host, 8080) == ["home"]
    assert guest.is_responding()

    guest.sanitize([])
    assert who_gets_in(ssh_network, host) == []
    assert who_gets_in(ssh_network, host, 8080) == []
    host.restart()
    host.sh("/etc/init.d/ext_sshd start; /etc/init.d/webdesk start")
    assert who_gets_in(ssh_network, host) == []
    assert who_gets_in(ssh_network, host, 8080) == []
    assert guest.is_responding()


def test_repeated_stage_leaves_the_same_rules(ssh_network: Network, host: Host) -> None:
    guest = ready(host)
    show = (
        "{ iptables-save 2>/dev/null | grep -v '^#'; /mnt/nft list tables | sort |"
        " while read -r table; do /mnt/nft list $table; done 2>/dev/null; }"
        " | sed -E 's/packets [0-9]+ bytes [0-9]+//; s/\\[[0-9]+:[0-9]+\\]//'"
    )
    guest.restrict_access("198.51.100.201", [SSH])
    once = host.sh(show)

    for _ in range(2):
        guest.restrict_access("198.51.100.201", [SSH])

    assert host.sh(show) == once
    assert once.count("-j vcld-input") <= 1


def test_method_that_is_disabled_is_closed_and_its_service_stopped(
    ssh_network: Network, host: Host
) -> None:
    guest = ready(host)
    guest.grant_access([SSH, WEB])
    assert who_gets_in(ssh_network, host, 8080) == ["home", "elsewhere"]

    guest.grant_access([SSH, dataclasses.replace(WEB, disabled=True)])

    assert who_gets_in(ssh_network, host, 8080) == []
    assert "8080" not in host.sh("ss -Htln")
    assert who_gets_in(ssh_network, host) == ["home", "elsewhere"]


def test_image_that_got_another_tool_follows_that(ssh_network: Network) -> None:
    ssh_network.client("home", 201)
    host = ssh_network.host("vm1", prepare=f"mv /usr/sbin/nft /usr/sbin/later; {WEB_SERVICE}")
    guest = ready(host)
    host.sh("mv /usr/sbin/later /usr/sbin/nft")

    guest.grant_access([SSH, WEB])

    assert ssh_network.reaches("home", host.public, 8080)
    assert "vcld-input" not in host.sh("iptables-save; ip6tables-save")
    assert host.sh("ls /etc/vcld | grep firewall") == "firewall.nft\n"


def test_full_disk_keeps_no_door_open(ssh_network: Network, host: Host) -> None:
    guest = ready(host)
    guest.grant_access([SSH])
    host.sh("for path in /etc/vcld /etc/firewalld/zones; do [ -d $path ] || continue;"
            " mkdir /mnt/kept; cp -a $path/. /mnt/kept; mount -t tmpfs -o size=64k tmpfs $path;"
            " cp -a /mnt/kept/. $path; rm -r /mnt/kept;"
            " dd if=/dev/zero of=$path/fill bs=1k 2>/dev/null; done; true")  # fmt: skip

    with pytest.raises(RemoteError, match="cannot be written"):
        guest.restrict_access("198.51.100.202", [SSH])

    assert who_gets_in(ssh_network, host) == ["elsewhere"]


def test_rules_of_the_image_that_come_late_at_a_boot_do_not_open_it(ssh_network: Network) -> None:
    host = ssh_network.host("vm1")
    ready(host)
    host.sh("printf '#!/bin/sh\\nnft flush ruleset\\n' > /etc/init.d/rules;"
            " chmod 755 /etc/init.d/rules; ln -s ../init.d/rules /etc/rcS.d/S50rules")  # fmt: skip

    host.restart()

    assert host.sh("nft list tables") == "table inet vcld\n"


def test_busy_lock_of_xtables_is_waited_for(ssh_network: Network) -> None:
    host = ssh_network.host("vm1", prepare=LEGACY)
    guest = ready(host)
    free: list[float] = []

    def hold() -> None:
        host.sh("flock /run/xtables.lock sleep 3")
        free.append(time.monotonic())

    holder = threading.Thread(target=hold)
    holder.start()
    time.sleep(0.5)
    guest.grant_access([SSH])

    holder.join()
    assert time.monotonic() >= free[0]
    assert "--dport 22 -j ACCEPT" in host.sh("iptables-save")


def test_host_without_any_firewall_is_refused_with_the_remedy(ssh_network: Network) -> None:
    host = ssh_network.host(
        "vm1", prepare="rm -f /usr/sbin/nft /usr/sbin/*tables* /usr/bin/firewall-cmd"
    )

    with pytest.raises(RemoteError, match="vm1: there is no firewall: nftables, iptables or"):
        Bench(host).guest().post_load()


def test_session_from_elsewhere_ends_when_access_is_narrowed(ssh_network: Network) -> None:
    ssh_network.client("elsewhere", 202)
    host = ssh_network.host("vm1", prepare=WEB_SERVICE)
    guest = ready(host)
    guest.grant_access([WEB])
    talk = (
        "import socket, sys, time\n"
        f"s = socket.create_connection(('{host.public}', 8080), 2)\n"
        "print('in', flush=True); sys.stdin.readline()\n"
        "s.sendall(b'x'); time.sleep(0.5); s.settimeout(0.1)\n"
        "import fcntl, termios, struct\n"
        "print(struct.unpack('i', fcntl.ioctl(s, 0x5411, b'    '))[0], flush=True)\n"
    )
    process = subprocess.Popen(
        ssh_network.on_client("elsewhere", "python3", "-c", talk),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"

    guest.restrict_access("198.51.100.201", [WEB])

    # SIOCOUTQ: bytes that the other side has not acknowledged.
    out, _ = process.communicate("go\n", timeout=20)
    assert out == "1\n"


def test_cluster_members_reach_each_other_and_nobody_else_does(ssh_network: Network) -> None:
    ssh_network.client("home", 201)
    one, two = (ssh_network.host(name, prepare=WEB_SERVICE) for name in ("one", "two"))
    siblings = tuple(_sibling(number, host) for number, host in enumerate((one, two), start=88))

    def guest(host: Host, id_: int) -> LinuxGuest:
        bench = Bench(host)
        bench.change = lambda made: dataclasses.replace(made, id=id_, siblings=siblings)
        made = bench.guest()
        made.post_load()
        return made

    guests = [guest(one, 88), guest(two, 89)]
    two.sh("/etc/init.d/webdesk start")
    probe = f"timeout 1 bash -c 'echo > /dev/tcp/{two.private}/8080' && echo in || echo out"
    assert one.sh(probe) == "out\n"

    for made in guests:
        made.grant_access([SSH])
        made.update_cluster()

    assert one.sh(probe) == "in\n"
    assert not ssh_network.reaches("home", two.public, 8080)
    assert two.sh("cat /etc/cluster_info") == f"parent= {one.private}\nchild= {two.private}\n"
    guests[1].sanitize([])
    assert one.sh(probe) == "out\n"


def test_port_that_a_container_publishes_is_open_to_nobody_else(ssh_network: Network) -> None:
    ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    host = ssh_network.host("vm1", networks=("private", "public", "inside"))
    box = ssh_network.host("box", networks=("private", "inside"), prepare=WEB_SERVICE)
    box.sh(f"ip route add default via {host.inside}; /etc/init.d/webdesk start")
    host.sh("sysctl -q -w net.ipv4.ip_forward=1; nft add table ip docker; nft 'add chain ip docker"
            " pre { type nat hook prerouting priority -100; }'; for port in 8080 9090; do nft add"
            f" rule ip docker pre ip daddr {host.public} tcp dport $port dnat to {box.inside}:8080;"
            " done")  # fmt: skip
    wait_for_port(box.private, 8080)
    assert who_gets_in(ssh_network, host, 9090) == ["home", "elsewhere"]

    method = dataclasses.replace(WEB, servicename=None)
    guest = ready(host)
    assert who_gets_in(ssh_network, host, 8080) == []
    guest.grant_access([method])

    assert who_gets_in(ssh_network, host, 8080) == ["home", "elsewhere"]
    guest.restrict_access("198.51.100.201", [method])
    assert who_gets_in(ssh_network, host, 8080) == ["home"]
    assert who_gets_in(ssh_network, host, 9090) == []


def test_node_that_takes_over_is_let_in(ssh_network: Network, host: Host) -> None:
    other, stranger = (ssh_network.host(n, networks=("private",)) for n in ("other", "stranger"))

    ready(host, managers=[other.private, "", "nonsense"]).grant_access([WEB])

    probe = f"bash -c '< /dev/tcp/{host.private}/22' && echo in"
    assert other.sh(f"timeout 2 {probe}", check=False) == "in\n"
    assert stranger.sh(f"timeout 2 {probe}", check=False) == ""


def _sibling(id_: int, host: Host) -> Sibling:
    return Sibling(
        id=id_, computerid=id_, managementnodeid=3, hostname=host.name,
        privateIPaddress=host.private, IPaddress=host.public,
    )  # fmt: skip
