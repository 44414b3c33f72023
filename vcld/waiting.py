"""Waiting that ends early: the only place where a worker sleeps.

A worker is told to stop by a signal. The handler only notes the reason and counts up an
eventfd, so that every wait here, and every poll of a plugin on ``Cancellation.fileno``,
wakes at once. Nothing is ever raised from inside a signal handler.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import weakref
from collections.abc import Callable, Iterator

from vcld import clock
from vcld.errors import WorkerStopped


class Cancellation:
    """Tells work in progress that it must stop, and why.

    ``ask`` is called at most every ``ask_interval_seconds`` to find a reason that nobody
    signalled (the parent may be dead); it returns a reason or None and must not block long.
    """

    def __init__(
        self, ask: Callable[[], str | None] | None = None, *, ask_interval_seconds: float = 3.0
    ) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._fd).atexit = False
        self._reason: str | None = None
        self._look = False
        self._ask = ask
        self._ask_interval_seconds = ask_interval_seconds
        self._asked_at = clock.monotonic()

    def fileno(self) -> int:
        """A descriptor that becomes readable when there may be a reason to stop."""
        return self._fd

    def stop(self, reason: str) -> None:
        """Ask the work to stop. Safe in a signal handler; the first reason stays."""
        if self._reason is None:
            self._reason = reason
        self._wake()

    def look(self) -> None:
        """Make the next check ask at once. Safe in a signal handler."""
        self._look = True
        self._wake()

    def reason(self) -> str | None:
        """Why the work must stop, or None."""
        due = clock.monotonic() - self._asked_at >= self._ask_interval_seconds
        if self._reason is None and self._ask is not None and (self._look or due):
            self._look = False
            self._asked_at = clock.monotonic()
            self._reason = self._ask()
        return self._reason

    def check(self) -> None:
        """Go on, or raise WorkerStopped."""
        reason = self.reason()
        if reason is not None:
            raise WorkerStopped(reason)

    def wait(self, seconds: float, *fds: int) -> list[int]:
        """Wait until the time is over or one of ``fds`` is readable; return those that are.

        Raises:
            WorkerStopped: when the work must stop, at once.
        """
        deadline = clock.monotonic() + max(0.0, seconds)
        poll = select.poll()  # not select, which knows no descriptor above 1023
        for fd in (self._fd, *fds):
            poll.register(fd, select.POLLIN)
        while True:
            self.check()
            left = deadline - clock.monotonic()
            if left <= 0 and not fds:
                return []
            slice_seconds = max(0.0, min(left, self._ask_interval_seconds))
            ready = [fd for fd, _ in poll.poll(math.ceil(slice_seconds * 1000))]
            if self._fd in ready:
                self._drain()
                ready.remove(self._fd)
            if ready or left <= 0:
                return ready

    def _wake(self) -> None:
        os.eventfd_write(self._fd, 1)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)


def pauses(first_seconds: float, longest_seconds: float, factor: float = 1.5) -> Iterator[float]:
    """Yield pauses that grow from the first to the longest and stay there."""
    pause = first_seconds
    while True:
        yield min(pause, longest_seconds)
        pause *= factor


def wait_until(
    condition: Callable[[], bool],
    cancellation: Cancellation,
    *,
    limit_seconds: float,
    first_pause_seconds: float = 0.1,
    longest_pause_seconds: float = 2.0,
) -> bool:
    """Ask ``condition`` until it holds (True) or the limit has passed (False).

    It is asked at least once, and once more at the limit.
    """
    deadline = clock.monotonic() + limit_seconds
    for pause in pauses(first_pause_seconds, longest_pause_seconds):
        if condition():
            return True
        left = deadline - clock.monotonic()
        if left <= 0:
            return False
        cancellation.wait(min(pause, left))
    return False
