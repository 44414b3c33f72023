"""A computer as a worker sees it: connects when needed, again after a restart."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import paramiko

from vcld import clock
from vcld.errors import (
    AuthenticationError,
    CommandTimeoutError,
    ConnectionLostError,
    HostKeyChangedError,
    RemoteError,
)
from vcld.remote import blocking
from vcld.remote.connection import CommandResult, Connection, open_connection
from vcld.remote.dialling import REFUSED_SECONDS, dial
from vcld.remote.endpoint import Endpoint
from vcld.remote.identity import HostKeys
from vcld.waiting import Cancellation, pauses

T = TypeVar("T")

#: An answer that takes longer than this is none, when one just looks.
LOOK_SECONDS = 5.0
#: A computer that answers but lets us not in is asked again after this at the latest.
LONGEST_PAUSE_SECONDS = 3.0


def quote(arguments: Sequence[str]) -> str:
    """A command line whose words are these arguments, whatever they hold.

    Raises:
        ValueError: an argument holds a NUL, which no argument can.
    """
    if any("\0" in argument for argument in arguments):
        raise ValueError("an argument of a command holds a NUL character")
    return shlex.join(arguments)


class Remote:
    """One computer by SSH. Not for several threads at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        host_keys: HostKeys,
        cancellation: Cancellation,
        *,
        connect_seconds: float,
        log: Any,
    ) -> None:
        self.endpoint = endpoint
        self.host_keys = host_keys
        #: False while the computer is being loaded: its key may be the old system's.
        self.learns = True
        #: Commands run so far, for those who count round trips.
        self.commands = 0
        self._cancellation = cancellation
        self._connect_seconds = connect_seconds
        self._log = log
        self._connection: Connection | None = None

    def is_up(self) -> bool:
        """True when the computer lets us in now."""
        try:
            self.connect(min(LOOK_SECONDS, self._connect_seconds))
            return self.run(["true"], limit_seconds=LOOK_SECONDS).status == 0
        except (RemoteError, AuthenticationError) as err:
            self._log.debug("the computer does not answer", reason=str(err))
            return False

    def connect(self, limit_seconds: float | None = None) -> Connection:
        """The open connection, or a new one where that is gone.

        Raises:
            RemoteError: it cannot be had; see ``open_connection``.
        """
        if self._connection is not None and self._connection.is_alive:
            return self._connection
        self.close()
        self._connection = open_connection(
            self.endpoint,
            self.host_keys,
            self._cancellation,
            limit_seconds=limit_seconds or self._connect_seconds,
            learn=self.learns,
        )
        return self._connection

    def close(self) -> None:
        """End the connection; the next command makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def wait_until_up(self, limit_seconds: float) -> None:
        """Wait until the computer lets us in, on a new connection.

        Raises:
            RemoteError: it did not within the limit; the message tells the last reason.
            HostKeyChangedError: another computer answers.
        """
        self.close()
        deadline = clock.monotonic() + limit_seconds
        growing = pauses(0.1, LONGEST_PAUSE_SECONDS)
        while True:
            left = max(0.1, deadline - clock.monotonic())
            began = clock.monotonic()
            sock = dial(self.endpoint, self._cancellation, limit_seconds=left, persist=True)
            if clock.monotonic() - began >= REFUSED_SECONDS:
                # It was away: who answers now may be another, or have got further.
                growing = pauses(0.1, LONGEST_PAUSE_SECONDS)
            left = max(0.1, deadline - clock.monotonic())
            try:
                self._connection = open_connection(
                    self.endpoint,
                    self.host_keys,
                    self._cancellation,
                    limit_seconds=min(left, self._connect_seconds),
                    learn=self.learns,
                    sock=sock,
                )
            except HostKeyChangedError:
                raise
            except (RemoteError, AuthenticationError) as err:
                # While it starts it may refuse whom it will let in later.
                left = deadline - clock.monotonic()
                if left <= 0:
                    raise
                self._log.debug("the computer is not ready", reason=str(err))
                self._cancellation.wait(min(next(growing), left))
            else:
                return

    def run(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        limit_seconds: float = 60,
    ) -> CommandResult:
        """Run a command; a list is taken as arguments, a string is shell text as it stands.

        A connection that turns out to be dead before the command began is replaced, once.

        Raises:
            RemoteError: see ``Connection.run``.
        """
        line = command if isinstance(command, str) else quote(command)
        was_open = self._connection is not None
        try:
            return self._run(line, stdin, limit_seconds)
        except ConnectionLostError as err:
            if err.began or not was_open:
                raise
        self.close()
        return self._run(line, stdin, limit_seconds)

    def _run(self, line: str, stdin: bytes, limit_seconds: float) -> CommandResult:
        connection = self.connect()
        began = clock.monotonic()
        self.commands += 1
        result = connection.run(line, stdin=stdin, limit_seconds=limit_seconds)
        spent = round(clock.monotonic() - began, 3)
        self._log.debug("command run", status=result.status, seconds=spent)
        return result

    def put(
        self, data: bytes | Path, target: str, *, mode: int = 0o600, limit_seconds: float = 300
    ) -> None:
        """Write a file on the computer: the whole of it or nothing, whatever happens meanwhile.

        Raises:
            RemoteError: it could not be written; nothing of it is left.
        """
        folder = PurePosixPath(target).parent
        partial = str(folder / f".{PurePosixPath(target).name}.{secrets.token_hex(4)}.partial")

        def work(sftp: paramiko.SFTPClient) -> None:
            # Both compare the size in the end: a full disk is not told of otherwise.
            if isinstance(data, Path):
                sftp.put(str(data), partial)
            else:
                sftp.putfo(io.BytesIO(data), partial)
            sftp.chmod(partial, mode)
            sftp.posix_rename(partial, target)

        try:
            self._transfer(work, f"{target} could not be written on", limit_seconds)
        except BaseException:
            self._remove(partial)
            raise

    def get(self, source: str, target: Path, *, limit_seconds: float = 300) -> None:
        """Fetch a file from the computer: the whole of it or nothing.

        Raises:
            RemoteError: it could not be fetched; nothing of it is left.
        """
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")

        def work(sftp: paramiko.SFTPClient) -> None:
            sftp.get(source, str(partial))
            os.replace(partial, target)

        try:
            self._transfer(work, f"{source} could not be fetched from", limit_seconds)
        finally:
            partial.unlink(missing_ok=True)

    def _transfer(
        self, work: Callable[[paramiko.SFTPClient], T], what: str, limit_seconds: float
    ) -> T:
        connection = self.connect()
        try:
            return blocking.call(
                lambda: work(connection.open_sftp()),
                cancellation=self._cancellation,
                limit_seconds=limit_seconds,
                abandon=connection.close,
            )
        except TimeoutError as err:
            msg = f"{what} {self.endpoint} within {limit_seconds:.0f} s"
            raise CommandTimeoutError(msg) from err
        except (paramiko.SSHException, OSError, EOFError) as err:
            why = "the connection was lost" if not connection.is_alive else str(err)
            raise RemoteError(f"{what} {self.endpoint}: {why}") from err

    def _remove(self, path: str) -> None:
        """Take away what was left half done, even when the worker must stop; best effort."""
        with contextlib.suppress(RemoteError, AuthenticationError):
            patient = Cancellation()
            connection = open_connection(
                self.endpoint, self.host_keys, patient, limit_seconds=LOOK_SECONDS, learn=False
            )
            try:
                connection.run(quote(["rm", "-f", "--", path]), limit_seconds=LOOK_SECONDS)
            finally:
                connection.close()
