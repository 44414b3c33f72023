"""Faults 18 and 23: a request deleted, or edited by hand, while its handler is at each step."""

from __future__ import annotations

import pytest

from tests.daemon import Daemon, Daemons, eventually
from tests.site import Site
from tests.steps import drive, prepare, set_up, step_names

#: Design invariant 9: noticed within 5 s. Some more for a machine that is busy otherwise.
NOTICED_SECONDS = 10.0


def arrive(site: Site, daemon: Daemon, step: str, *computers: int) -> list[int]:
    """Requests whose workers stand still at the step."""
    for computer in computers:
        prepare(site, step, computer)
    site.write_script(rules=[{"step": step, "hang": True}])
    requests = [drive(site, step, computer) for computer in computers]
    if step.startswith("reserved") and step != "reserved:offer":
        ready = ["reserved"] * len(computers)
        eventually(lambda: [site.computer(n) for n in computers] == ready, daemon.describe)
        for request in requests:
            site.connect(request)
    reached = set(requests)
    eventually(
        lambda: reached <= {e["request_id"] for e in daemon.events("step reached", step=step)},
        daemon.describe,
    )
    site.write_script(rules=[])
    return requests


@pytest.mark.parametrize("step", step_names())
def test_fault_18_23_request_changed_at_any_step_is_let_go_at_once(
    site: Site, daemons: Daemons, step: str
) -> None:
    """One is deleted, one edited: both workers stop, and what the operator wrote stands."""
    set_up(site, step)
    daemon = daemons.start(log_level="debug")
    deleted, edited = arrive(site, daemon, step, 1, 2)

    site.delete(deleted)
    site.set_state(edited, "maintenance", "new")

    def let_go() -> bool:
        return not [claim for claim in site.claims() if claim.requestid in {deleted, edited}]

    eventually(let_go, daemon.describe, limit_seconds=NOTICED_SECONDS)
    assert site.pair(edited) == "maintenance/new"
    assert site.pair(deleted) == "gone"
    states = [site.computer(1), site.computer(2)]
    assert "reloading" not in states
    rows = "SELECT COUNT(*) FROM computerloadlog WHERE reservationid NOT IN (SELECT id FROM reservation)"
    assert site.scalar(rows) == 0
    # The daemon is well and takes new work.
    eventually(lambda: not daemon.workers(), daemon.describe)
    other = site.ask("tomaintenance", 9)
    eventually(lambda: site.pair(other) == "gone", daemon.describe)


@pytest.mark.parametrize("step", [s for s in step_names() if s.startswith(("new", "reserved"))])
def test_fault_23_end_pressed_at_any_step_frees_the_computer(
    site: Site, daemons: Daemons, step: str
) -> None:
    """The user gives up: the worker stops, the computer is reclaimed and free again."""
    set_up(site, step)
    daemon = daemons.start(log_level="debug")
    (request,) = arrive(site, daemon, step, 1)

    site.end(request)

    eventually(lambda: site.pair(request) == "gone", daemon.describe, limit_seconds=20)
    free = {"available", "maintenance"} if step == "new:maintenance" else {"available"}
    eventually(lambda: site.computer(1) in free, daemon.describe)
    eventually(lambda: not site.claims(), daemon.describe)
