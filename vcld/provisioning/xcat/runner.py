"""Where xCAT's commands run: on this machine, or on a service node (``servicenode``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from vcld.programs import Output, Program
from vcld.provisioning.xcat.failures import XcatMissingError
from vcld.waiting import Cancellation


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
        try:
            program = Program([self._find(command[0]), *command[1:]], self._environ)
        except OSError as err:
            raise XcatMissingError(
                f"{command[0]} cannot be run: {err.strerror}; install it or set XCATROOT"
            ) from err
        with program:
            return program.finish(limit_seconds, cancellation)

    def close(self) -> None:
        """See ``Runner``."""

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
