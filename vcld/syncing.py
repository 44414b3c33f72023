"""Files safe on the disk. It may take minutes for one of many GB, in which the worker waits."""

from __future__ import annotations

import errno
import os
import threading

from vcld.waiting import Cancellation

#: A disk that takes longer hangs.
SYNC_SECONDS = 1800.0


def sync(fd: int, cancellation: Cancellation) -> None:
    """``fsync`` beside a wait by ``cancellation``, which renews leases and may end it.

    Raises:
        OSError: the file is not safe; also when that takes too long.
        WorkerStopped: the worker was told to stop.
    """
    # It may outlive our wait: it has a descriptor of its own.
    own = os.dup(fd)
    ended = Cancellation()
    problems: list[OSError] = []

    def work() -> None:
        try:
            os.fsync(own)
        except OSError as err:
            problems.append(err)
        finally:
            os.close(own)
            ended.stop("done")

    threading.Thread(target=work, name="sync", daemon=True).start()
    if not cancellation.wait(SYNC_SECONDS, ended.fileno()):
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    if problems:
        raise problems[0]
