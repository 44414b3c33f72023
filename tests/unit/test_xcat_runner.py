"""Commands that hang, flood or print rubbish never hold a worker (fault 45)."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vcld.errors import WorkerStopped
from vcld.programs import CommandStuckError, Output
from vcld.provisioning.xcat.failures import XcatMissingError
from vcld.provisioning.xcat.runner import LocalRunner
from vcld.waiting import Cancellation

Run = Callable[..., Output]
Left = Callable[[], list[int]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a Python program as if it were a command of xCAT."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "thing"

    def run(body: str, limit: float = 20.0, cancellation: Cancellation | None = None) -> Output:
        command.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{body}\n")
        command.chmod(0o755)
        runner = LocalRunner(str(tmp_path))
        return runner.run(
            ["thing", "a b", "$(x)"],
            limit_seconds=limit,
            cancellation=cancellation or Cancellation(),
        )

    return run


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """Processes of the command that still live, orphans among them; the killed need a moment."""

    def find() -> list[int]:
        return [
            p.pid
            for p in psutil.process_iter(["cmdline", "status"])
            if str(tmp_path) in " ".join(p.info["cmdline"] or ())
            and p.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def left() -> list[int]:
        deadline = time.monotonic() + 10
        while find() and time.monotonic() < deadline:
            time.sleep(0.02)
        return find()

    return left


def test_output_of_both_streams_and_the_code_come_back(run: Run) -> None:
    found = run("print('one: on'); sys.stderr.write('two: Error: no\\n'); sys.exit(3)")
    assert (found.code, found.lines) == (3, ["one: on", "two: Error: no"])


def test_arguments_never_meet_a_shell(run: Run) -> None:
    assert run("print(sys.argv[1:])").out == "['a b', '$(x)']\n"


def test_a_command_that_hangs_is_ended_with_its_children(run: Run, left: Left) -> None:
    body = "pid = os.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(3600)"
    with pytest.raises(CommandStuckError, match=r"did not end within 0\.5 s"):
        run(body, limit=0.5)
    assert left() == []


def test_a_child_that_keeps_the_output_open_does_not_hold_us(run: Run, left: Left) -> None:
    body = "print('node: on', flush=True)\nif os.fork() == 0: time.sleep(3600)"
    assert run(body).out == "node: on\n"
    assert left() == []


def test_a_command_that_closes_its_output_and_goes_on_is_ended(run: Run) -> None:
    with pytest.raises(CommandStuckError):
        run("os.close(1); os.close(2); time.sleep(3600)", limit=0.5)


@pytest.mark.parametrize("block", ["b'node: noise\\\\n' * 10000", "b'x' * 100000"])
def test_a_flood_is_cut_off(run: Run, block: str, left: Left) -> None:
    body = f"for _ in range(1000): os.write(1, {block})".replace("\\\\", "\\")
    with pytest.raises(CommandStuckError, match="printed more than 8 MB"):
        run(body)
    assert left() == []


def test_rubbish_is_read_as_text(run: Run) -> None:
    found = run(r"os.write(1, b'\xff\xfe node: on\xc3\nblade1: on\n')")
    assert found.lines[-1] == "blade1: on"


def test_a_command_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    runner = LocalRunner(str(tmp_path))
    with pytest.raises(XcatMissingError, match=r"nodeset is not in .* set XCATROOT"):
        runner.run(["nodeset"], limit_seconds=1, cancellation=Cancellation())


def test_a_worker_that_must_stop_ends_its_command(run: Run, left: Left) -> None:
    cancellation = Cancellation()
    threading.Timer(0.3, cancellation.stop, ["the request was deleted"]).start()
    began = time.monotonic()
    with pytest.raises(WorkerStopped):
        run("time.sleep(3600)", limit=60, cancellation=cancellation)
    assert time.monotonic() - began < 30
    assert left() == []


def test_no_descriptor_is_left_open(run: Run) -> None:
    cancellation = Cancellation()
    run("print(1)", cancellation=cancellation)
    before = len(os.listdir("/proc/self/fd"))
    run("print(1)", cancellation=cancellation)
    assert len(os.listdir("/proc/self/fd")) == before
