"""Forked workers and adopted ones: starting them, seeing them end, telling them to stop.

The parent has one thread, so that a fork is safe; Python would warn otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal as signals
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vcld import clock
from vcld.processes import ProcessId, started_at
from vcld.states.table import STATES
from vcld.store.grips import Grip

#: A worker told to stop gets this long before it is killed.
STOP_PATIENCE_SECONDS = 15.0


@dataclass(slots=True)
class Child:
    """A process that holds a claim; ``grip`` is None for block allocations and probes."""

    process: ProcessId
    grip: Grip | None
    purpose: str
    #: Readable at the end of an adopted process; our own children are waited for.
    pidfd: int | None = None
    told_at: float | None = None
    #: The daemon itself has ended it.
    is_killed: bool = False

    @property
    def is_interruptible(self) -> bool:
        """False for work that would do harm half done (``State.uninterruptible``)."""
        return self.grip is None or not STATES[self.grip.state].uninterruptible


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that is gone. ``status`` is its exit code, negative for a signal's number.

    None: it was adopted, and nobody can know.
    """

    child: Child
    status: int | None

    @property
    def manner(self) -> str:
        """How it ended, for people."""
        if self.status is None:
            return "ended"
        if self.child.is_killed:
            return "was ended by the daemon: it did not stop in time"
        if self.status < 0:
            name = signals.Signals(-self.status).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"was killed by {name}{hint}"
        return f"ended with code {self.status}"


class Children:
    """All processes that work for this daemon."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._by_pid: dict[int, Child] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    @property
    def workers(self) -> int:
        """How many hold a claim."""
        return sum(child.grip is not None for child in self._by_pid.values())

    def interruptible(self) -> list[Child]:
        """Those that may be stopped."""
        return [child for child in self if child.is_interruptible]

    def find(self, reservationid: int) -> Child | None:
        """The child that works on a reservation."""
        for child in self._by_pid.values():
            if child.grip is not None and child.grip.reservationid == reservationid:
                return child
        return None

    def spawn(self, purpose: str, grip: Grip | None, work: Callable[[], int]) -> Child:
        """Fork a process that runs ``work`` and ends with the code it returns.

        Raises:
            OSError: the system has no room for another process.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _live_and_die(work)
        child = Child(ProcessId(pid, started_at(pid) or 0), grip, purpose)
        self._by_pid[pid] = child
        return child

    def adopt(self, process: ProcessId, grip: Grip) -> bool:
        """Watch over a worker of an earlier daemon. False when it is gone."""
        if process.pid in self._by_pid:
            return True  # the start was tried before, and the database went away
        pidfd = process.open_pidfd()
        if pidfd is None:
            return False
        child = Child(process, grip, f"reservation {grip.reservationid}", pidfd)
        self._by_pid[process.pid] = child
        self._selector.register(pidfd, selectors.EVENT_READ)
        return True

    def reap(self) -> list[Ended]:
        """Collect every child that has ended."""
        ended = []
        for child in self:
            if child.pidfd is not None:
                if not child.process.is_alive():
                    self._selector.unregister(child.pidfd)
                    os.close(child.pidfd)
                    ended.append(Ended(child, None))
                continue
            try:
                pid, status = os.waitpid(child.process.pid, os.WNOHANG)
            except ChildProcessError:
                ended.append(Ended(child, None))
                continue
            if pid:
                ended.append(Ended(child, os.waitstatus_to_exitcode(status)))
        for item in ended:
            del self._by_pid[item.child.process.pid]
            self._end_group(item.child)
        return ended

    def tell_to_look(self, child: Child) -> None:
        """Let a worker find out that its request was changed; kill it if it does not."""
        now = clock.monotonic()
        if child.told_at is None:
            child.told_at = now
        if now - child.told_at > STOP_PATIENCE_SECONDS:
            self.kill(child)
        else:
            child.process.send(signals.SIGUSR1)

    def tell_to_stop(self, child: Child) -> None:
        """Ask a worker to hand back what it holds."""
        child.process.send(signals.SIGTERM)

    def kill(self, child: Child) -> None:
        """End a worker and what it started, at once."""
        child.is_killed = True
        child.process.send(signals.SIGKILL)
        self._end_group(child)

    @staticmethod
    def _end_group(child: Child) -> None:
        # Commands that a dead worker had started must not go on.
        if child.grip is not None and child.process.pid > 1:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signals.SIGKILL)


def _live_and_die(work: Callable[[], int]) -> None:
    code = 70
    try:
        code = int(work())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def freeze() -> None:
    """Keep what is loaded out of the collector, so that children share its memory."""
    gc.collect()
    gc.freeze()
