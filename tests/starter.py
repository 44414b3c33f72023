"""Starts vcld's processes by forking one that has imported vcld already.

Half of the time of a test that starts a daemon would go by in imports. What such a process runs
is the same ``main``; that ``python -m vcld`` runs it, other tests see.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

import setproctitle

import vcld
from vcld.cli.main import main


class Process(Protocol):
    """What tests use of a started process; as of ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class Order:
    """What is to be started: a ``vcld`` with these arguments, in a session of its own."""

    arguments: Sequence[str]
    environ: Mapping[str, str]
    out: IO[bytes]
    errors: IO[bytes]


class Launcher(Protocol):
    """Starts it."""

    def start(self, order: Order) -> Process: ...


class Interpreter:
    """As an operator would."""

    def start(self, order: Order) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", "vcld", *order.arguments],
            env=order.environ,
            stdin=subprocess.DEVNULL,
            stdout=order.out,
            stderr=order.errors,
            start_new_session=True,
        )


class Starter:
    """The same, quicker."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.starter", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self, order: Order) -> Process:
        if order.environ.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
            return Interpreter().start(order)
        text = json.dumps([list(order.arguments), dict(order.environ)]).encode()
        reader, writer = os.pipe()
        fds = [order.out.fileno(), order.errors.fileno(), writer]
        socket.send_fds(self._control, [text], fds)
        os.close(writer)
        return Started(reader)

    def end(self) -> None:
        """What it started goes on."""
        self._control.close()
        self._process.kill()  # it may still be importing
        self._process.wait(10)


class Started:
    """A process, and the pipe by which its parent tells of it: its pid, and then its end."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._code: int | None = None
        self.pid = self._read(30)

    def _read(self, timeout: float | None) -> int:
        ready, _, _ = select.select([self._reader], [], [], timeout)
        if not ready:
            raise subprocess.TimeoutExpired("vcld", timeout or 0)
        word = os.read(self._reader, len(_word(0)))
        if not word:
            raise RuntimeError("the process that starts vcld is gone")
        return int(word)

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._code = self._read(timeout)
            os.close(self._reader)
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _serve(control: socket.socket) -> list[str] | None:
    """Fork on demand: the arguments in each child; None at the end of the tests."""
    pipes: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                pid, pipe = pipes.pop(ready)
                _, status = os.waitpid(pid, 0)
                _tell(pipe, os.waitstatus_to_exitcode(status))
                os.close(pipe)
                os.close(ready)
                continue
            order, fds, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not order:
                return None
            out, errors, pipe = fds
            pid = os.fork()
            if not pid:
                for fd in (control.detach(), pipe, *pipes, *(p for _, p in pipes.values())):
                    os.close(fd)
                return _become(order, out, errors)
            _tell(pipe, pid)
            os.close(out)
            os.close(errors)
            pidfd = os.pidfd_open(pid)
            pipes[pidfd] = pid, pipe
            poll.register(pidfd, select.POLLIN)


def _word(number: int) -> bytes:
    """One message, of one length."""
    return b"%12d" % number


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test has ended
        os.write(pipe, _word(number))


def _become(order: bytes, out: int, errors: int) -> list[str]:
    arguments, environ = json.loads(order)
    os.setsid()
    for fd, place in ((out, 1), (errors, 2)):
        os.dup2(fd, place)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    random.seed()
    sys.argv = ["vcld", *arguments]
    return [str(argument) for argument in arguments]


if __name__ == "__main__":
    for module in pkgutil.walk_packages(vcld.__path__, "vcld."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # While the environment is where the kernel put it: titles go into its place.
    setproctitle.setproctitle("vcld's tests: starts processes")
    gc.collect()
    gc.freeze()
    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(0 if arguments is None else main(arguments))
