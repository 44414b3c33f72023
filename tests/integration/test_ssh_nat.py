"""Computers behind a NAT host: real packets through a real NAT host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.daemon import Daemons, eventually
from tests.integration.test_ssh_firewall import LEGACY
from tests.site import Site
from tests.ssh_guests import SSH, Bench, ready
from tests.ssh_hosts import Host, Login, Network
from tests.ssh_site import TAGS, password_of, press_connect, until_reserved, use_linux
from vcld.errors import Blame, RemoteError
from vcld.schema import models as m
from vcld.snapshot import NATHost, Reservation
from vcld.store import host_keys
from vcld.store.nat import parse_ranges

METHOD = replace(SSH, nat_ports=((5700, 22, "TCP"),))


def behind(nat: Host, computerid: int = 5) -> Callable[[Reservation], Reservation]:
    def change(made: Reservation) -> Reservation:
        host = NATHost(
            id=1, publicIPaddress=nat.public, internalIPaddress=nat.inside, computerid=77,
            hostname="nat.example.edu", privateIPaddress=nat.private,
        )  # fmt: skip
        return replace(made, computer=replace(made.computer, id=computerid, nathost=host))

    return change


def make_hosts(network: Network, prepare: str = "") -> tuple[Host, Host]:
    """A NAT host and a computer that reaches the world through it."""
    nat = network.host("nat", networks=("private", "public", "inside"), prepare=prepare)
    computer = network.host("vm1", networks=("private", "inside"), prepare=TAGS)
    computer.sh(f"ip route add default via {nat.inside}")
    return nat, computer


@pytest.mark.parametrize("prepare", ["", LEGACY], ids=["nftables", "iptables"])
def test_fault_53_forward_opens_with_access_and_nothing_of_it_stays(
    ssh_network: Network, prepare: str
) -> None:
    ssh_network.client("home", 201)
    nat, computer = make_hosts(ssh_network, prepare)
    rules = "iptables-save; /mnt/nft list ruleset"
    guest = ready(computer, change=behind(nat))
    assert not ssh_network.reaches("home", nat.public, 5700)

    for _ in range(2):
        guest.grant_access([METHOD])
    assert ssh_network.reaches("home", nat.public, 5700)
    login = Login(ssh_network, "home", "ada", nat.public, "pw-of-ada", port=5700, command="id -un")
    assert login.result() == (0, "ada\n")

    guest.restrict_access("198.51.100.202", [METHOD])
    assert not ssh_network.reaches("home", nat.public, 5700)
    guest.restrict_access("198.51.100.201", [METHOD])
    assert ssh_network.reaches("home", nat.public, 5700)

    # The forward outlives a restart of the NAT host.
    nat.restart()
    assert ssh_network.reaches("home", nat.public, 5700)

    guest.sanitize([])
    assert not ssh_network.reaches("home", nat.public, 5700)
    assert "vcldnat" not in nat.sh(rules)
    assert nat.sh("ls -A /etc/vcld/nat") == ""
    guest.sanitize([])


def test_port_that_a_failure_left_behind_goes_to_its_new_owner(ssh_network: Network) -> None:
    ssh_network.client("home", 201)
    nat, computer = make_hosts(ssh_network)
    left = ready(computer, change=behind(nat, computerid=4))
    left.grant_access([METHOD])

    guest = Bench(computer, change=behind(nat, computerid=5)).guest()
    guest.grant_access([METHOD])

    assert nat.sh("ls /etc/vcld/nat") == "vcldnat5.nft\n"
    assert "vcldnat4" not in nat.sh("nft list ruleset")


def test_nat_host_that_vcld_has_loaded_forwards_as_any_other(ssh_network: Network) -> None:
    ssh_network.client("home", 201)
    nat, computer = make_hosts(ssh_network)
    guest = ready(computer, change=behind(nat))
    Bench(nat).guest().post_load()

    guest.grant_access([METHOD])

    login = Login(ssh_network, "home", "ada", nat.public, "pw-of-ada", port=5700, command="id -un")
    assert login.result() == (0, "ada\n")


@pytest.mark.parametrize("prepare", ["", LEGACY], ids=["nftables", "iptables"])
def test_public_port_that_another_computer_has_inside_takes_no_forward_away(
    ssh_network: Network, prepare: str
) -> None:
    nat, computer = make_hosts(ssh_network, prepare)
    inside = replace(SSH, nat_ports=((5800, 5700, "TCP"),))
    ready(computer, change=behind(nat, computerid=4)).grant_access([inside])

    Bench(computer, change=behind(nat, computerid=5)).guest().grant_access([METHOD])

    assert nat.sh("cd /etc/vcld/nat; for f in *; do echo ${f%.*}; done") == "vcldnat4\nvcldnat5\n"


def test_nat_host_that_is_down_is_blamed_on_nobody_who_has_the_computer(
    ssh_network: Network,
) -> None:
    nat, computer = make_hosts(ssh_network)
    guest = ready(computer, change=behind(nat), settings={"ssh_connect_timeout_seconds": 1})
    nat.power_off()

    with pytest.raises(RemoteError, match=r"nat\.example\.edu .* cannot be reached") as caught:
        guest.grant_access([METHOD])

    assert caught.value.blame is Blame.MANAGEMENT_NODE
    guest.post_reservation()


def test_user_reaches_a_computer_behind_nat_by_the_port_that_the_database_names(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    home = ssh_network.client("home", 201)
    nat, computer = make_hosts(ssh_network)
    use_linux(site, ssh_network, computer, nat, kind="lab")
    use_nat(site, nat)
    daemon = daemons.start()

    request = site.ask("new", 1)
    until_reserved(site, 1, daemon.describe)
    port = int(site.scalar("SELECT publicport FROM natport"))
    allowed = parse_ranges(site.scalar("SELECT value FROM variable WHERE name='natport_ranges'"))
    assert any(port in numbers for numbers in allowed)
    press_connect(site, request, home)
    eventually(lambda: ssh_network.reaches("home", nat.public, port), daemon.describe)
    session = Login(ssh_network, "home", "ada", nat.public, password_of(site, request), port=port)
    assert session.says("hello") == "hello"
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.end(request)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    session.end()
    assert not ssh_network.reaches("home", nat.public, port)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM natport") == 0, daemon.describe)


def test_fault_53_forward_of_a_reservation_that_failed_goes_at_once(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    home = ssh_network.client("home", 201)
    nat, computer = make_hosts(ssh_network)
    computer.sh("touch /root/.vclcontrol")  # where the user's data should go
    use_linux(site, ssh_network, computer, nat)
    use_nat(site, nat)
    request = site.ask("new", 1)
    site.variable(f"userdata|{site.scalar('SELECT id FROM reservation')}", "data")
    daemon = daemons.start()
    until_reserved(site, 1, daemon.describe)

    press_connect(site, request, home)

    eventually(lambda: site.pair(request) == "failed/reserved", daemon.describe)
    # It was there: a NAT host makes this folder with the first forward.
    assert nat.sh("ls -A /etc/vcld/nat") == ""
    assert "vcldnat" not in nat.sh("nft list ruleset")


def use_nat(site: Site, nat: Host) -> None:
    """The site's first computer is behind this host, its second."""
    with site.engine.begin() as c:
        kind = c.scalar(sa.select(m.ResourceType.id).where(m.ResourceType.name == "computer"))
        c.execute(sa.insert(m.Resource).values(id=500, resourcetypeid=kind, subid=2))
        c.execute(
            sa.insert(m.NATHost).values(
                id=1, resourceid=500, publicIPaddress=nat.public, internalIPaddress=nat.inside
            )
        )
        c.execute(sa.insert(m.NATHostComputerMap).values(nathostid=1, computerid=1))


