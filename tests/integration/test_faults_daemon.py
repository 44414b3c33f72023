"""Faults 1-8, 11, 18, 19, 22-27 of the fault list, really made, against the real daemon."""

from __future__ import annotations

import signal

import pytest

from tests.claimants import ask_for_many, race
from tests.daemon import Daemons, eventually
from tests.site import Site
from tests.steps import drive, prepare, set_up, step_names


def test_steps_are_found_in_every_handler() -> None:
    handlers = {name.partition(":")[0] for name in step_names()}

    assert handlers == {"new", "reserved", "inuse", "reclaim", "image", "makeproduction"}
    assert len(step_names()) >= 30


@pytest.mark.parametrize("step", step_names())
def test_fault_06_worker_killed_at_any_step_is_recovered(
    site: Site, daemons: Daemons, step: str
) -> None:
    """The row leaves pending, the work ends as if nothing had been, the log says why."""
    set_up(site, step)
    daemon = daemons.start()
    prepare(site, step)
    site.write_script(rules=[{"step": step, "times": 1, "signal": "KILL"}])

    request = drive(site, step)
    if step.startswith("reserved"):
        eventually(lambda: site.computer(1) == "reserved", daemon.describe)
        site.connect(request)

    died = eventually(
        lambda: (
            daemon.events("worker died, its work is repeated")
            or daemon.events("worker died, its request is ended")
        ),
        daemon.describe,
    )
    assert "SIGKILL" in died[0]["reason"]
    if step.startswith("image"):
        eventually(lambda: site.pair(request).startswith("maintenance/"), daemon.describe)
        assert site.computer(1) == "maintenance"
        return
    wanted = {"new": "reserved", "reserved": "inuse", "inuse": "inuse"}
    handler = step.partition(":")[0]
    if step == "new:maintenance":
        eventually(lambda: site.computer(1) == "maintenance", daemon.describe)
    elif step == "new:fixed-address":  # a server has no user who must connect first
        eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    elif step in {"inuse:end", "inuse:finish"}:
        eventually(lambda: site.pair(request) in {"complete/timeout", "gone"}, daemon.describe)
    elif handler in wanted:
        eventually(lambda: site.computer(1) == wanted[handler], daemon.describe)
    else:
        eventually(lambda: site.pair(request) == "gone", daemon.describe)


def test_fault_06_worker_that_always_dies_ends_its_request_with_the_reason(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(rules=[{"step": "new:load", "signal": "KILL"}])
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    assert len(daemon.events("worker died, its work is repeated")) == 2
    assert any("SIGKILL" in text for name, text in site.load_log(request) if name == "failed")
    assert site.computer(1) == "available"


def test_fault_01_second_daemon_for_the_same_node_is_refused(site: Site, daemons: Daemons) -> None:
    daemons.start()
    second = daemons.make(name="vcld2").start(wait=False)
    assert second.process is not None

    code = second.process.wait(30)

    assert code != 0
    errors = (second.folder / "vcld2.err").read_text()
    assert "already acts for node1.example.org" in errors
    assert len(errors.strip().splitlines()) == 1


def test_fault_02_stale_begin_rows_of_a_perl_daemon_are_no_hindrance(
    site: Site, daemons: Daemons
) -> None:
    request = site.ask("new", 1)
    (reservation,) = site.reservations(request)
    site.execute(
        "INSERT INTO computerloadlog (reservationid, computerid, loadstateid, timestamp)"
        f" SELECT {reservation}, 1, id, NOW() FROM computerloadstate WHERE loadstatename = 'begin'"
    )

    daemon = daemons.start()

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.steps(request).count("begin") <= 1


def test_fault_03_wrong_configuration_stops_the_daemon_before_it_claims(
    site: Site, daemons: Daemons
) -> None:
    site.ask("new", 1)
    daemon = daemons.make(fqdn="elsewhere.example.org").start(wait=False)
    assert daemon.process is not None

    assert daemon.process.wait(30) == 78

    assert "elsewhere.example.org" in (daemon.folder / "vcld.err").read_text()
    assert site.claims() == []


def test_fault_04_term_hands_back_what_does_not_end_in_time(site: Site, daemons: Daemons) -> None:
    site.write_script(delays={"transfervm": 60})
    daemon = daemons.start(shutdown_grace=1)
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    daemon.send(signal.SIGTERM)
    assert daemon.stop() == 0

    assert site.pair(request) == "new/new"
    assert site.computer(1) == "available"
    assert not daemon.workers()


def test_fault_05_workers_of_a_killed_daemon_are_adopted_and_not_doubled(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 3})
    first = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), first.describe)
    (worker,) = first.workers()
    first.kill()

    second = daemons.start()

    eventually(lambda: second.events("worker adopted", worker_pid=worker.pid), second.describe)
    eventually(lambda: site.computer(1) == "reserved", second.describe)
    assert len(second.events("work began", request_id=request, state="new")) == 1
    assert site.world.machine("vm1").loads == 1


