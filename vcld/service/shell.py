"""What surrounds the daemon: one per name, detached or not, with a pid file and logs.

It knows nothing of the work: that is given to ``run_service``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import resource
import select
import signal as signals
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import daemon
import structlog

from vcld import logs
from vcld.config import Settings
from vcld.errors import ConfigError, ExitCode, VcldError
from vcld.notify import READY, notify, status

#: The launcher of a detached daemon waits so long for it to be up.
LAUNCH_SECONDS = 30.0


class AlreadyRunningError(VcldError):
    """Another daemon holds the lock of this name. Nothing was touched; leave it alone."""

    exit_code = ExitCode.TRY_LATER


class Shell:
    """The daemon's ties to its surroundings: the lock, its launcher, systemd."""

    def __init__(self, lock: int, launcher: int | None = None) -> None:
        self.is_detached = launcher is not None
        self._lock = lock
        self._launcher = launcher

    def tell(self, state: str) -> None:
        """Tell systemd a state such as ``READY=1``, and the launcher when the daemon is up."""
        if state != READY:
            notify(state)
            return
        notify(f"{READY}\n{status('processing requests')}")
        self.answer(ExitCode.DONE)

    def answer(self, code: int, *sentences: str) -> None:
        """Let the launcher end with this exit code; only the first answer counts."""
        if self._launcher is None:
            return
        fd, self._launcher = self._launcher, None
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(fd, json.dumps([code, *sentences]).encode())
        os.close(fd)

    def release_in_child(self) -> None:
        """For a forked worker: it may outlive the daemon and must not keep its lock."""
        os.close(self._lock)
        if self._launcher is not None:
            os.close(self._launcher)


def run_service(settings: Settings, *, foreground: bool, run: Callable[[Shell], int]) -> int:
    """Be the daemon of ``processname``, and run it.

    Returns:
        What ``run`` returns. In the launcher of a detached daemon: DONE once it is up (or
        still starting after ``LAUNCH_SECONDS``), else its exit code, with its reason on stderr.

    Raises:
        AlreadyRunningError: another daemon holds the lock.
        ConfigError: lock or log cannot be written.
        VcldError: in the foreground, what ``run`` raises.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold passwords
    with _only_one(settings.pid_path) as lock:
        if foreground:
            check_log(settings, detached=False)
            set_up_logs(settings, detached=False)
            _take_signals()
            return run(Shell(lock))
        return _detach(settings, lock, run)


def set_up_logs(settings: Settings, *, detached: bool) -> None:
    """Log as the settings say; a daemon without a terminal always has a file."""
    logs.configure(
        level=settings.level,
        form=settings.log_format,
        path=_log_target(settings, detached=detached),
        process=settings.processname,
    )
    for warning in settings.warnings:
        structlog.get_logger().warning("configuration", problem=warning)


def _log_target(settings: Settings, *, detached: bool) -> Path | None:
    return settings.log_path if detached or settings.log else None


def check_log(settings: Settings, *, detached: bool) -> None:
    """Make sure that the log can be written.

    Raises:
        ConfigError: it cannot.
    """
    path = _log_target(settings, detached=detached)
    if path is None:
        return
    try:
        os.close(_open_log(path))
    except OSError as err:
        raise ConfigError(
            f"key log: {path} cannot be written ({err.strerror}); make its folder, or name another"
        ) from err


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _detach(settings: Settings, lock: int, run: Callable[[Shell], int]) -> int:
    """Return twice: in the launcher with the daemon's answer, in the daemon at its end."""
    log_path = settings.log_path
    check_log(settings, detached=True)
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child:
        os.close(write_fd)
        return _await_start(child, read_fd, log_path)
    os.close(read_fd)
    with (
        os.fdopen(_open_log(log_path), "a") as stray,  # what is not logged, such as a traceback
        daemon.DaemonContext(
            detach_process=True,
            files_preserve=[lock, write_fd, stray],
            stdout=stray,
            stderr=stray,
            umask=0o027,
            signal_map={},
        ),
    ):
        # Only now: opening the context closes all other files.
        set_up_logs(settings, detached=True)
        return _be_daemon(settings, lock, Shell(lock, write_fd), run)


def _be_daemon(settings: Settings, lock: int, shell: Shell, run: Callable[[Shell], int]) -> int:
    try:
        _write_holder(lock)
        with _pid_file(settings.pid_path):
            _take_signals()
            return run(shell)
    except VcldError as err:
        structlog.get_logger().critical("the daemon gives up", reason=str(err))
        sentences = err.problems if isinstance(err, ConfigError) else (str(err),)
        shell.answer(err.exit_code, *sentences)
        return err.exit_code


def _await_start(child: int, answer_fd: int, log_path: Path) -> int:
    with os.fdopen(answer_fd, "rb") as answer:
        if not select.select([answer], [], [], LAUNCH_SECONDS)[0]:
            sys.stderr.write(f"vcld: the daemon is still starting; {log_path} tells why\n")
            return ExitCode.DONE
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        sys.stderr.write(f"vcld: the daemon ended at its start; {log_path} tells why\n")
        return ExitCode.BUG
    code, *sentences = json.loads(text)
    for sentence in sentences:
        sys.stderr.write(f"vcld: {sentence}\n")
    return int(code)


@contextlib.contextmanager
def _only_one(pid_path: Path) -> Iterator[int]:
    """Hold a lock beside the pid file; it ends with the last process that has it open."""
    path = pid_path.with_name(f"{pid_path.name}.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as err:
        raise ConfigError(
            f"key pidfile: {path} cannot be written ({err.strerror}); make its folder, or name"
            " another"
        ) from err
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"vcld runs already (pid {holder}, lock {path}); stop it first, or set"
                " another processname or pidfile"
            ) from None
        _write_holder(lock)
        yield lock
    finally:
        os.close(lock)


def _write_holder(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


@contextlib.contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    try:
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as err:
        raise ConfigError(f"key pidfile: {path} cannot be written ({err.strerror})") from err
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take_signals() -> None:
    """Until the daemon has its own handlers: TERM ends it in good order, the rest may wait.

    USR2 writes the stack where stray output goes, from now on and in all children: somebody who
    takes the daemon for a worker must not end it.
    """
    faulthandler.register(signals.SIGUSR2, all_threads=True)
    signals.signal(signals.SIGTERM, _leave)
    signals.signal(signals.SIGHUP, signals.SIG_IGN)
    signals.signal(signals.SIGUSR1, signals.SIG_IGN)


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(ExitCode.DONE)
