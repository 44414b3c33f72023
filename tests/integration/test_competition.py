"""Who gets a computer that two requests want, and what becomes of the other one."""

from __future__ import annotations

import pytest

from tests.daemon import Daemon, Daemons, eventually
from tests.site import OTHER_IMAGE, OTHER_REVISION, Site


def in_session(site: Site, daemon: Daemon, *computers: int) -> int:
    """A request whose user works on the computers."""
    request = site.ask("new", *computers)
    reserved = {"reserved"}
    eventually(lambda: {site.computer(n) for n in computers} == reserved, daemon.describe)
    site.connect(request)
    eventually(lambda: {site.computer(n) for n in computers} == {"inuse"}, daemon.describe)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    return request


def end_passes(site: Site, request: int) -> None:
    site.execute(f"UPDATE request SET end = NOW() - INTERVAL 20 SECOND WHERE id = {request}")


@pytest.mark.parametrize("computers", [(1,), (1, 2), (2, 1)], ids=["single", "parent", "child"])
def test_session_past_its_end_is_taken_back_before_the_next_user_comes(
    site: Site, daemons: Daemons, computers: tuple[int, ...]
) -> None:
    daemon = daemons.start()
    session = in_session(site, daemon, *computers)
    loads = {n: site.world.machine(f"vm{n}").loads for n in computers}
    daemon.stop()
    end_passes(site, session)

    late = site.ask("new", 1, image=OTHER_IMAGE, revision=OTHER_REVISION)
    daemon.start()

    eventually(lambda: site.pair(late) == "pending/reserved", daemon.describe)
    eventually(lambda: site.pair(session) == "gone", daemon.describe)
    assert site.ending(session) == "EOR"
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.world.machine("vm1").imagerevision_id == OTHER_REVISION
    if 2 in computers:
        eventually(lambda: site.computer(2) == "available", daemon.describe)
        assert site.world.machine("vm2").accounts == []
    for number in computers:
        assert site.world.machine(f"vm{number}").loads > loads[number]


def test_session_past_its_end_on_two_nodes_is_taken_back_by_both(
    site: Site, daemons: Daemons
) -> None:
    site.execute(
        "INSERT INTO managementnode (id, hostname, IPaddress, ownerid, stateid, checkininterval,"
        " availablenetworks, lastcheckin) SELECT 2, 'node2.example.org', '192.0.2.2', ownerid,"
        " stateid, checkininterval, availablenetworks, lastcheckin FROM managementnode WHERE id = 1"
    )
    site.nodes = (*site.nodes, "node2.example.org")
    first, second = daemons.start(), daemons.start(node=2, name="vcld2")
    session = site.ask("new", 1, 2, start=3600)
    site.execute("UPDATE reservation SET managementnodeid = 2 WHERE computerid = 2")
    site.execute(f"UPDATE request SET start = NOW() WHERE id = {session}")
    eventually(lambda: {site.computer(n) for n in (1, 2)} == {"reserved"}, first.describe)
    site.connect(session)
    eventually(lambda: site.pair(session) == "inuse/reserved", second.describe)
    first.stop()
    second.stop()
    end_passes(site, session)

    late = site.ask("new", 1)
    first.start()
    eventually(lambda: site.pair(session).endswith("timeout/inuse"), first.describe)
    second.start()

    eventually(lambda: site.pair(late) == "pending/reserved", first.describe)
    eventually(lambda: site.pair(session) == "gone", second.describe)
    eventually(lambda: site.computer(2) == "available", second.describe)
    assert site.world.machine("vm2").accounts == []
    assert site.ending(session) == "EOR"


def test_reserved_computer_past_its_end_keeps_no_account_of_its_last_user(
    site: Site, daemons: Daemons
) -> None:
    """Nobody logged in, so that the computer itself does not say that it was used."""
    daemon = daemons.start()
    session = site.ask("new", 1)
    eventually(lambda: site.pair(session) == "pending/reserved", daemon.describe)
    eventually(lambda: site.claims() and site.claims()[0].phase == "waiting", daemon.describe)
    site.execute("UPDATE user SET unityid = 'eve@Local' WHERE id = 101")
    end_passes(site, session)

    late = site.ask("new", 1)

    eventually(lambda: site.pair(late) == "pending/reserved", daemon.describe)
    assert site.world.machine("vm1").accounts == ["eve"]
    eventually(lambda: site.pair(session) == "gone", daemon.describe)
    assert site.ending(session) == "EOR"


