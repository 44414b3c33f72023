"""One authenticated SSH connection and the commands on it."""

from __future__ import annotations

import contextlib
import logging
import socket
from dataclasses import dataclass

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
from vcld.remote.dialling import dial
from vcld.remote.endpoint import Endpoint, key_text, load_key
from vcld.remote.identity import HostKeys, fingerprint
from vcld.waiting import Cancellation

#: What matters of a failed connection is in our own errors, in one line.
QUIET = "vcld.remote.quiet"
logging.getLogger(QUIET).addHandler(logging.NullHandler())
logging.getLogger(QUIET).propagate = False

#: Together they notice within 15 s that the other side has gone without a word.
KEEPALIVE_SECONDS, UNANSWERED_MS = 3, 7000
#: Output beyond this is dropped; a command that writes more than the second is ended.
KEPT_BYTES, FLOOD_BYTES = 1 << 20, 16 << 20
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command did. ``output`` holds both its streams, in the order they came."""

    #: The exit status; -1 when a signal ended it.
    status: int
    output: str
    #: True when there was more output than was kept.
    truncated: bool = False

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


class Connection:
    """An open connection; ``open_connection`` makes one."""

    def __init__(
        self, transport: paramiko.Transport, endpoint: Endpoint, cancellation: Cancellation
    ) -> None:
        self._transport = transport
        self.endpoint = endpoint
        self._cancellation = cancellation

    @property
    def is_alive(self) -> bool:
        """False once the connection is known to be gone."""
        return self._transport.is_active()

    def close(self) -> None:
        self._transport.close()

    def run(self, command: str, *, stdin: bytes = b"", limit_seconds: float = 60) -> CommandResult:
        """Run a command line in the other side's shell. What is secret goes to ``stdin``.

        Raises:
            CommandTimeoutError: it did not end in time; it is told to end.
            ConnectionLostError: the connection broke, before or while it ran.
            RemoteError: it flooded us.
            WorkerStopped: the worker must stop.
        """
        channels: list[paramiko.Channel] = []
        began: list[bool] = []

        def work() -> CommandResult:
            # Longer than the limit, which says what it was: this one would look like a lost
            # connection, and a new one would be tried.
            channel = self._transport.open_session(timeout=limit_seconds + 5)
            channels.append(channel)
            channel.set_combine_stderr(True)
            channel.exec_command(command)
            began.append(True)
            channel.sendall(stdin)
            channel.shutdown_write()
            return self._read(channel)

        def abandon() -> None:
            for channel in channels:
                channel.close()
            if not channels:
                self.close()  # it does not even open a channel

        try:
            return blocking.call(
                work,
                cancellation=self._cancellation,
                limit_seconds=limit_seconds,
                abandon=abandon,
            )
        except TimeoutError as err:
            msg = f"a command on {self.endpoint} did not end within {limit_seconds:.0f} s"
            raise CommandTimeoutError(msg) from err
        except (paramiko.SSHException, OSError, EOFError) as err:
            raise self._lost(err, began=bool(began)) from err
        finally:
            for channel in channels:
                channel.close()

    def open_sftp(self) -> paramiko.SFTPClient:
        """A session for files; blocks, so call it through ``blocking.call``."""
        sftp = paramiko.SFTPClient.from_transport(self._transport)
        if sftp is None:
            raise RemoteError(f"{self.endpoint} has no SFTP service")
        return sftp

    def _read(self, channel: paramiko.Channel) -> CommandResult:
        kept, total = bytearray(), 0
        while True:
            data = channel.recv(_CHUNK_BYTES)
            if not data:
                break
            total += len(data)
            kept += data[: max(0, KEPT_BYTES - len(kept))]
            if total > FLOOD_BYTES:
                channel.close()
                msg = f"a command on {self.endpoint} wrote more than {FLOOD_BYTES >> 20} MiB"
                raise RemoteError(msg)
        status = channel.recv_exit_status()
        if status == -1 and not self.is_alive:
            raise self._lost(None, began=True)
        return CommandResult(status, kept.decode("utf-8", "replace"), total > len(kept))

    def _lost(self, err: Exception | None, *, began: bool) -> ConnectionLostError:
        why = _reason(self._transport.get_exception() or err)
        msg = f"the connection to {self.endpoint} was lost: {why}"
        return ConnectionLostError(msg, began=began)


def _reason(err: BaseException | None) -> str:
    if err is None or isinstance(err, EOFError):
        return "the other side closed it"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return str(err) or type(err).__name__


def open_connection(
    endpoint: Endpoint,
    host_keys: HostKeys,
    cancellation: Cancellation,
    *,
    limit_seconds: float,
    learn: bool = True,
    sock: socket.socket | None = None,
) -> Connection:
    """Connect, check the host key, log in with the first key that is taken.

    ``learn`` keeps the key of a computer that is not known yet. ``sock`` is a connection that
    was made already.

    Raises:
        RemoteError: the server cannot be reached or does not answer in time.
        HostKeyChangedError: it is not the computer we know.
        AuthenticationError: it takes none of our keys.
        WorkerStopped: the worker must stop.
    """
    deadline = clock.monotonic() + limit_seconds
    keys = [load_key(path) for path in endpoint.keys]
    if sock is None:
        sock = dial(endpoint, cancellation, limit_seconds=limit_seconds, persist=False)
    known = host_keys.find()
    transport = _make_transport(sock)
    good = False
    try:
        _log_in(transport, endpoint, known, keys, cancellation, deadline)
        good = True
    except TimeoutError as err:
        msg = f"{endpoint} did not finish the SSH handshake within {limit_seconds:.0f} s"
        raise RemoteError(msg) from err
    except (paramiko.SSHException, OSError, EOFError) as err:
        msg = f"no SSH connection to {endpoint}: {_reason(transport.get_exception() or err)}"
        raise RemoteError(msg) from err
    finally:
        if not good:
            transport.close()
    transport.set_keepalive(KEEPALIVE_SECONDS)
    if known is None and learn:
        host_keys.learn(key_text(transport.get_remote_server_key()))
    return Connection(transport, endpoint, cancellation)


def _make_transport(sock: socket.socket) -> paramiko.Transport:
    _watch_socket(sock)
    transport = paramiko.Transport(sock)
    transport.set_log_channel(QUIET)
    return transport


def _log_in(
    transport: paramiko.Transport,
    endpoint: Endpoint,
    known: str | None,
    keys: list[paramiko.PKey],
    cancellation: Cancellation,
    deadline: float,
) -> None:
    """Handshake and authentication by the deadline, or TimeoutError."""

    def work() -> None:
        _shake_hands(transport, endpoint, known, max(0.1, deadline - clock.monotonic()))
        _authenticate(transport, endpoint, keys)

    blocking.call(
        work,
        cancellation=cancellation,
        limit_seconds=max(0.1, deadline - clock.monotonic()),
        abandon=transport.close,
    )


def _watch_socket(sock: socket.socket) -> None:
    sock.setblocking(True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Unanswered keepalives end the connection, instead of retransmissions for a quarter hour.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)


def _shake_hands(
    transport: paramiko.Transport, endpoint: Endpoint, known: str | None, limit_seconds: float
) -> None:
    transport.banner_timeout = limit_seconds
    transport.handshake_timeout = limit_seconds
    transport.auth_timeout = limit_seconds
    if known is not None:
        # Of several keys the server must show the one we know.
        options = transport.get_security_options()
        kind = known.partition(" ")[0]
        options.key_types = sorted(options.key_types, key=lambda name: not _is_of(name, kind))
    with contextlib.suppress(AttributeError):
        transport.use_compression(compress=False)
    transport.start_client(timeout=limit_seconds)
    shown = key_text(transport.get_remote_server_key())
    if known is not None and shown != known:
        raise HostKeyChangedError(
            f"{endpoint} shows host key {fingerprint(shown)} instead of {fingerprint(known)}:"
            " it is another computer, or was installed behind vcld's back; if that is right,"
            f" run: vcld hostkey forget {endpoint.name}"
        )


def _is_of(algorithm: str, kind: str) -> bool:
    """RSA keys sign by several algorithms."""
    if kind == "ssh-rsa":
        return algorithm in {"ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"}
    return algorithm == kind


def _authenticate(
    transport: paramiko.Transport, endpoint: Endpoint, keys: list[paramiko.PKey]
) -> None:
    for key in keys:
        try:
            transport.auth_publickey(endpoint.user, key)
        except paramiko.AuthenticationException:
            if not transport.is_active():
                break  # it has had enough
            continue
        if transport.is_authenticated():
            return
    if not transport.is_active() and not keys:
        raise ConnectionLostError(f"{endpoint} closed the connection")
    paths = ", ".join(endpoint.keys) or "none"
    raise AuthenticationError(
        f"{endpoint} takes none of the management node's keys ({paths}) for {endpoint.user}:"
        " the public key must be in its authorized_keys"
    )