def test_host_key_of_a_nat_host_that_is_a_management_node_goes_by_its_address(
    site: Site, daemons: Daemons
) -> None:
    operator = daemons.make()
    with site.engine.begin() as c:
        kind = c.scalar(sa.select(m.ResourceType.id).where(m.ResourceType.name == "managementnode"))
        for id_, address in ((1, "198.51.100.7"), (2, "198.51.100.8")):
            c.execute(sa.insert(m.Resource).values(id=500 + id_, resourcetypeid=kind, subid=id_))
            c.execute(
                sa.insert(m.NATHost).values(id=id_, resourceid=500 + id_, publicIPaddress=address)
            )
            host_keys.learn(c, f"nathost {id_}", f"ssh-ed25519 {'AAAA' * id_}")

    done = operator.command("hostkey", "forget", "198.51.100.7")

    assert done.returncode == 0
    assert "198.51.100.7: ssh-ed25519 SHA256:" in done.stdout
    assert site.scalar("SELECT GROUP_CONCAT(holder) FROM vcld_host_key") == "nathost 2"


def test_ranges_of_public_ports_leave_out_nonsense() -> None:
    assert parse_ranges("5700-6500, 9696-9701,x,70000-80000,9-3") == [
        range(5700, 6501), range(9696, 9702),
    ]  # fmt: skip
    assert parse_ranges("") == parse_ranges(None) == [range(49152, 65536)]