def test_imaging_session_past_its_end_is_left_to_its_capture(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start(competition_timeout=1)
    session = in_session(site, daemon, 1)
    daemon.stop()
    site.execute(f"UPDATE request SET forimaging = 1 WHERE id = {session}")
    end_passes(site, session)

    late = site.ask("new", 1)
    daemon.start()

    eventually(lambda: site.pair(late) == "failed/new", daemon.describe)
    assert "an image is made of it" in dict(site.load_log(late))["failed"]
    assert site.computer(1) == "inuse"


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        ("tomaintenance", "maintenance"),
        ("tovmhostinuse", "vmhostinuse"),
        ("imageprep", "available"),
    ],
)
def test_two_of_a_kind_for_one_computer_do_not_wait_for_one_another(
    site: Site, daemons: Daemons, state: str, ends: str
) -> None:
    daemon = daemons.start(tomaintenance_retry=1)
    daemon.hold()
    first, second = site.ask(state, 1), site.ask(state, 1)
    daemon.go_on()

    eventually(lambda: site.pair(first) == "gone", daemon.describe, 8)
    eventually(lambda: site.pair(second) == "gone", daemon.describe, 8)
    assert site.computer(1) == ends


def test_of_two_users_for_one_computer_the_first_gets_it(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start(competition_timeout=3)
    daemon.hold()
    first, second = site.ask("new", 1), site.ask("new", 1)
    daemon.go_on()

    eventually(lambda: site.pair(second) == "failed/new", daemon.describe)
    assert site.pair(first) == "pending/reserved"
    assert f"request {first}" in dict(site.load_log(second))["failed"]


@pytest.mark.parametrize("order", [("tomaintenance", "new"), ("new", "tomaintenance")])
def test_user_and_administrator_for_one_computer_do_not_wait_for_one_another(
    site: Site, daemons: Daemons, order: tuple[str, str]
) -> None:
    daemon = daemons.start(competition_timeout=10)
    daemon.hold()
    requests = {state: site.ask(state, 1) for state in order}
    daemon.go_on()

    expected = {"pending/reserved", "failed/new"}
    eventually(lambda: site.pair(requests["new"]) in expected, daemon.describe, 8)
    if site.pair(requests["new"]) == "failed/new":
        assert site.computer(1) == "maintenance"
        reason = dict(site.load_log(requests["new"]))["failed"]
        assert reason == "computer vm1 is in maintenance"
    else:
        eventually(lambda: site.computer(1) == "reserved", daemon.describe)


@pytest.mark.parametrize("state", ["tomaintenance", "imageprep", "tovmhostinuse"])
def test_administrator_s_wish_goes_before_a_reload(
    site: Site, daemons: Daemons, state: str
) -> None:
    daemon = daemons.start()
    daemon.hold()
    reload, wish = site.ask("reload", 1), site.ask(state, 1)
    daemon.go_on()

    eventually(lambda: {site.pair(reload), site.pair(wish)} == {"gone"}, daemon.describe, 15)
    ends = {"tomaintenance": "maintenance", "tovmhostinuse": "vmhostinuse"}
    assert site.computer(1) == ends.get(state, "available")


def test_refused_reinstall_gives_the_computer_back(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start(competition_timeout=1)
    session = in_session(site, daemon, 1)
    site.ask("maintenance", 1)

    site.set_state(session, "reinstall", "inuse")

    eventually(lambda: site.pair(session) == "complete/timeout", daemon.describe)
    assert site.ending(session) == "failed"


def test_cluster_with_one_computer_twice_is_refused_and_touches_nothing(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    session = in_session(site, daemon, 1)

    request = site.ask("new", 1, 2, 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    ids = site.reservations(request)
    reason = dict(site.load_log(request))["failed"]
    assert f"reservations {ids[0]} and {ids[2]}" in reason
    assert "the same computer vm1" in reason
    assert site.ending(request) == "failed"
    assert (site.computer(1), site.computer(2)) == ("inuse", "available")
    assert site.pair(session) == "inuse/reserved"
    assert site.world.machine("vm2").loads == 0


def test_cluster_s_failure_names_the_reservation_and_its_reason(
    site: Site, daemons: Daemons
) -> None:
    rule = {"step": "guest:post-reserve", "error": "ProvisioningError", "message": "boom"}
    site.write_script(rules=[{**rule, "computer": "vm2"}])
    daemon = daemons.start()
    request = site.ask("new", 1, 2)
    eventually(lambda: {site.computer(n) for n in (1, 2)} == {"reserved"}, daemon.describe)

    site.connect(request)

    eventually(lambda: site.pair(request) == "failed/reserved", daemon.describe)
    child = site.reservations(request)[1]
    ended = [
        e["reason"] for e in daemon.events("work ended", state="reserved", next_state="failed")
    ]
    assert any(f"reservation {child} of the cluster failed: " in text for text in ended), ended
    assert any("boom" in text for text in ended)


def test_deleted_image_revision_is_not_put_into_production(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    session = in_session(site, daemon, 1)
    site.execute("UPDATE imagerevision SET deleted = 1 WHERE id = 22")
    site.execute(f"UPDATE reservation SET imagerevisionid = 22 WHERE requestid = {session}")

    site.set_state(session, "makeproduction", "inuse")

    eventually(lambda: site.pair(session) == "gone", daemon.describe)
    assert site.scalar("SELECT production FROM imagerevision WHERE id = 21") == 1
    assert site.scalar("SELECT production FROM imagerevision WHERE id = 22") == 0
    (ended,) = daemon.events("work ended", state="makeproduction")
    assert "simulator-first-v2 is deleted" in ended["reason"]
