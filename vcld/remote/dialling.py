"""Getting a TCP connection to a server that speaks: at once, or as soon as it is up."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass, field

from vcld import clock
from vcld.errors import RemoteError
from vcld.remote.endpoint import Endpoint
from vcld.waiting import Cancellation

#: A server that begins to listen is seen after this time at the latest.
PROBE_SECONDS = 0.3
#: An attempt is given up after this; a slow network has time to answer.
ATTEMPT_SECONDS = 6.0


@dataclass
class _Attempts:
    """Connections under way; each is ready once the server's first bytes are there."""

    pending: dict[int, tuple[socket.socket, float]] = field(default_factory=dict)

    def start(self, endpoint: Endpoint) -> None:
        """Begin one more, to each address of the name's.

        Raises:
            OSError: the name is not known, or there is no way to the address.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            endpoint.address, endpoint.port, type=socket.SOCK_STREAM
        )[0]
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        code = made.connect_ex(address)
        if code not in {0, errno.EINPROGRESS}:
            made.close()
            raise OSError(code, os.strerror(code))
        self.pending[made.fileno()] = made, clock.monotonic()

    def take(self, fd: int) -> socket.socket:
        """The connection, which has something to read.

        Raises:
            OSError: what there is to read is a failure.
        """
        made, _ = self.pending.pop(fd)
        try:
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if not made.recv(1, socket.MSG_PEEK):
                raise OSError(errno.ECONNRESET, "the connection was closed at once")
        except OSError:
            made.close()
            raise
        return made

    def drop(self, older_than_seconds: float = 0.0) -> None:
        for fd, (made, since) in list(self.pending.items()):
            if clock.monotonic() - since >= older_than_seconds:
                del self.pending[fd]
                with contextlib.suppress(OSError):
                    made.close()


def dial(
    endpoint: Endpoint, cancellation: Cancellation, *, limit_seconds: float, persist: bool
) -> socket.socket:
    """Connect and wait until the server has begun to speak.

    With ``persist`` a refusal is not the end: a new attempt is made every ``PROBE_SECONDS``,
    whether the earlier ones have an answer or not, so that no lost packet costs more than that.

    Raises:
        RemoteError: it could not be done within the limit; the message says why.
        WorkerStopped: the worker must stop.
    """
    deadline = clock.monotonic() + limit_seconds
    attempts, why, started = _Attempts(), "no answer", False
    try:
        while True:
            if persist or not started:
                attempts.drop(ATTEMPT_SECONDS if persist else limit_seconds)
                try:
                    attempts.start(endpoint)
                except OSError as err:
                    why = err.strerror or str(err)
                started = True
            left = deadline - clock.monotonic()
            if left <= 0 or not (persist or attempts.pending):
                raise RemoteError(f"{endpoint} cannot be reached: {why}")
            pause = min(PROBE_SECONDS, left) if persist else left
            for fd in cancellation.wait(pause, *attempts.pending):
                try:
                    return attempts.take(fd)
                except OSError as err:
                    why = err.strerror or str(err)
            if persist:
                # A refusal comes at once; the next attempt does not.
                cancellation.wait(min(PROBE_SECONDS, 0.1))
    finally:
        attempts.drop()
