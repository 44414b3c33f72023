"""xCAT's commands on another machine, by SSH: a service node, or xCAT's own management node.

One connection for a worker, many commands on it. A command gets its arguments as they are, and
a process group of its own, which ends with its limit, with its connection, or with its worker.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcld import clock
from vcld.errors import (
    AuthenticationError,
    Blame,
    ConfigError,
    FatalProvisioningError,
    HostKeyChangedError,
    ProvisioningError,
    RemoteError,
)
from vcld.programs import CommandStuckError, Output
from vcld.provisioning.xcat.failures import XcatMissingError
from vcld.remote.endpoint import SSH_PORT, Endpoint
from vcld.remote.remote import Remote
from vcld.waiting import Cancellation

#: ``NAME``, ``NAME:PORT``, ``USER@NAME`` or both.
_SERVER = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<name>[A-Za-z0-9][A-Za-z0-9.-]*)(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)
#: Between the signals that ask a command to end and that end it: xCAT's client takes the first
#: as an order to its daemon to stop the work.
ASKED_SECONDS = 2
#: For the way there and back, beyond a command's own limit.
GRACE_SECONDS = 5.0
#: Exit codes of timeout(1) for a command that was ended at its limit, politely or not.
TIMED_OUT = frozenset({124, 128 + 9})
NOT_FOUND = 127
#: Arguments: xCAT's root, the limit in seconds, the command's name, its arguments. ``timeout``
#: leads the process group; whatever of it is left at the end, or when our connection breaks and
#: with it this script's parent goes, is killed.
_SCRIPT = f"""
r=$1 t=$2 n=$3; shift 3
case $n in */*) p=$n ;; *) p=$r/bin/$n; [ -x "$p" ] || p=$r/sbin/$n ;; esac
[ -x "$p" ] || exit {NOT_FOUND}
XCATROOT=$r LC_ALL=C; export XCATROOT LC_ALL
timeout -k {ASKED_SECONDS} "$t" "$p" "$@" < /dev/null &
g=$!
(while kill -0 $PPID; do sleep 1; done; kill -KILL -$g) < /dev/null > /dev/null 2>&1 &
w=$!
wait $g; c=$?
kill -KILL -$g 2> /dev/null
kill -KILL $w
exit $c
"""


def parse_servers(setting: str, keys: tuple[str, ...]) -> list[Endpoint]:
    """The machines of the variable ``xcat|servicenode``, in the order to try them.

    Raises:
        ConfigError: it cannot be read.
    """
    found = []
    for text in filter(None, (part.strip() for part in setting.split(","))):
        match = _SERVER.fullmatch(text)
        port = int(match["port"] or SSH_PORT) if match else 0
        if match is None or not 0 < port < 1 << 16:
            raise ConfigError(
                f"variable xcat|servicenode: {text!r} is not a machine; write NAME, or"
                " USER@NAME:PORT, several with commas between them"
            )
        user = match["user"] or "root"
        name = match["name"]
        found.append(Endpoint(name=name, address=name, port=port, user=user, keys=keys))
    return found


@dataclass(frozen=True, slots=True)
class KnownHost:
    """The key of one server, kept in a file as OpenSSH's ``known_hosts``."""

    path: Path
    endpoint: Endpoint

    @property
    def _mark(self) -> str:
        address, port = self.endpoint.address, self.endpoint.port
        return address if port == SSH_PORT else f"[{address}]:{port}"

    def find(self) -> str | None:
        """``type base64``, or None when the server is not known yet."""
        for line in self._lines():
            words = line.split()
            if len(words) >= 3 and self._mark in words[0].split(","):
                return f"{words[1]} {words[2]}"
        return None

    def learn(self, key: str) -> None:
        """Keep the key from now on."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self.path, flags, 0o600)
        try:
            os.write(file, f"{self._mark} {key}\n".encode())
        finally:
            os.close(file)

    def forget(self) -> None:
        """An administrator does it, who knows why the server is another one."""

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []


class SshRunner:
    """Runs commands on the first of some machines that lets us in. See ``runner.Runner``."""

    is_local = False

    def __init__(
        self,
        servers: Sequence[Endpoint],
        root: str,
        known_hosts: Path,
        *,
        connect_seconds: float,
        log: Any,
    ) -> None:
        self._servers = servers
        self._root = root
        self._known_hosts = known_hosts
        self._connect_seconds = connect_seconds
        self._log = log
        self._remote: Remote | None = None
        self._cancellation: Cancellation | None = None

    @property
    def where(self) -> str:
        """Where commands run, for messages."""
        if self._remote is not None:
            return self._remote.endpoint.name
        return " or ".join(server.name for server in self._servers)

    def run(
        self, command: Sequence[str], *, limit_seconds: float, cancellation: Cancellation
    ) -> Output:
        """See ``runner.Runner``.

        Raises:
            CommandStuckError: also when no machine can be reached, or the connection broke.
            AuthenticationError: none lets us in; it is no computer's fault.
        """
        text = shlex.join(command)
        # The login shell reads this as text, and gives way to the script's own.
        words = ["sh", "-c", _SCRIPT, "sh", self._root, f"{limit_seconds:g}", *command]
        began = clock.monotonic()
        try:
            remote = self._connect(cancellation)
            result = remote.run(
                f"exec {shlex.join(words)}",
                limit_seconds=limit_seconds + ASKED_SECONDS + GRACE_SECONDS,
            )
        except RemoteError as err:
            self.close()
            raise CommandStuckError(f"{text}: {err}") from err
        except BaseException:
            self.close()  # and with the connection the command ends
            raise
        if result.truncated:
            raise CommandStuckError(f"{text} printed more than anybody can want")
        if result.status in TIMED_OUT and clock.monotonic() - began >= limit_seconds:
            msg = f"{text} did not end within {limit_seconds:g} s on {self.where}"
            raise CommandStuckError(msg)
        if result.status == NOT_FOUND:
            raise XcatMissingError(
                f"{command[0]} is not on {self.where}, in {self._root}/bin or {self._root}/sbin:"
                " install xCAT there, or set XCATROOT in the daemon's environment"
            )
        return Output(command=text, code=result.status, out=result.output, err="")

    def close(self) -> None:
        """End the connection. The next command makes a new one."""
        if self._remote is not None:
            self._remote.close()
            self._remote = self._cancellation = None

    def _connect(self, cancellation: Cancellation) -> Remote:
        """The open connection, where it ends when these commands must, or a new one."""
        if self._remote is not None and self._cancellation is cancellation:
            return self._remote
        self.close()
        problems: list[ProvisioningError] = []
        for server in self._servers:
            remote = Remote(
                server,
                KnownHost(self._known_hosts, server),
                cancellation,
                connect_seconds=self._connect_seconds,
                log=self._log,
            )
            try:
                remote.connect()
            except (RemoteError, FatalProvisioningError, OSError) as err:
                problems.append(self._problem(server, err))
                continue
            self._remote, self._cancellation = remote, cancellation
            return remote
        # One that may answer later counts for more than those that never will.
        raise next((p for p in problems if isinstance(p, RemoteError)), problems[0])

    def _problem(self, server: Endpoint, err: Exception) -> ProvisioningError:
        """What is wrong, in words that fit a server instead of a computer."""
        blame = Blame.MANAGEMENT_NODE
        if isinstance(err, HostKeyChangedError):
            return AuthenticationError(
                f"xCAT's service node {server} shows another host key than before: if that is"
                f" right, remove its line from {self._known_hosts}",
                blame=blame,
            )
        if isinstance(err, OSError):
            msg = f"the host key of {server} cannot be kept in {self._known_hosts}: {err.strerror}"
            return FatalProvisioningError(msg, blame=blame)
        if isinstance(err, AuthenticationError):
            return AuthenticationError(str(err), blame=blame)
        if isinstance(err, RemoteError):
            return RemoteError(str(err), blame=blame)
        return FatalProvisioningError(str(err), blame=blame)
