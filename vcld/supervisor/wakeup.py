"""Waiting for the next turn, and for what ends the wait: signals and dead workers."""

from __future__ import annotations

import os
import queue
import selectors
import signal as signals
from collections.abc import Iterator

#: What the daemon is told by; the rest has its usual effect.
SIGNALS = (
    signals.SIGTERM,
    signals.SIGINT,
    signals.SIGHUP,
    signals.SIGUSR1,
    signals.SIGCHLD,
)


class Wakeup:
    """Signals as data: a handler only queues them, and ends the wait."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._wake_fd = -1

    def install(self) -> None:
        """Take the signals from now on."""
        self._wake_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.selector.register(self._wake_fd, selectors.EVENT_READ)
        signals.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in SIGNALS:
            signals.signal(number, lambda n, _frame: self._signals.put(n))

    def wait(self, seconds: float) -> None:
        """Wait for a signal or the end of an adopted worker, but no longer than this."""
        for key, _ in self.selector.select(max(0.0, seconds)):
            if key.fd == self._wake_fd:
                self._drain()

    def signals(self) -> Iterator[int]:
        """The signals that have come, oldest first."""
        while True:
            try:
                yield self._signals.get_nowait()
            except queue.Empty:
                return

    def leave(self) -> None:
        """In a child: no longer the parent's."""
        signals.set_wakeup_fd(-1)
        self.selector.close()
        os.close(self._wake_fd)

    def _drain(self) -> None:
        try:
            while os.read(self._wake_fd, 512):
                continue
        except BlockingIOError:
            return
