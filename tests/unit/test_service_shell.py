"""One daemon per name, detached or not: locks, pid files, launchers. Real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vcld.errors import ExitCode

#: Before the body of a test's ``run``, which has ``shell``, ``settings`` and ``folder``.
PREAMBLE = """
import os, pathlib, signal, sys, time
import structlog
from vcld.config import Settings
from vcld.errors import ConfigError, ExitCode, SchemaError, VcldError
from vcld.notify import READY
from vcld.service import run_service, shell as shells
folder = pathlib.Path(sys.argv[1])
foreground = sys.argv[2] == "foreground"
settings = Settings(
    fqdn="n1.example.org",
    pidfile=str(folder / "vcld.pid"),
    log=str(folder / "vcld.log"),
    warnings=("odd key",),
)
log = structlog.get_logger()
shells.LAUNCH_SECONDS = float(os.environ.get("VCLD_TEST_LAUNCH", "30"))
def serve():
    signal.signal(signal.SIGTERM, lambda *_: None)
    shell.tell(READY)
    log.info("serving", folder=os.getcwd(), session=os.getsid(0))
    signal.pause()
def run(given):
    global shell
    shell = given
"""
ENDING = """
try:
    sys.exit(run_service(settings, foreground=foreground, run=run))
except VcldError as err:
    sys.stderr.write(f"vcld: {err}\\n")
    sys.exit(err.exit_code)
"""


class Launches:
    """Runs programs as daemons in one folder, and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = self._root = folder
        self.pid_path = folder / "vcld.pid"
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, program: str, *, foreground: bool = False, **environ: str
    ) -> subprocess.Popen[str]:
        body = "".join(f"    {line}\n" for line in program.strip().splitlines())
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PREAMBLE + body + ENDING,
                str(self.folder),
                "foreground" if foreground else "daemon",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
            cwd=Path(__file__).parents[2],
        )
        self._started.append(process)
        return process

    def launch(self, program: str, **more: Any) -> tuple[int, str]:
        """Exit code and stderr of the launcher, which must end by itself."""
        process = self.start(program, **more)
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors

    @property
    def pid(self) -> int:
        return int(self.pid_path.read_text())

    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "vcld.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def is_locked(self) -> bool:
        with open(self.folder / "vcld.pid.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def end(self) -> None:
        # Daemons and workers hold the other end of the pipe that is read last.
        for found in psutil.process_iter(["cmdline"]):
            if str(self._root) in (found.info["cmdline"] or []):
                found.kill()
        for process in self._started:
            process.communicate(timeout=10)


@pytest.fixture
def launches(tmp_path: Path) -> Iterator[Launches]:
    launches = Launches(tmp_path)
    yield launches
    launches.end()


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not psutil.pid_exists(pid))


def test_launcher_ends_when_the_daemon_is_up_and_has_a_pid_file(launches: Launches) -> None:
    code, errors = launches.launch("serve()\nreturn 0")

    assert (code, errors) == (ExitCode.DONE, "")
    daemon = psutil.Process(launches.pid)
    assert daemon.is_running()
    eventually(lambda: launches.lines()[-1]["event"] == "serving")
    assert launches.lines()[-1]["folder"] == "/"
    assert launches.lines()[-1]["session"] not in {os.getsid(0), daemon.pid}
    assert daemon.terminal() is None


def test_pid_file_and_lock_go_with_the_daemon(launches: Launches) -> None:
    launches.launch("serve()\nreturn 0")
    assert launches.is_locked()

    stop(launches.pid)

    assert not launches.pid_path.exists()
    assert not launches.is_locked()


def test_logs_of_a_detached_daemon_are_written_and_warnings_come_first(launches: Launches) -> None:
    launches.launch("serve()\nreturn 0")

    eventually(lambda: len(launches.lines()) == 2)
    first, second = launches.lines()
    assert (first["level"], first["problem"]) == ("warning", "odd key")
    assert second["event"] == "serving"
    assert second["pid"] == launches.pid


def test_start_that_fails_is_told_by_the_launcher_with_its_exit_code(launches: Launches) -> None:
    code, errors = launches.launch("raise ConfigError('first thing', 'second thing')")

    assert code == ExitCode.CONFIG
    assert errors == "vcld: first thing\nvcld: second thing\n"
    assert launches.lines()[-1]["reason"] == "first thing; second thing"
    eventually(lambda: not launches.pid_path.exists())


def test_bug_at_the_start_is_told_by_the_launcher_and_its_traceback_is_in_the_log(
    launches: Launches,
) -> None:
    code, errors = launches.launch("raise RuntimeError('unforeseen')")

    assert code == ExitCode.BUG
    assert errors == f"vcld: the daemon ended at its start; {launches.folder}/vcld.log tells why\n"
    assert "RuntimeError: unforeseen" in (launches.folder / "vcld.log").read_text()


