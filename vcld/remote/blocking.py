"""Calls that block without a way to stop them, made to end with the worker and in time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from vcld.waiting import Cancellation

T = TypeVar("T")


def call(
    work: Callable[[], T],
    *,
    cancellation: Cancellation,
    limit_seconds: float,
    abandon: Callable[[], None] | None,
) -> T:
    """Do ``work`` in a thread and wait for it.

    ``abandon`` is called when nobody waits any more; it must make ``work`` end soon, as closing
    its connection does. None: nothing can, and the thread is left to itself.

    Raises:
        TimeoutError: the limit has passed.
        WorkerStopped: the worker must stop.
    """
    done = os.eventfd(0, os.EFD_CLOEXEC)
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(err)
        finally:
            os.eventfd_write(done, 1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ended = False
    try:
        ended = bool(cancellation.wait(limit_seconds, done))
    finally:
        if not ended and abandon is not None:
            abandon()
        # Abandoned, it ends within the time that its connection takes to close.
        if ended or abandon is not None:
            thread.join(timeout=None if ended else 5.0)
        if not thread.is_alive():
            os.close(done)
    if not ended:
        raise TimeoutError
    if errors:
        raise errors[0]
    return result[0]
