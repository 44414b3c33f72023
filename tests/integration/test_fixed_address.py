"""Server requests with a fixed address: it is the computer's while the server lasts."""

from __future__ import annotations

import pytest

from tests.daemon import Daemons, daemons_for, eventually
from tests.site import ADDRESS, Site

FIXED = "192.0.2.201"
OWN = "192.0.2.99"


def ask_for_server(site: Site, computer: int) -> tuple[int, int]:
    """A request with a fixed address whose user is there at once; its id, the server's."""
    request = site.ask("new", computer, start=0)
    server = site.scalar("SELECT COALESCE(MAX(id), 0) + 1 FROM serverrequest")
    site.execute(
        "INSERT INTO serverrequest (id, name, serverprofileid, requestid, fixedIP)"
        f" VALUES ({server}, 'web', 0, {request}, '{FIXED}')"
    )
    site.variable(f"fixedIPsr{server}", "netmask: 255.255.255.0")
    site.execute(f"UPDATE reservation SET remoteIP = '{ADDRESS}' WHERE requestid = {request}")
    return request, server


def address(site: Site, computer: int) -> str:
    return str(site.scalar(f"SELECT IPaddress FROM computer WHERE id = {computer}"))


def variables(site: Site, server: int) -> dict[str, str]:
    with site.engine.begin() as c:
        rows = c.exec_driver_sql(
            "SELECT name, value FROM variable"
            f" WHERE name IN ('fixedIPsr{server}', 'originalIPaddr_{server}')"
        )
        return {name: value for name, value in rows}


def test_the_computer_has_it_until_the_server_ends(site: Site, daemons: Daemons) -> None:
    request, server = ask_for_server(site, 1)
    daemon = daemons.start()

    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    assert address(site, 1) == FIXED
    assert variables(site, server) == {
        f"fixedIPsr{server}": "netmask: 255.255.255.0",
        f"originalIPaddr_{server}": OWN,
    }

    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert address(site, 1) == OWN
    assert variables(site, server) == {}


def test_an_address_that_another_computer_has_is_refused(site: Site, daemons: Daemons) -> None:
    site.execute(f"UPDATE computer SET IPaddress = '{FIXED}' WHERE id = 5")
    request, _ = ask_for_server(site, 1)
    daemon = daemons.start()

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    text = dict(site.load_log(request))["failed"]
    assert text == f"the fixed address {FIXED} is that of vm5.example.org already"
    assert (address(site, 1), address(site, 5)) == (OWN, FIXED)
    assert site.computer(1) == "available"


@pytest.mark.parametrize("end", ["error", "death"])
def test_a_failure_afterwards_gives_the_computer_its_own_address_again(
    site: Site, daemons: Daemons, end: str
) -> None:
    what = {"signal": "KILL"} if end == "death" else {"error": "ProvisioningError"}
    site.write_script(rules=[{"step": "new:reserve", **what}])
    request, server = ask_for_server(site, 1)
    daemon = daemons.start(max_attempts=1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)

    assert address(site, 1) == OWN
    assert variables(site, server) == {f"fixedIPsr{server}": "netmask: 255.255.255.0"}


@pytest.mark.parametrize("image_gives_root", [1, 0])
def test_administrators_of_a_server_are_root_only_where_the_image_lets_users_be(
    site: Site, daemons: Daemons, image_gives_root: int
) -> None:
    request, server = ask_for_server(site, 1)
    site.execute(
        "INSERT INTO user (id, unityid, affiliationid, firstname, lastname, email, lastupdated)"
        " VALUES (102, 'bob', 1, 'Bob', 'Test', '', NOW())"
    )
    site.execute(
        "INSERT INTO usergroup (id, name, affiliationid, ownerid) VALUES (90, 'admins', 1, 1)"
    )
    site.execute("INSERT INTO usergroupmembers (userid, usergroupid) VALUES (102, 90)")
    site.execute(f"UPDATE serverrequest SET admingroupid = 90 WHERE id = {server}")
    site.execute(f"INSERT INTO imagemeta (id, rootaccess) VALUES (70, {image_gives_root})")
    site.execute("UPDATE image SET imagemetaid = 70 WHERE id = 2")

    daemon = daemons.start()

    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    users = site.world.machine("vm1").users
    assert {name: user.root_access for name, user in users.items()} == {
        "ada": bool(image_gives_root),
        "bob": bool(image_gives_root),
    }


def test_whoever_waits_for_the_computer_finds_it_with_its_own_address(
    site: Site, daemons: Daemons
) -> None:
    request, _ = ask_for_server(site, 1)
    daemon = daemons.start()
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    site.write_script(rules=[{"step": "reclaim:start", "hang": True}])
    site.end(request)
    eventually(lambda: "pending/deleted" in site.pair(request), daemon.describe)
    site.ask("new", 1)
    eventually(lambda: daemon.events("computer is taken"), daemon.describe)

    site.write_script(rules=[])
    (reclaim,) = [w for w in daemon.workers() if "|deleted|" in " ".join(w.cmdline())]
    reclaim.kill()  # and another one does it

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert address(site, 1) == OWN
    assert site.world.machine("vm1").public_ip == OWN


def test_reclaim_that_nobody_begins_costs_the_computer_its_own_address_no_more(
    two_nodes: Site, database_url: str
) -> None:
    """Its management node has stopped: the next user's worker takes the reclaim over."""
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        daemon = daemons.start(node=1, competition_timeout=4)
        request, server = ask_for_server(site, 1)
        eventually(lambda: site.computer(1) == "inuse", daemon.describe)
        eventually(lambda: not site.claims(), daemon.describe)
        site.execute(f"UPDATE reservation SET managementnodeid = 2 WHERE requestid = {request}")
        site.end(request)

        site.ask("new", 1)

        eventually(lambda: site.computer(1) == "reserved", daemon.describe)
        assert site.pair(request) == "complete/deleted"
        assert (address(site, 1), site.world.machine("vm1").public_ip) == (OWN, OWN)
        assert variables(site, server) == {}
