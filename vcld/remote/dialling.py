"""Getting a TCP connection to a server that speaks: at once, or as soon as it is up."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from typing import Any

from vcld import clock
from vcld.errors import RemoteError
from vcld.remote import blocking
from vcld.remote.endpoint import Endpoint
from vcld.waiting import Cancellation

#: A server that begins to listen is seen after this time at the latest.
PROBE_SECONDS = 0.3
#: The pause after an attempt that was refused.
REFUSED_SECONDS = 0.1
#: An attempt is given up after this; a slow network has time to answer.
ATTEMPT_SECONDS = 6.0
#: A name that is not found by then is asked for again.
RESOLVE_SECONDS = 10.0


#: Family, type, protocol and address of a socket.
_Place = tuple[int, int, int, Any]


def _resolve(
    endpoint: Endpoint, cancellation: Cancellation, *, limit_seconds: float
) -> list[_Place]:
    """The addresses of a name. The resolver knows no limit of ours and cannot be stopped.

    Raises:
        OSError: the name is not known, or nobody says so within the limit.
        WorkerStopped: the worker must stop.
    """

    def ask() -> list[Any]:
        return socket.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)

    try:
        found = (
            ask()
            if _is_address(endpoint.address)
            else blocking.call(
                ask,
                cancellation=cancellation,
                limit_seconds=min(limit_seconds, RESOLVE_SECONDS),
                abandon=None,
            )
        )
    except TimeoutError as err:
        raise OSError(errno.ETIMEDOUT, f"no answer about the name {endpoint.address}") from err
    return [(family, kind, protocol, place) for family, kind, protocol, _, place in found]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


@dataclass
class _Attempts:
    """Connections under way; each is ready once the server's first bytes are there."""

    pending: dict[int, tuple[socket.socket, float]] = field(default_factory=dict)

    def start(self, places: list[_Place]) -> None:
        """Begin one more, to each address of the name's.

        Raises:
            OSError: there is no way to any of the addresses.
        """
        code = 0
        for family, kind, protocol, address in places:
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            code = made.connect_ex(address)
            if code in {0, errno.EINPROGRESS}:
                self.pending[made.fileno()] = made, clock.monotonic()
            else:
                made.close()
        if not self.pending:
            raise OSError(code, os.strerror(code))

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
                left = max(0.1, deadline - clock.monotonic())
                try:
                    attempts.start(_resolve(endpoint, cancellation, limit_seconds=left))
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
                cancellation.wait(REFUSED_SECONDS)
    finally:
        attempts.drop()
