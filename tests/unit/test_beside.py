"""What runs beside a worker outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.daemon import eventually
from vcld.messages import beside


def test_process_outlives_the_group_of_a_worker_that_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = beside._leave_worker

    def leave_late(title: str, limit_seconds: float) -> None:
        time.sleep(0.3)
        leave(title, limit_seconds)

    monkeypatch.setattr(beside, "_leave_worker", leave_late)
    worker = os.fork()
    if not worker:
        os.setpgid(0, 0)
        beside.run_beside((tmp_path / "sent").touch, "vcld: sends mail", limit_seconds=10)
        os._exit(0)
    os.waitpid(worker, 0)

    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)  # as the daemon does with what a worker leaves

    eventually((tmp_path / "sent").exists)
