"""Programs whose output is read as it comes, and those that nothing ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal as signals
import sys
import time
from pathlib import Path

import pytest

from tests.daemon import eventually
from vcld import programs
from vcld.processes import started_at
from vcld.programs import CommandStuckError, Program
from vcld.waiting import Cancellation


def python(body: str) -> list[str]:
    return [sys.executable, "-IS", "-c", f"import os, signal, sys, time\n{body}"]


def read_all(program: Program) -> bytes:
    parts = []
    while part := program.read(10, Cancellation()):
        parts.append(part)
    return b"".join(parts)


def test_a_program_that_says_much_beside_its_output_is_read_to_the_end() -> None:
    """A full pipe of errors would stop it, and its output with it."""
    body = "os.write(2, b'noise ' * 50000 + b'last')\nos.write(1, b'data')"
    with Program(python(body)) as program:
        assert read_all(program) == b"data"
        output = program.finish(10, Cancellation())
    assert output.err.endswith("noise last")


def test_errors_that_never_end_do_not_lengthen_the_wait_for_output() -> None:
    began = time.monotonic()
    with (
        Program(python("while True: os.write(2, b'x' * 100)")) as program,
        pytest.raises(CommandStuckError, match="gave nothing within"),
    ):
        program.read(0.5, Cancellation())
    assert time.monotonic() - began < 20


def test_the_end_may_be_asked_for_again() -> None:
    with Program(python("print(1)")) as program:
        first = program.finish(10, Cancellation())
        assert program.finish(10, Cancellation()) is first
        assert program.read(10, Cancellation()) == b""


def test_a_program_that_no_signal_ends_does_not_hold_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one does that waits for a file server that is away: here the signals do not reach it."""
    monkeypatch.setattr(programs, "ASKED_SECONDS", 0.1)
    monkeypatch.setattr(programs, "KILLED_SECONDS", 0.1)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    body = "print(os.getpid(), flush=True)\ntime.sleep(20)"
    began = time.monotonic()
    with Program(python(body)) as program:
        pid = int(program.read(10, Cancellation()))
    took = time.monotonic() - began
    os.kill(pid, signals.SIGKILL)
    program._process.wait()
    assert took < 15


def test_a_message_calls_it_by_its_name() -> None:
    with (
        Program(python("time.sleep(60)"), name="find on mn1") as program,
        pytest.raises(CommandStuckError, match=r"^find on mn1 did not end within 0\.2 s$"),
    ):
        program.finish(0.2, Cancellation())


def test_a_program_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    """Nobody waits for it any more, and the next worker does the same."""
    noted = tmp_path / "pid"
    body = f"open({str(noted)!r} + '.new', 'w').write(str(os.getpid()))\n"
    body += f"os.rename({str(noted)!r} + '.new', {str(noted)!r})\ntime.sleep(3600)"

    def work() -> None:
        with Program(python(body)) as program:
            program.finish(60, Cancellation())

    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    eventually(noted.exists)
    pid = int(noted.read_text())
    worker.kill()
    worker.join()

    try:
        eventually(lambda: started_at(pid) is None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signals.SIGKILL)
