"""What is said of a worker that is gone."""

from __future__ import annotations

import pytest

from vcld.processes import ProcessId
from vcld.supervisor.children import Child, Ended


@pytest.mark.parametrize(
    ("status", "is_killed", "manner"),
    [
        (None, False, "ended"),
        (75, False, "ended with code 75"),
        (-9, False, "was killed by SIGKILL (out of memory?)"),
        (-11, False, "was killed by SIGSEGV"),
        (-9, True, "was ended by the daemon: it did not stop in time"),
    ],
)
def test_manner_of_an_end(status: int | None, is_killed: bool, manner: str) -> None:
    child = Child(ProcessId(1, 1), None, "reservation 1", is_killed=is_killed)
    assert Ended(child, status).manner == manner