def test_fault_08_everything_killed_at_once_goes_on_after_the_restart(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    first = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), first.describe)
    first.kill()
    for worker in first.workers():
        worker.kill()
    site.write_script(delays={})

    second = daemons.start()

    eventually(lambda: site.computer(1) == "reserved", second.describe)
    assert site.pair(request) == "pending/reserved"


def test_fault_11_worker_limit_delays_but_loses_nothing(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start(max_workers=2)

    requests = [site.ask("tomaintenance", number) for number in range(1, 11)]

    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe)
    assert all(site.computer(number) == "maintenance" for number in range(1, 11))


def test_fault_11_cluster_beyond_the_worker_limit_is_begun_and_holds_nobody_up(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start(max_workers=2)
    daemon.hold()

    cluster = site.ask("new", 1, 2, 3)
    user = site.ask("new", 4)
    reload = site.ask("tomaintenance", 5)
    daemon.go_on()

    eventually(lambda: site.pair(reload) == "gone", daemon.describe)
    eventually(lambda: site.pair(user) == "pending/reserved", daemon.describe)
    eventually(lambda: site.pair(cluster) == "pending/reserved", daemon.describe)
    assert daemon.events("worker limit reached")


def test_fault_11_request_behind_the_worker_limit_is_explained(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    daemon = daemons.start(max_workers=1)
    site.ask("new", 1)
    eventually(site.claims, daemon.describe)

    waiting = site.ask("new", 2)

    told = daemon.command("explain", str(waiting)).stdout
    assert "1 workers run, as many as may (max_workers=1)" in told
    site.write_script(delays={})


@pytest.mark.parametrize("state", ["hpc", "available", "cleaning"])
def test_fault_22_nonsense_state_is_warned_of_once(
    site: Site, daemons: Daemons, state: str
) -> None:
    daemon = daemons.start()

    request = site.ask(state, 1)

    other = site.ask("tomaintenance", 2)
    eventually(lambda: site.pair(other) == "gone", daemon.describe)
    text = "request is in a state that no management node processes"
    eventually(lambda: len(daemon.events(text)) == 1, daemon.describe)
    assert site.pair(request) == f"{state}/{state}"
    assert (
        f"State '{state}' is none that vcld processes"
        in daemon.command("explain", str(request)).stdout
    )


@pytest.mark.parametrize("step", ["startload", "transfervm", "startvm", "machinebooted"])
def test_fault_23_request_deleted_during_the_load_frees_the_computer(
    site: Site, daemons: Daemons, step: str
) -> None:
    site.write_script(delays={step: 60})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: step in site.steps(request), daemon.describe)
    site.write_script(delays={})

    site.end(request)

    eventually(lambda: site.pair(request) == "gone", daemon.describe, limit_seconds=10)
    eventually(lambda: site.computer(1) == "available", daemon.describe)


def test_fault_25_future_reservation_moved_to_now_is_processed(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1, start=90000, seconds=180000)
    other = site.ask("tomaintenance", 2)
    eventually(lambda: site.pair(other) == "gone", daemon.describe)
    assert site.pair(request) == "new/new"

    site.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)


@pytest.mark.parametrize("broken", [1, 2], ids=["parent", "child"])
def test_fault_26_cluster_fails_when_one_of_its_computers_does(
    site: Site, daemons: Daemons, broken: int
) -> None:
    rule = {"step": "startvm", "computer": f"vm{broken}", "error": "LoadTimeoutError"}
    site.write_script(rules=[rule])
    daemon = daemons.start()

    request = site.ask("new", 1, 2, 3)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    wanted = ["failed" if n == broken else "available" for n in (1, 2, 3)]
    eventually(lambda: [site.computer(n) for n in (1, 2, 3)] == wanted, daemon.describe)


def test_end_pressed_between_the_load_and_the_handover_frees_the_computer(
    site: Site, daemons: Daemons
) -> None:
    """The load has ended, its worker too, but the computer is still marked as reloading."""
    site.set_computer(1, "reloading")
    request = site.ask("deleted", 1, laststate="reserved")

    daemon = daemons.start()

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)


def test_request_edited_by_hand_during_the_work_is_not_overwritten(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    site.set_state(request, "maintenance", "new")

    eventually(lambda: daemon.events("work handed back"), daemon.describe)
    assert site.pair(request) == "maintenance/new"
    eventually(lambda: site.claims() == [])


def test_fault_19_racing_claims_have_exactly_one_owner_each(site: Site, database_url: str) -> None:
    """2,500 requests, four claimers that all want each: 10,000 racing claims."""
    numbers = ask_for_many(site, 2500)

    won = race([database_url] * 4, numbers)

    assert sorted(number for each in won for number in each) == numbers
    begins = site.scalar(
        "SELECT COUNT(*) FROM computerloadlog l JOIN computerloadstate s ON s.id = l.loadstateid"
        " WHERE s.loadstatename = 'begin'"
    )
    assert begins == len(numbers)