def test_launcher_does_not_wait_for_ever_for_a_daemon_that_waits(launches: Launches) -> None:
    """A database that is away is waited for; whoever started the daemon is not kept."""
    code, errors = launches.launch("signal.pause()\nreturn 0", VCLD_TEST_LAUNCH="0.5")

    assert code == ExitCode.DONE
    assert "still starting" in errors
    stop(launches.pid)
    assert not launches.pid_path.exists()


def test_second_daemon_is_refused_with_the_pid_of_the_first(launches: Launches) -> None:
    launches.launch("serve()\nreturn 0")

    for foreground in (True, False):
        code, errors = launches.launch("serve()\nreturn 0", foreground=foreground)

        assert code == ExitCode.TRY_LATER
        assert errors.splitlines() == [
            f"vcld: vcld runs already (pid {launches.pid}, lock {launches.pid_path}.lock);"
            " stop it first, or set another processname or pidfile"
        ]
    assert psutil.pid_exists(launches.pid)


def test_daemon_that_was_killed_leaves_no_obstacle(launches: Launches) -> None:
    launches.launch("serve()\nreturn 0")
    first = launches.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(first))
    assert launches.pid_path.exists()

    code, _ = launches.launch("serve()\nreturn 0")

    assert code == ExitCode.DONE
    assert launches.pid != first


@pytest.mark.parametrize("foreground", [True, False])
def test_worker_that_outlives_the_daemon_does_not_keep_its_lock(
    launches: Launches, foreground: bool
) -> None:
    launches.start(
        "worker = os.fork()\n"
        "if not worker:\n"
        "    shell.release_in_child()\n"
        "    (folder / 'worker').write_text(str(os.getpid()))\n"
        "    signal.pause()\n"
        "serve()\n"
        "os._exit(0)",
        foreground=foreground,
    )
    eventually(lambda: (folder := launches.folder / "worker").exists() and folder.read_text())
    eventually(
        lambda: (launches.folder / "vcld.log").exists() and "serving" in str(launches.lines())
    )
    daemon = launches.lines()[-1]["pid"]
    worker = int((launches.folder / "worker").read_text())

    os.kill(daemon, signal.SIGKILL)

    eventually(lambda: not launches.is_locked())
    assert psutil.pid_exists(worker)


def test_command_that_the_daemon_runs_does_not_inherit_the_lock(launches: Launches) -> None:
    launches.launch(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "log.info('child', child=child.pid)\n"
        "serve()\n"
        "return 0"
    )
    eventually(lambda: len(launches.lines()) >= 2)
    child = next(line["child"] for line in launches.lines() if "child" in line)
    stop(launches.pid)

    try:
        assert psutil.pid_exists(child)
        assert not launches.is_locked()
    finally:
        os.kill(child, signal.SIGKILL)


def test_foreground_returns_what_the_work_returns(launches: Launches) -> None:
    code, errors = launches.launch("return ExitCode.TRY_LATER", foreground=True)

    assert (code, errors) == (ExitCode.TRY_LATER, "")
    assert not launches.pid_path.exists()


def test_term_before_the_daemon_is_up_ends_it_in_good_order(launches: Launches) -> None:
    process = launches.start("log.info('starting')\nsignal.pause()", foreground=True)
    log = launches.folder / "vcld.log"
    eventually(lambda: log.exists() and "starting" in log.read_text())

    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)

    assert process.wait(20) == ExitCode.DONE


def test_no_crash_leaves_a_dump_with_passwords(launches: Launches) -> None:
    code, _ = launches.launch(
        "import resource\nreturn 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1",
        foreground=True,
    )

    assert code == 0


@pytest.mark.parametrize("foreground", [True, False])
def test_log_that_cannot_be_written_is_told_before_anything_begins(
    launches: Launches, foreground: bool
) -> None:
    (launches.folder / "vcld.log").mkdir()

    code, errors = launches.launch("serve()", foreground=foreground)

    assert code == ExitCode.CONFIG
    assert errors == (
        f"vcld: key log: {launches.folder}/vcld.log cannot be written (Is a directory);"
        " make its folder, or name another\n"
    )


def test_folder_of_the_pid_file_that_is_not_there_is_told(launches: Launches) -> None:
    launches.folder = launches.folder / "nowhere"

    code, errors = launches.launch("serve()")

    assert code == ExitCode.CONFIG
    assert "key pidfile: " in errors
    assert "No such file or directory" in errors
