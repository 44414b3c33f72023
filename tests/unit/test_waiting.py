"""Waits that end early, however many descriptors a process has open."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from vcld.errors import WorkerStopped
from vcld.waiting import Cancellation


def test_cancellations_leave_no_descriptor_behind() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(200):
        Cancellation()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5


def test_descriptors_above_1023_are_waited_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1600), hard))
    read, write = os.pipe()
    high = os.dup2(read, 1500)
    try:
        os.write(write, b"!")
        assert Cancellation().wait(5, high) == [high]
    finally:
        for fd in (read, write, high):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stop_ends_a_wait_at_once() -> None:
    cancellation = Cancellation()
    threading.Timer(0.1, lambda: cancellation.stop("enough")).start()
    with pytest.raises(WorkerStopped, match="enough"):
        cancellation.wait(60)
