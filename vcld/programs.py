"""Running programs of this machine: with a time limit, a limit to output, and nothing left.

A program may hang, start children that outlive it, or print without end; whatever it does,
``finish`` and ``read`` return or raise in time, and at the end of the context its process group
is gone. It is asked to end when the worker is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal as signals
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from vcld import clock
from vcld.errors import Blame, ProvisioningError
from vcld.waiting import Cancellation

#: More than this from one stream is no answer to anything that we ask.
OUTPUT_LIMIT_BYTES = 8 << 20
#: How long output may still come from children of a program that has ended.
LINGER_SECONDS = 0.5
CHUNK_BYTES = 1 << 16
#: The part of a stream that is asked for at once; as large as a pipe may be for anybody.
PART_BYTES = 1 << 20
#: Of the errors that come beside a stream, the last are kept.
KEPT_BYTES = 1 << 16
#: Between the signals that ask a program to end and that end it.
ASKED_SECONDS = 1.0
#: One that even then does not end waits for a disk; it ends when that answers.
KILLED_SECONDS = 5.0


class CommandStuckError(ProvisioningError):
    """A program did not end within its limit, or printed more than anybody can want."""

    def __init__(self, message: str) -> None:
        super().__init__(message, blame=Blame.MANAGEMENT_NODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a program printed, and its exit code (negative: the signal that ended it)."""

    command: str
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of both streams, without empty ones: some put errors on either."""
        both = [*self.out.splitlines(), *self.err.splitlines()]
        return [line.strip() for line in both if line.strip()]


class Program:
    """A program that runs in a process group of its own; a context that ends the group.

    Args:
        command: path and arguments, never text for a shell.
        environ: its environment; that of this process by default.
        name: what messages call it; by default the command as a shell would read it.

    Raises:
        OSError: it cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self._text = name or shlex.join(command)
        self._errors = bytearray()
        self._output: Output | None = None
        # We hold the end of a pipe that nobody writes to; see _leash.
        read, self._leash = os.pipe()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environ,
                process_group=0,
                pass_fds=(read,),
            )
            _leash(read, self._process.pid)
        except BaseException:
            os.close(self._leash)
            raise
        finally:
            os.close(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and all that it has started."""
        self._end()
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def finish(self, limit_seconds: float, cancellation: Cancellation) -> Output:
        """Wait for its end and return what it printed and has not been read.

        Raises:
            CommandStuckError: it did not end within the limit, or printed too much.
            WorkerStopped: the worker was told to stop.
        """
        if self._output is None:
            out, err = _read(self._process, self._text, limit_seconds, cancellation)
            self._end()
            err = self._errors.decode(errors="replace") + err
            code = self._process.returncode
            self._output = Output(command=self._text, code=code, out=out, err=err)
        return self._output

    def read(self, limit_seconds: float, cancellation: Cancellation) -> bytes:
        """The next part of its standard output; empty at the end.

        What comes on the other stream is taken meanwhile, so that it never stops the program.

        Raises:
            CommandStuckError: nothing came within the limit.
            WorkerStopped: the worker was told to stop.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        out, err = self._process.stdout.fileno(), self._process.stderr.fileno()
        deadline = clock.monotonic() + limit_seconds
        watched = [out, err]
        while True:
            ready = cancellation.wait(max(0.0, deadline - clock.monotonic()), *watched)
            if out in ready:
                return os.read(out, PART_BYTES)
            chunk = os.read(err, CHUNK_BYTES) if ready else b""
            self._errors = (self._errors + chunk)[-KEPT_BYTES:]
            if ready and not chunk:
                watched.remove(err)
            if deadline <= clock.monotonic():
                raise CommandStuckError(f"{self._text} gave nothing within {limit_seconds:g} s")

    def _end(self) -> None:
        # Once it has been waited for, its number may be somebody else's.
        if self._process.returncode is None:
            _end(self._process)

    def widen(self) -> None:
        """Let more of its output wait to be read, for streams that are large and fast."""
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # a matter of speed only
            fcntl.fcntl(self._process.stdout.fileno(), fcntl.F_SETPIPE_SZ, PART_BYTES)


def _read(
    process: subprocess.Popen[bytes], text: str, limit_seconds: float, cancellation: Cancellation
) -> tuple[str, str]:
    """Read both streams until the program and its output end."""
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


def _leash(fd: int, group: int) -> None:
    """Let the kernel ask the group to end when the last writer of the pipe is gone.

    So it ends with a worker that is killed, though its group is not the worker's (fcntl(2),
    F_SETOWN). A program that closes what it inherits, as ssh does, notices at its next output.
    """
    fcntl.fcntl(fd, fcntl.F_SETOWN, -group)
    fcntl.fcntl(fd, fcntl.F_SETSIG, signals.SIGTERM)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the group: whatever the program started goes with it.

    One that still runs is asked first: xCAT's client, for one, then tells its daemon to stop the
    work (``submit_request`` in Client.pm), which would go on otherwise.
    """
    # It is not reaped before its group is killed: until then nobody else can get its number.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.killpg(process.pid, signals.SIGTERM)
            _await_end(process.pid, ASKED_SECONDS)
        os.killpg(process.pid, signals.SIGKILL)
    _await_end(process.pid, KILLED_SECONDS)
    process.poll()


def _await_end(pid: int, limit_seconds: float) -> None:
    """Wait although the worker must stop: the limit is short."""
    ended = os.pidfd_open(pid)
    try:
        Cancellation().wait(limit_seconds, ended)
    finally:
        os.close(ended)
