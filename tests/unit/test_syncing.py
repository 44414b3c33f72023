"""What makes files safe on the disk holds nobody up, and hides no error."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from vcld import syncing
from vcld.errors import WorkerStopped
from vcld.syncing import sync
from vcld.waiting import Cancellation


def test_a_full_disk_is_told_though_it_shows_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="No space left"):
        sync(file.fileno(), Cancellation())


def test_a_disk_that_hangs_ends_no_later_than_the_worker_or_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: answers.wait(30))
    cancellation = Cancellation()
    before, began = len(os.listdir("/proc/self/fd")), time.monotonic()
    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(syncing, "SYNC_SECONDS", 0.1)
        with pytest.raises(TimeoutError):
            sync(file.fileno(), cancellation)
        cancellation.stop("the request was deleted")
        with pytest.raises(WorkerStopped):
            sync(file.fileno(), cancellation)
    assert time.monotonic() - began < 15
    answers.set()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(os.listdir("/proc/self/fd")) <= before
