"""``vcld retry`` and ``vcld cancel`` do what an operator means, and no harm."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon import Daemon, Daemons, daemons_for, eventually
from tests.site import NEW_REVISION, Site
from vcld import processes
from vcld.errors import ExitCode, VcldError
from vcld.store import levers


def retry(site: Site, request: int) -> str:
    with site.engine.begin() as c:
        return levers.retry(c, site.catalog, request)


def test_retry_of_a_failed_request_opens_its_log_again_and_frees_its_computer(site: Site) -> None:
    request = site.ask("failed", 1, laststate="new")
    site.set_computer(1, "failed")
    site.execute("UPDATE log SET ending = 'failed', finalend = NOW() - INTERVAL 1 MINUTE")

    retry(site, request)

    assert site.pair(request) == "new/new"
    assert site.computer(1) == "available"
    assert site.ending(request) == "none"
    assert site.scalar("SELECT finalend = end FROM log JOIN request ON logid = log.id") == 1


def test_retry_leaves_a_computer_in_maintenance_to_its_administrator(site: Site) -> None:
    request = site.ask("failed", 1, laststate="new")
    site.set_computer(1, "maintenance")

    retry(site, request)

    assert site.computer(1) == "maintenance"


def test_retry_of_a_capture_takes_the_computer_out_of_maintenance(site: Site) -> None:
    request = site.ask("maintenance", 1, laststate="image")
    site.set_computer(1, "maintenance")

    retry(site, request)

    assert site.pair(request) == "image/maintenance"
    assert site.computer(1) == "inuse"


@pytest.mark.parametrize("state", ["image", "checkpoint"])
def test_capture_whose_worker_died_after_the_image_was_stored_is_only_recorded(
    site: Site, daemons: Daemons, state: str
) -> None:
    site.write_script(rules=[{"step": "image:captured", "signal": "KILL", "times": 1}])
    daemon = daemons.start()
    request = inuse(site, daemon, 1)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, state, "inuse")
    eventually(lambda: site.pair(request) == f"maintenance/{state}", daemon.describe)

    daemon.command("retry", str(request))

    end = "gone" if state == "image" else "inuse/reserved"
    eventually(lambda: site.pair(request) == end, daemon.describe)
    assert site.scalar(f"SELECT deleted FROM imagerevision WHERE id = {NEW_REVISION}") == 0
    captures = [e for e in daemon.events("load state") if e["text"].startswith("capturing ")]
    assert len(captures) == 1


def test_second_capture_of_a_name_is_no_attempt_at_the_first(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    request = inuse(site, daemon, 1)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, "checkpoint", "inuse")
    eventually(lambda: daemon.events("work ended", state="checkpoint"), daemon.describe)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.set_state(request, "checkpoint", "inuse")

    for ended in (2, 3):
        eventually(lambda: site.pair(request) == "maintenance/checkpoint", daemon.describe)
        # The row is written before the line.
        told = eventually(
            lambda: daemon.events("work ended", state="checkpoint")[ended - 1 :],  # noqa: B023
            daemon.describe,
        )
        assert "exists already" in told[-1]["reason"]
        daemon.command("retry", str(request))
    eventually(lambda: len(daemon.events("work ended", state="checkpoint")) == 4, daemon.describe)


@pytest.mark.parametrize("state", ["image", "checkpoint"])
def test_cancel_refuses_to_lose_what_is_being_captured(
    site: Site, daemons: Daemons, state: str
) -> None:
    site.write_script(delays={"capture": 60})
    daemon = daemons.start(shutdown_grace=1)
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request).startswith("inuse/"), daemon.describe)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, state, "inuse")
    eventually(lambda: daemon.events("work began", state=state), daemon.describe)

    done = daemon.command("cancel", str(request))

    assert done.returncode == 10
    assert "captures an image, which would be lost" in done.stderr
    assert site.pair(request) == f"pending/{state}"


def test_cancel_of_what_is_over_says_so(site: Site) -> None:
    request = site.ask("complete", 1, laststate="deleted")

    with site.engine.begin() as c, pytest.raises(VcldError, match="is over already"):
        levers.cancel(c, site.catalog, request)


def test_load_in_advance_that_is_cancelled_lets_the_computer_go(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    request = site.ask("new", 1, start=1800)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    assert daemon.command("cancel", str(request)).returncode == 0

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.scalar("SELECT COUNT(*) FROM request") == 0


def inuse(site: Site, daemon: Daemon, computer: int) -> int:
    """A user who is connected."""
    request = site.ask("new", computer)
    eventually(lambda: site.computer(computer) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request).startswith("inuse/"), daemon.describe)
    return request


def break_row(site: Site, sql: str) -> None:
    """What a restored backup may hold and the schema forbids."""
    with site.engine.begin() as c:
        c.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
        c.exec_driver_sql(sql)
        c.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 1")


def refusal(daemon: Daemon, *arguments: str) -> str:
    done = daemon.command(*arguments)
    assert done.returncode == ExitCode.FAILED, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def told(daemon: Daemon, *arguments: str) -> str:
    done = daemon.command(*arguments)
    assert done.returncode == ExitCode.DONE, done.stdout + done.stderr
    return done.stdout


def rules(daemon: Daemon, request: int) -> dict[str, str]:
    """The rules of explain by name."""
    found: dict[str, Any] = json.loads(told(daemon, "explain", str(request), "--json"))
    assert [rule["text"] for rule in found["rules"]] == found["sentences"]
    return {rule["rule"]: rule["text"] for rule in found["rules"]}


def fail_in_reserved(site: Site, daemon: Daemon, computer: int) -> int:
    """A request that fails when access is to be granted, through no fault of its computer."""
    site.write_script(
        rules=[
            {
                "step": "guest:grant-access",
                "error": "FatalProvisioningError",
                "blame": "MANAGEMENT_NODE",
                "message": "no key",
            }
        ]
    )
    request = site.ask("new", computer)
    eventually(lambda: site.computer(computer) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "failed/reserved", daemon.describe)
    site.write_script(rules=[])
    eventually(lambda: site.computer(computer) == "available", daemon.describe)
    return request


def test_retry_of_what_failed_in_reserved_leaves_the_computer_to_its_next_user(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    failed = fail_in_reserved(site, daemon, 2)
    other = inuse(site, daemon, 2)

    line = refusal(daemon, "retry", str(failed))

    assert f"its computer vm2 serves request {other} " in line
    assert site.pair(failed) == "failed/reserved"
    told(daemon, "cancel", str(other))
    eventually(lambda: site.pair(other) == "gone", daemon.describe)
    eventually(lambda: site.computer(2) == "available", daemon.describe)
    assert "its computer is loaded anew" in told(daemon, "retry", str(failed))
    eventually(lambda: site.pair(failed).endswith("/reserved"), daemon.describe)
    eventually(lambda: site.computer(2) == "reserved", daemon.describe)
    site.connect(failed)
    eventually(lambda: site.pair(failed).startswith("inuse/"), daemon.describe)


def test_retried_load_loses_to_who_got_the_computer_at_that_moment(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start(competition_timeout=1)
    failed = fail_in_reserved(site, daemon, 2)
    other = inuse(site, daemon, 2)

    site.set_state(failed, "new", "new")  # what retry writes, without its look at the computer

    eventually(lambda: site.pair(failed) == "failed/new", daemon.describe)
    assert f"request {other} (inuse/" in site.load_log(failed)[-2][1]
    assert site.pair(other).startswith("inuse/") or site.pair(other) == "pending/inuse"
    assert site.computer(2) == "inuse"


def test_session_that_was_broken_off_goes_on_and_is_not_captured(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    request = inuse(site, daemon, 1)
    break_row(site, "UPDATE reservation SET imageid = 9999, lastcheck = NULL")
    eventually(lambda: site.pair(request) == "maintenance/inuse", daemon.describe)
    text = rules(daemon, request)["state"]
    assert "capture" not in text
    assert f"'vcld retry {request}' lets the session go on" in text
    site.execute("UPDATE reservation SET imageid = 2")

    assert f"the session of request {request} goes on" in told(daemon, "retry", str(request))

    assert site.pair(request) in {"inuse/inuse", "pending/inuse"}
    looks = len(daemon.events("work ended", state="inuse", next_state="inuse"))
    site.execute("UPDATE reservation SET lastcheck = NULL")
    eventually(
        lambda: len(daemon.events("work ended", state="inuse", next_state="inuse")) > looks,
        daemon.describe,
    )
    assert site.computer(1) == "inuse"
    assert not daemon.events("work began", state="image")


def test_session_in_maintenance_whose_computer_was_freed_cannot_go_on(site: Site) -> None:
    request = site.ask("maintenance", 1, laststate="inuse")

    with pytest.raises(VcldError, match=r"vm1.* is available by now"):
        retry(site, request)

    assert site.pair(request) == "maintenance/inuse"


@contextlib.contextmanager
def titled(title: str) -> Iterator[int]:
    """A process that calls itself so."""
    worker = subprocess.Popen(["bash", "-c", f'exec -a "{title}" sleep 120'])
    try:
        eventually(lambda: any(title in line for _, line in processes.titles()))
        yield worker.pid
    finally:
        worker.kill()
        worker.wait()


def write_log(site: Site, request: int, name: str, age_seconds: int) -> None:
    (reservation,) = site.reservations(request)
    site.execute(
        "INSERT INTO computerloadlog (reservationid, computerid, loadstateid, timestamp)"
        f" SELECT {reservation}, 1, id, NOW() - INTERVAL {age_seconds} SECOND"
        f" FROM computerloadstate WHERE loadstatename = '{name}'"
    )


def test_request_of_a_perl_worker_on_this_machine_is_neither_retried_nor_called_free(
    site: Site, daemons: Daemons
) -> None:
    operator = daemons.make()
    request = site.ask("pending", 1, laststate="new")
    (reservation,) = site.reservations(request)
    with titled(f"{operator.title} '|123|{request}|{reservation}|new|' vm1 img") as pid:
        line = refusal(operator, "retry", str(request))
        assert f"process {pid} on this machine has it" in line
        assert f"kill {pid}" in line
        assert site.pair(request) == "pending/new"
        assert f"process {pid} on this machine has it" in rules(operator, request)["stranger"]

    assert "nobody has it" in rules(operator, request)["stray"]
    told(operator, "retry", str(request))
    assert site.pair(request) == "new/new"


def test_request_of_a_perl_worker_on_another_node_is_left_to_it(
    two_nodes: Site, database_url: str
) -> None:
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        operator = daemons.make(node=1)
        request = site.ask("pending", 1, laststate="new", node=2)
        write_log(site, request, "begin", 9)
        write_log(site, request, "transfervm", 5)

        assert "its load log moved" in refusal(operator, "retry", str(request))
        assert "(transfervm)" in rules(operator, request)["stranger"]
        site.execute("UPDATE computerloadlog SET timestamp = NOW() - INTERVAL 1 HOUR")
        # It waits for its user, say: only its own machine can tell.
        line = refusal(operator, "retry", str(request))
        assert "node2.example.org is served by a daemon that is no vcld" in line
        assert site.pair(request) == "pending/new"

        site.execute("UPDATE managementnode SET lastcheckin = NOW() - INTERVAL 1 HOUR")
        assert "pending without a worker" in told(operator, "retry", str(request))
        assert site.pair(request) == "new/new"


def test_capture_on_another_node_is_not_begun_twice_though_its_log_is_silent(
    two_nodes: Site, database_url: str
) -> None:
    site = two_nodes
    with daemons_for(site, database_url) as daemons:
        operator = daemons.make(node=1)
        site.set_computer(1, "inuse")
        request = site.ask("pending", 1, laststate="image", node=2)
        site.execute("UPDATE managementnode SET lastcheckin = NOW() - INTERVAL 1 HOUR")

        assert "cannot be seen from here" in refusal(operator, "retry", str(request))
        assert site.pair(request) == "pending/image"


@pytest.mark.parametrize("laststate", ["new", "reserved"])
def test_cluster_that_failed_is_retried_without_its_old_failures(
    site: Site, daemons: Daemons, laststate: str
) -> None:
    request = site.ask("failed", 1, 2, laststate=laststate)
    for reservation, computer in zip(site.reservations(request), (1, 2), strict=True):
        for name in ("nodeready", "failed", "exited"):
            site.execute(
                "INSERT INTO computerloadlog (reservationid, computerid, loadstateid, timestamp)"
                f" SELECT {reservation}, {computer}, id, NOW() FROM computerloadstate"
                f" WHERE loadstatename = '{name}'"
            )
    daemon = daemons.start()

    told(daemon, "retry", str(request))

    eventually(lambda: site.computer(1) == site.computer(2) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request).startswith("inuse/"), daemon.describe)
    assert not daemon.events("work ended", next_state="failed")


@pytest.mark.parametrize("state", ["image", "checkpoint"])
def test_failed_capture_is_not_cancelled_and_can_still_be_retried(
    site: Site, daemons: Daemons, state: str
) -> None:
    operator = daemons.make()
    site.set_computer(1, "maintenance")
    request = site.ask("maintenance", 1, laststate=state)

    line = refusal(operator, "cancel", str(request))

    assert "its capture failed" in line
    assert "set request.stateid to deleted by hand" in line
    assert site.pair(request) == f"maintenance/{state}"
    told(operator, "retry", str(request))
    assert site.pair(request) == f"{state}/maintenance"


def test_session_that_was_broken_off_is_cancelled(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    request = inuse(site, daemon, 1)
    site.set_state(request, "maintenance", "inuse")

    assert "vm1 is taken back" in told(daemon, "cancel", str(request))

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)


def test_request_without_a_reservation_is_removed_by_cancel(site: Site, daemons: Daemons) -> None:
    request = site.ask("new", 1)
    site.execute("DELETE FROM reservation")

    assert "it is removed" in told(daemons.make(), "cancel", str(request))

    assert site.pair(request) == "gone"
    assert site.ending(request) == "deleted"


def test_last_state_without_a_row_is_named(site: Site, daemons: Daemons) -> None:
    operator = daemons.make()
    request = site.ask("new", 1)
    break_row(site, "UPDATE request SET laststateid = 99")

    assert "set request.laststateid" in rules(operator, request)["laststate-without-row"]
    for command in ("retry", "cancel"):
        assert "has the laststateid 99" in refusal(operator, command, str(request))
