"""Two requests on one computer: whoever does not have it leaves it as it is."""

from __future__ import annotations

import pytest

from tests.daemon import Daemon, Daemons, eventually
from tests.site import Site


def in_session(site: Site, daemon: Daemon) -> int:
    """A request whose user works on computer 1."""
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    return request


def test_a_request_that_cannot_have_a_computer_leaves_it_to_the_session_on_it(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start(competition_timeout=1)
    session = in_session(site, daemon)

    late = site.ask("new", 1)

    eventually(lambda: site.pair(late) == "failed/new", daemon.describe)
    assert f"request {session}" in dict(site.load_log(late))["failed"]
    assert site.computer(1) == "inuse"
    assert "inuse" in site.pair(session)


def test_a_load_in_advance_that_cannot_be_made_leaves_the_computer_s_state(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start(competition_timeout=2)
    session = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)

    later = site.ask("new", 1, start=1800)
    eventually(lambda: site.pair(later) == "pending/new", daemon.describe)
    site.connect(session)
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)

    eventually(lambda: site.pair(later) == "new/new", daemon.describe)
    assert site.scalar(f"SELECT preload FROM request WHERE id = {later}") == 1
    assert site.computer(1) == "inuse"


@pytest.mark.parametrize("laststate", ["reserved", "inuse"])
def test_reclaim_of_a_request_that_never_got_the_computer_spares_its_user(
    site: Site, daemons: Daemons, laststate: str
) -> None:
    daemon = daemons.start()
    session = in_session(site, daemon)
    loads = site.world.machine("vm1").loads

    late = site.ask("deleted", 1, laststate=laststate)

    eventually(lambda: site.pair(late) == "gone", daemon.describe)
    assert site.computer(1) == "inuse"
    assert "inuse" in site.pair(session)
    assert site.world.machine("vm1").accounts
    assert site.world.machine("vm1").loads == loads
    assert site.scalar("SELECT COUNT(*) FROM request") == 1


def test_worker_that_died_before_it_had_the_computer_does_not_change_it(
    site: Site, daemons: Daemons
) -> None:
    daemon = daemons.start(max_attempts=1)
    in_session(site, daemon)
    late = site.ask("new", 1)
    waiting = f"|{late}|"
    (worker,) = eventually(
        lambda: [w for w in daemon.workers() if waiting in " ".join(w.cmdline())], daemon.describe
    )

    worker.kill()

    eventually(lambda: site.pair(late) == "failed/new", daemon.describe)
    assert site.computer(1) == "inuse"


@pytest.mark.parametrize("end", ["error", "death"])
def test_computer_that_was_handed_out_in_vain_is_loaded_anew(
    site: Site, daemons: Daemons, end: str
) -> None:
    """The user's account is on it: nobody else may get it as it is."""
    what = (
        {"signal": "KILL"}
        if end == "death"
        else {"error": "ProvisioningError", "blame": "MANAGEMENT_NODE"}
    )
    site.write_script(rules=[{"step": "guest:post-reserve", "times": 1, **what}])
    daemon = daemons.start(max_attempts=1)
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.world.machine("vm1").accounts

    site.connect(request)

    eventually(lambda: site.pair(request) == "failed/reserved", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.world.machine("vm1").loads == 2
    assert not site.world.machine("vm1").accounts


@pytest.mark.parametrize("broken", [1, 2], ids=["parent", "child"])
def test_cluster_that_was_handed_out_in_vain_is_loaded_anew(
    site: Site, daemons: Daemons, broken: int
) -> None:
    rule = {"step": "guest:grant-access", "error": "ProvisioningError", "blame": "COMPUTER"}
    site.write_script(rules=[{**rule, "computer": f"vm{broken}"}])
    daemon = daemons.start(postreserve_timeout=5)
    request = site.ask("new", 1, 2, 3)
    eventually(lambda: {site.computer(n) for n in (1, 2, 3)} == {"reserved"}, daemon.describe)

    site.connect(request)

    eventually(lambda: site.pair(request) == "failed/reserved", daemon.describe)
    others = [n for n in (1, 2, 3) if n != broken]
    eventually(lambda: {site.computer(n) for n in others} == {"available"}, daemon.describe)
    assert [site.world.machine(f"vm{n}").loads for n in others] == [2, 2]
    assert site.computer(broken) == "failed"


@pytest.mark.parametrize("ending", ["deleted", "timeout"])
def test_computer_that_could_not_be_taken_back_is_loaded_anew_before_the_next_user_has_it(
    site: Site, daemons: Daemons, ending: str
) -> None:
    """Nobody saw the user come, so nothing on the computer says that it was used."""
    daemon = daemons.start(max_attempts=2)
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.world.machine("vm1").accounts == ["ada"]
    site.write_script(rules=[{"step": "reclaim:sanitize", "signal": "KILL"}])

    site.set_state(request, ending, "reserved")

    gone = "failed/timeout" if ending == "timeout" else "gone"
    eventually(lambda: site.pair(request) == gone, daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.world.machine("vm1").accounts == []
    assert site.world.machine("vm1").loads == 2
