"""Running a command: with a time limit, a limit to its output, and nothing left of it.

xCAT's commands are small programs that talk to its daemon. They may hang, start children that
outlive them, or print without end; whatever they do, ``run`` returns or raises in time.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal as signals
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from vcld import clock
from vcld.errors import Blame, ProvisioningError
from vcld.provisioning.xcat.failures import XcatMissingError
from vcld.waiting import Cancellation

#: More than this from one stream is no answer to anything that we ask.
OUTPUT_LIMIT_BYTES = 8 << 20
#: How long output may still come from children of a command that has ended.
LINGER_SECONDS = 0.5
CHUNK_BYTES = 1 << 16
#: Between the signals that ask a command to end and that end it.
ASKED_SECONDS = 1.0


class CommandStuckError(ProvisioningError):
    """A command did not end within its limit, or printed more than anybody can want."""

    def __init__(self, message: str) -> None:
        super().__init__(message, blame=Blame.MANAGEMENT_NODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a command printed, and its exit code (negative: the signal that ended it)."""

    command: str
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of both streams, without empty ones: xCAT puts errors on either."""
        both = [*self.out.splitlines(), *self.err.splitlines()]
        return [line.strip() for line in both if line.strip()]


class Runner(Protocol):
    """Where xCAT's commands run: on this machine, or on a service node."""

    @property
    def is_local(self) -> bool:
        """True on this machine."""

    @property
    def where(self) -> str:
        """The machine, for messages."""

    def run(
        self, command: Sequence[str], *, limit_seconds: float, cancellation: Cancellation
    ) -> Output:
        """Run a command, given as its name and arguments, never as text for a shell.

        Raises:
            CommandStuckError: it was ended at its limit.
            XcatMissingError: there is no such command.
            WorkerStopped: the worker was told to stop; the command was ended.
        """

    def close(self) -> None:
        """Let go of what is held between commands; they can go on."""


class LocalRunner:
    """Runs commands on this machine, in a process group of their own."""

    is_local = True
    where = "this management node"

    def __init__(self, root: str, environ: Mapping[str, str] | None = None) -> None:
        self._environ = {**(os.environ if environ is None else environ), "LC_ALL": "C"}
        self._root = root

    def run(
        self, command: Sequence[str], *, limit_seconds: float, cancellation: Cancellation
    ) -> Output:
        """See ``Runner``."""
        text = shlex.join(command)
        with self._start(command) as process:
            try:
                out, err = _read(process, text, limit_seconds, cancellation)
            finally:
                _end(process)
        return Output(command=text, code=process.returncode, out=out, err=err)

    def close(self) -> None:
        """See ``Runner``."""

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [self._find(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environ,
                process_group=0,
            )
        except OSError as err:
            raise XcatMissingError(
                f"{command[0]} cannot be run: {err.strerror}; install it or set XCATROOT"
            ) from err

    def _find(self, name: str) -> str:
        if "/" in name:
            return name
        paths = [f"{self._root}/{folder}/{name}" for folder in ("bin", "sbin")]
        found = next((path for path in paths if os.access(path, os.X_OK)), None)
        if found is None:
            raise XcatMissingError(
                f"xCAT's command {name} is not in {self._root}/bin or {self._root}/sbin:"
                " install xCAT here, or set XCATROOT in the daemon's environment"
            )
        return found


def _read(
    process: subprocess.Popen[bytes], text: str, limit_seconds: float, cancellation: Cancellation
) -> tuple[str, str]:
    """Read both streams until the command and its output end."""
    assert process.stdout is not None
    assert process.stderr is not None
    streams: dict[int, IO[bytes]] = {s.fileno(): s for s in (process.stdout, process.stderr)}
    texts = {fd: bytearray() for fd in streams}
    order = list(streams)
    deadline = clock.monotonic() + limit_seconds
    ended = os.pidfd_open(process.pid)
    try:
        watched: list[int] = [*order, ended]
        while set(watched) & set(order):
            left = deadline - clock.monotonic()
            ready = cancellation.wait(max(0.0, left), *watched)
            if not ready:
                if ended not in watched:
                    break  # it has ended; a child of it holds the output open
                raise CommandStuckError(f"{text} did not end within {limit_seconds:g} s")
            if ended in ready:
                watched.remove(ended)
                deadline = min(deadline, clock.monotonic() + LINGER_SECONDS)
            for fd in set(ready) - {ended}:
                chunk = os.read(fd, CHUNK_BYTES)
                texts[fd] += chunk
                if not chunk:
                    watched.remove(fd)
                if len(texts[fd]) > OUTPUT_LIMIT_BYTES:
                    megabytes = OUTPUT_LIMIT_BYTES >> 20
                    raise CommandStuckError(f"{text} printed more than {megabytes} MB")
        if ended in watched:
            left = deadline - clock.monotonic()
            if not cancellation.wait(max(0.0, left), ended):
                raise CommandStuckError(f"{text} did not end within {limit_seconds:g} s")
    finally:
        os.close(ended)
    out, err = (texts[fd].decode(errors="replace") for fd in order)
    return out, err


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the group: whatever the command started goes with it.

    One that still runs is asked first: xCAT's client then tells its daemon to stop the work
    (``submit_request`` in Client.pm), which would go on otherwise.
    """
    # It is not reaped before its group is killed: until then nobody else can get its number.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.killpg(process.pid, signals.SIGTERM)
            _await_end(process.pid, ASKED_SECONDS)
        os.killpg(process.pid, signals.SIGKILL)
    process.wait()


def _await_end(pid: int, limit_seconds: float) -> None:
    """Wait although the worker must stop: the limit is short."""
    ended = os.pidfd_open(pid)
    try:
        Cancellation().wait(limit_seconds, ended)
    finally:
        os.close(ended)
