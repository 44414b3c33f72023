"""A reservation's life through the real daemon and a real database."""

from __future__ import annotations

import pytest

from tests.daemon import Daemons, eventually
from tests.site import ADDRESS, NEW_REVISION, OTHER_IMAGE, OTHER_REVISION, REVISION, Site
from vcld.store.requests import RELOAD_USER


def test_user_gets_a_computer_uses_it_and_gives_it_back(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()

    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.pair(request) == "pending/reserved"
    machine = site.world.machine("vm1")
    assert machine.imagerevision_id == REVISION
    assert machine.accounts == ["ada"]
    assert machine.open_to is None
    eventually(lambda: site.claims() and site.claims()[0].phase == "waiting")

    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert site.computer(1) == "inuse"
    assert site.world.machine("vm1").open_to == ADDRESS

    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.world.machine("vm1").accounts == []
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0)
    assert site.scalar("SELECT COUNT(*) FROM vcld_claim") == 0
    assert site.scalar("SELECT COUNT(*) FROM computerloadlog") == 0


def test_load_log_of_a_new_request_follows_the_flow_of_its_computer(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: "acknowledgetimeout" in site.steps(request), daemon.describe)
    steps = [name for name in site.steps(request) if name not in {"begin", "exited", "info"}]
    assert steps == [
        "statuscheck",
        "loadimageblade",
        "doesimageexists",
        "startload",
        "transfervm",
        "vmsetupconfig",
        "startvm",
        "machinebooted",
        "loadimagecomplete",
        "addinguser",
        "nodeready",
        "reserved",
        "acknowledgetimeout",
    ]


def test_computer_that_holds_the_image_already_is_not_loaded_again(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    first = site.ask("reload", 1)
    eventually(lambda: site.pair(first) == "gone", daemon.describe)
    disk = site.world.machine("vm1").disk

    request = site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.world.machine("vm1").disk == disk
    assert "startload" not in site.steps(request)


@pytest.mark.parametrize(
    ("state", "computer_state"),
    [
        ("reload", "available"),
        ("imageprep", "available"),
        ("tovmhostinuse", "vmhostinuse"),
        ("tomaintenance", "maintenance"),
    ],
)
def test_requests_of_administrators_end_with_the_computer_in_its_state(
    site: Site, daemons: Daemons, state: str, computer_state: str
) -> None:
    daemon = daemons.start()

    request = site.ask(state, 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == computer_state


def test_user_who_does_not_press_connect_is_timed_out(site: Site, daemons: Daemons) -> None:
    site.variable("acknowledgetimeout", 1)
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "complete/timeout", daemon.describe)
    assert site.ending(request) == "noack"
    assert site.computer(1) == "available"
    assert site.world.machine("vm1").accounts == []
    assert not daemon.workers()


def test_user_who_does_not_log_in_is_timed_out(site: Site, daemons: Daemons) -> None:
    site.variable("initialconnecttimeout", 1)
    site.write_script(users=[{"connects_after": None}])
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)

    site.connect(request)

    eventually(lambda: site.pair(request) == "complete/timeout", daemon.describe)
    assert site.ending(request) == "nologin"


def test_session_ends_at_its_end_with_notices_before(site: Site, daemons: Daemons) -> None:
    site.variable("general_end_notice_first", 3)
    site.variable("general_end_notice_second", 1)
    # The reclaim, which forgets the notices with the system, is held.
    site.write_script(delays={"guest:sanitize": 60})
    daemon = daemons.start()
    request = site.ask("new", 1, seconds=6)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)

    site.connect(request)

    eventually(lambda: site.pair(request) == "pending/timeout", daemon.describe)
    assert site.ending(request) == "EOR"
    assert len(site.world.machine("vm1").notices) == 2


def test_absent_user_loses_the_computer_after_the_reconnect_time(
    site: Site, daemons: Daemons
) -> None:
    site.variable("reconnecttimeout", 1)
    site.variable("general_inuse_check", 1)
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.write_script(users=[{"connects_after": None}])

    site.execute("UPDATE reservation SET lastcheck = NOW() - INTERVAL 600 SECOND")

    eventually(lambda: site.ending(request) == "timeout", daemon.describe)


