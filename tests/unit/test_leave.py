"""A worker whose daemon is dead, on a machine that the network has cut off."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from vcld import clock
from vcld.config import Settings
from vcld.errors import WorkerStopped
from vcld.schema.engine import make_engine
from vcld.supervisor.warming import NOBODY
from vcld.worker.leave import LEASE_LOST, Leave

LIMIT_SECONDS = 300


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock; set its only entry."""
    times = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: times[0])
    return times


def leave_of(state: str) -> Leave:
    unreachable = make_engine("mysql+pymysql://vcl@127.0.0.1:9/vcl", connect_timeout_seconds=1)
    assignment: Any = SimpleNamespace(
        settings=Settings(takeover_after_seconds=LIMIT_SECONDS),
        database=SimpleNamespace(engine=unreachable),
        node=SimpleNamespace(id=1),
    )
    return Leave(assignment, lambda: replace(NOBODY, state=state))


def test_it_stops_before_another_node_may_have_taken_over(now: list[float]) -> None:
    leave = leave_of("new")
    now[0] += 0.8 * LIMIT_SECONDS
    leave.cancellation.check()

    now[0] += 0.12 * LIMIT_SECONDS

    with pytest.raises(WorkerStopped, match=LEASE_LOST):
        leave.cancellation.check()


def test_a_capture_goes_on(now: list[float]) -> None:
    leave = leave_of("image")
    now[0] += 2 * LIMIT_SECONDS

    leave.cancellation.check()
