"""Cluster and server requests on real Linux hosts, through the daemon and the database."""

from __future__ import annotations

from tests.daemon import Daemons, eventually
from tests.site import Site
from tests.ssh_guests import WEB_SERVICE
from tests.ssh_hosts import Host, Login, Network
from tests.ssh_site import TAGS, press_connect, use_linux

FIXED = "198.51.100.77"


def password_on(site: Site, computerid: int, login: str = "ada") -> str:
    """What the web site shows a user of this computer."""
    if login == "ada":
        return str(site.scalar(f"SELECT pw FROM reservation WHERE computerid = {computerid}"))
    return str(site.scalar(
        "SELECT a.password FROM reservationaccounts a JOIN user u ON u.id = a.userid"
        f" WHERE u.unityid = '{login}'"
    ))  # fmt: skip


def answers(one: Host, other: Host, port: int = 8080) -> bool:
    probe = f"timeout 2 bash -c 'echo > /dev/tcp/{other.private}/{port}' && echo yes"
    return one.sh(probe, check=False) == "yes\n"


def add_group(site: Site, groupid: int, *members: tuple[int, str]) -> None:
    site.execute(
        "INSERT INTO usergroup (id, name, affiliationid, ownerid)"
        f" VALUES ({groupid}, 'group{groupid}', 1, 101)"
    )
    for id_, login in members:
        site.execute(
            "INSERT INTO user (id, unityid, affiliationid, firstname, lastname, email,"
            f" lastupdated) VALUES ({id_}, '{login}', 1, 'X', 'Y', '{login}@example.org', NOW())"
        )
        site.execute(
            f"INSERT INTO usergroupmembers (userid, usergroupid) VALUES ({id_}, {groupid})"
        )


def test_members_of_a_cluster_reach_each_other_and_nobody_else_reaches_them(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    home = ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    one, two, stranger = (
        ssh_network.host(f"vm{number}", prepare=f"{TAGS}\n{WEB_SERVICE}") for number in (1, 2, 3)
    )
    use_linux(site, ssh_network, one, two, stranger, kind="lab")
    daemon = daemons.start()

    request = site.ask("new", 1, 2)
    eventually(lambda: all(site.computer(n) == "reserved" for n in (1, 2)), daemon.describe, 60)
    assert one.users() == two.users() == ["ada"]
    for host in (one, two):
        host.sh("/etc/init.d/webdesk start")
    assert not answers(one, two)

    press_connect(site, request, home)
    eventually(lambda: "postreserve" in site.steps(request), daemon.describe)
    eventually(lambda: answers(one, two) and answers(two, one), daemon.describe)
    assert not answers(stranger, one)
    assert not answers(stranger, two)
    assert not ssh_network.reaches("home", one.public, 8080)
    members = f"parent= {one.private}\nchild= {two.private}\n"
    assert one.sh("cat /etc/cluster_info") == two.sh("cat /etc/cluster_info") == members

    sessions = [
        Login(ssh_network, "home", "ada", host.public, password_on(site, number))
        for number, host in enumerate((one, two), start=1)
    ]
    for session in sessions:
        assert session.says("here") == "here"
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe, 60)
    # In use they still reach each other, and of the rest only the user's address gets in.
    assert answers(one, two)
    assert not answers(stranger, two)
    for host in (one, two):
        assert ssh_network.reaches("home", host.public)
        assert not ssh_network.reaches("elsewhere", host.public)

    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    eventually(lambda: all(site.computer(n) == "available" for n in (1, 2)), daemon.describe, 60)
    for session in sessions:
        session.end()
    two.sh("/etc/init.d/webdesk start")
    assert not answers(one, two)
    assert one.users() == two.users() == []
    assert one.sh("ls /etc/cluster_info", check=False) == ""


def test_server_has_its_fixed_address_and_its_groups(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    ssh_network.client("home", 201)
    host = ssh_network.host("vm1", prepare=TAGS)
    own = host.public
    use_linux(site, ssh_network, host, kind="lab")
    add_group(site, 90, (102, "bob"))
    add_group(site, 91, (103, "eve"))
    request = site.ask("new", 1)
    site.execute(
        "INSERT INTO serverrequest (id, name, serverprofileid, requestid, fixedIP, admingroupid,"
        f" logingroupid) VALUES (5, 'web', 0, {request}, '{FIXED}', 90, 91)"
    )
    site.variable("fixedIPsr5", "netmask: 255.255.255.0\nrouter: 198.51.100.1\ndns: [192.0.2.53]")
    daemon = daemons.start()

    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe, 60)

    assert site.scalar("SELECT IPaddress FROM computer WHERE id = 1") == FIXED
    assert host.sh("ip -o -4 addr show dev eth1 | awk '{print $4}'") == f"{FIXED}/24\n"
    assert "default via 198.51.100.1 dev eth1" in host.sh("ip route show default")
    assert "staticIPaddress" in site.steps(request)
    # A server's users may come from anywhere, and come to the fixed address.
    assert host.users() == ["ada", "bob", "eve"]
    sudo = "sudo -n id -un"
    for login, is_root in (("bob", True), ("eve", False)):
        password = password_on(site, 1, login)
        assert Login(ssh_network, "home", login, FIXED, password, command="id -un").result() == (
            0, f"{login}\n",
        )  # fmt: skip
        done = Login(ssh_network, "home", login, FIXED, password, command=sudo).result()
        assert (done == (0, "root\n")) is is_root
    assert not ssh_network.reaches("home", own)

    # It is the server's after a restart too: ifupdown's file names it.
    assert f"address {FIXED}/24" in host.sh("cat /etc/network/interfaces.d/vcld")

    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert site.scalar("SELECT IPaddress FROM computer WHERE id = 1") == own
    assert host.users() == []


def test_members_of_a_servers_groups_come_from_wherever_they_are(
    site: Site, daemons: Daemons, ssh_network: Network
) -> None:
    home = ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    host = ssh_network.host("vm1", prepare=TAGS)
    use_linux(site, ssh_network, host)
    site.variable("server_inuse_check", 1)
    add_group(site, 90, (102, "bob"))
    add_group(site, 91, (103, "eve"))
    request = site.ask("new", 1)
    site.execute(
        "INSERT INTO serverrequest (id, name, serverprofileid, requestid, admingroupid,"
        f" logingroupid) VALUES (5, 'web', 0, {request}, 90, 91)"
    )
    daemon = daemons.start()
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe, 60)
    password = password_on(site, 1, "eve")
    session = Login(ssh_network, "elsewhere", "eve", host.public, password)
    assert session.says("here") == "here"

    press_connect(site, request, home)

    looked = "the user's presence is not checked"
    eventually(lambda: looked in daemon.log_path.read_text(), daemon.describe, 60)
    assert ssh_network.reaches("elsewhere", host.public)
    assert session.says("still here") == "still here"
    session.end()