def test_image_is_captured_and_the_computer_reloaded_with_it(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert "simulator-first-v2" in site.world.images()
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.world.machine("vm1").imagerevision_id == NEW_REVISION


def test_checkpoint_gives_the_computer_back_to_its_user(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "checkpoint")

    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert "simulator-first-v2" in site.world.images()
    assert site.world.machine("vm1").accounts == ["ada"]
    assert site.scalar(f"SELECT checkuser FROM request WHERE id = {request}") == 0


def test_failed_capture_leaves_computer_and_request_in_maintenance(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    disk = site.world.machine("vm1").disk
    site.write_script(rules=[{"step": "capture", "error": "LoadTimeoutError", "message": "stuck"}])

    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "maintenance/image", daemon.describe)
    assert site.computer(1) == "maintenance"
    assert site.world.machine("vm1").disk == disk


def test_makeproduction_changes_the_revision_that_everybody_gets(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1, revision=NEW_REVISION)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.set_state(request, "makeproduction")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    production = "SELECT GROUP_CONCAT(id) FROM imagerevision WHERE imageid = 2 AND production = 1"
    assert site.scalar(production) == str(NEW_REVISION)
    assert site.scalar("SELECT name FROM image WHERE id = 2") == "simulator-first-v2"


@pytest.mark.parametrize("state", ["rebootsoft", "reboothard", "servermodified"])
def test_session_goes_on_after_a_request_of_its_user(
    site: Site, daemons: Daemons, state: str
) -> None:
    daemon = daemons.start()
    request = site.ask("reload", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    site.set_computer(1, "inuse")

    request = site.ask(state, 1, laststate="inuse")

    eventually(lambda: site.pair(request) == f"inuse/{state}", daemon.describe)
    assert site.computer(1) == "inuse"


def test_reinstall_gives_the_user_the_same_computer_anew(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    request = site.ask("reinstall", 1, laststate="inuse")

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)

    assert site.pair(request) == "pending/reserved"
    assert site.world.machine("vm1").loads == 1


def test_failed_load_fails_request_and_computer_with_the_reason(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(
        rules=[{"step": "startvm", "error": "LoadTimeoutError", "message": "no boot"}]
    )
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    assert site.computer(1) == "failed"
    assert site.ending(request) == "failed"
    assert ("failed", "no boot") in site.load_log(request)


def test_missing_image_does_not_fail_the_computer(site: Site, daemons: Daemons) -> None:
    site.write_script(missing_images=["simulator-first-v1"])
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    assert site.computer(1) == "available"


def test_image_is_fetched_from_a_partner(site: Site, daemons: Daemons) -> None:
    name = "simulator-first-v1"
    site.write_script(missing_images=[name], partner_images=[name])
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert "copyfrompartnerMN" in site.steps(request)


def test_host_that_is_down_for_a_moment_costs_nobody_anything(site: Site, daemons: Daemons) -> None:
    site.write_script(rules=[{"step": "startload", "times": 2, "error": "BackendUnavailableError"}])
    daemon = daemons.start()

    site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert len(daemon.events("work postponed")) == 2


def test_cluster_waits_for_all_its_computers_and_ends_together(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"machinebooted": [0.0, 0.5]})
    daemon = daemons.start()

    request = site.ask("new", 1, 2, 3)
    eventually(lambda: all(site.computer(n) == "reserved" for n in (1, 2, 3)), daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert all(site.computer(n) == "inuse" for n in (1, 2, 3))

    site.end(request)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: all(site.computer(n) == "available" for n in (1, 2, 3)), daemon.describe)


def test_preload_prepares_the_computer_and_leaves_the_request(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()

    request = site.ask("new", 1, start=1800, seconds=7200)

    eventually(
        lambda: site.scalar(f"SELECT preload FROM request WHERE id = {request}") == 1,
        daemon.describe,
    )
    assert site.pair(request) == "new/new"
    assert site.computer(1) == "available"
    assert site.world.machine("vm1").imagerevision_id == REVISION


def test_reload_of_another_image_gives_way_to_a_user(site: Site, daemons: Daemons) -> None:
    site.write_script(delays={"transfervm": 5})
    daemon = daemons.start()
    reload = site.ask("reload", 1, image=OTHER_IMAGE, revision=OTHER_REVISION, user=2)
    eventually(lambda: "transfervm" in site.steps(reload), daemon.describe)
    site.write_script(delays={})

    site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.world.machine("vm1").imagerevision_id == REVISION
    assert site.pair(reload) == "gone"


def test_load_log_and_structured_log_tell_the_same_story(site: Site, daemons: Daemons) -> None:
    """Design invariant 10: what the web site shows is what the log says, in the same order."""
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    eventually(lambda: not daemon.workers())

    told = [(e["loadstate"], e["text"]) for e in daemon.events("load state", request_id=request)]
    rows = [row for row in site.load_log(request) if row[0] not in {"begin", "exited"}]

    assert rows == told
    assert len(rows) > 10


def test_reloads_of_one_computer_do_not_wait_for_one_another(site: Site, daemons: Daemons) -> None:
    """Found by the state machine: each saw that the others were to load the same image."""
    daemon = daemons.start()

    requests = [site.ask("reload", 1) for _ in range(4)]

    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe)
    assert site.computer(1) == "available"
    assert site.world.machine("vm1").loads == 1


def test_reload_after_a_session_is_asked_for_in_the_name_of_the_reload_user(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 3})
    daemon = daemons.start()

    site.ask("deleted", 1, laststate="inuse")

    eventually(
        lambda: site.scalar("SELECT COUNT(*) FROM request WHERE userid = 2"), daemon.describe
    )
    assert site.scalar("SELECT unityid FROM user WHERE id = 2") == RELOAD_USER


def test_cluster_that_is_loaded_in_advance_is_ready_at_its_start(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()

    request = site.ask("new", 1, 2, 3, start=1800, seconds=7200)

    preload = f"SELECT preload FROM request WHERE id = {request}"
    eventually(lambda: site.scalar(preload) == 1, daemon.describe)
    assert site.pair(request) == "new/new"
    assert [site.computer(number) for number in (1, 2, 3)] == ["available"] * 3
    for name in ("vm1", "vm2", "vm3"):
        assert site.world.machine(name).imagerevision_id == REVISION

    site.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")

    eventually(lambda: all(site.computer(n) == "reserved" for n in (1, 2, 3)), daemon.describe)
    steps = site.steps(request)
    assert steps.count("statuscheck") == 3  # nothing is left of what was done in advance
    assert "startload" not in steps


def test_cluster_of_which_a_part_cannot_be_loaded_in_advance_is_loaded_at_its_start(
    site: Site, daemons: Daemons
) -> None:
    failure = {"step": "startvm", "computer": "vm2", "error": "ProvisioningError", "times": 1}
    site.write_script(rules=[{**failure, "blame": "COMPUTER", "message": "it does not start"}])
    daemon = daemons.start()

    request = site.ask("new", 1, 2, start=1800, seconds=7200)

    preload = f"SELECT preload FROM request WHERE id = {request}"
    eventually(lambda: site.scalar(preload) == 1, daemon.describe)
    assert site.pair(request) == "new/new"
    site.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")
    eventually(lambda: all(site.computer(n) == "reserved" for n in (1, 2)), daemon.describe)
