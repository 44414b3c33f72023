"""A short-lived process beside a worker, for what no user may wait for: mail."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import stat
from collections.abc import Callable

import setproctitle
import structlog

#: A process that outlives its own limit by so much is ended by the system.
SPARE_SECONDS = 5


def run_beside(work: Callable[[], object], title: str, *, limit_seconds: float) -> None:
    """Run ``work`` in a process of its own and do not wait for it.

    It is nobody's worker: it has its own process group, so that it outlives the worker's, and
    none of its connections, so that a worker's death is noticed. Without room for another
    process the work is done here.
    """
    try:
        pid = os.fork()
    except OSError as err:
        structlog.get_logger().warning("no process could be started", reason=str(err))
        work()
        return
    _leave_group(pid)
    if pid:
        return
    code = 70
    try:
        _leave_worker(title, limit_seconds)
        work()
        code = 0
    except Exception:  # noqa: BLE001 - it would be lost with the process
        structlog.get_logger().exception("work beside a worker failed")
    finally:
        os._exit(code)


def _leave_group(pid: int) -> None:
    """On both sides of the fork: the worker's group may be killed before its child has run."""
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)


def _leave_worker(title: str, limit_seconds: float) -> None:
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.alarm(math.ceil(limit_seconds) + SPARE_SECONDS)
    setproctitle.setproctitle(title)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        with contextlib.suppress(OSError):
            # Files stay: the log is one of them. Sockets and pipes are the worker's talk.
            if fd > 2 and not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
