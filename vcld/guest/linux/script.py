"""Scripts for a Linux computer: fixed text from ``scripts/``, data only as quoted arguments.

A script goes to ``sh`` on standard input, as a whole, so that nothing in it shows in a process
list and a stage takes one round trip. It answers with facts, a line each.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from vcld.errors import Blame, RemoteError
from vcld.remote.connection import CommandResult
from vcld.remote.remote import Remote

#: Ends what the script has started too, should our side be gone.
COMMAND = (
    "if command -v timeout >/dev/null 2>&1; then exec timeout -k 5 {limit} sh -s; fi; exec sh -s"
)
LIBRARIES = (
    "prelude", "services", "sshd", "traces", "accounts", "firewall", "tags", "presence", "system",
    "address", "capture", "nat",
)  # fmt: skip
_MARK = "vcld:"
#: More than this of what a computer says tells nobody more.
LONGEST_TEXT, MOST_WARNINGS = 500, 20


def _library(name: str) -> str:
    file = resources.files("vcld.guest.linux").joinpath("scripts", f"{name}.sh")
    return file.read_text(encoding="utf-8")


#: Read as the plugin is loaded: once, by the parent of all workers.
_TEXT = "\n".join(_library(name) for name in LIBRARIES)


class Script:
    """Calls of the libraries' functions, in order."""

    def __init__(self) -> None:
        self._calls: list[str] = []

    def call(self, function: str, *arguments: object) -> Script:
        """Add a call; the function gets the arguments as they are.

        Raises:
            ValueError: an argument holds a NUL, which no shell can keep.
        """
        words = [str(argument) for argument in arguments]
        if any("\0" in word for word in words):
            raise ValueError(f"an argument of {function} holds a NUL character")
        self._calls.append(shlex.join([function, *words]))
        return self

    def text(self) -> str:
        """All of it is read before the first call runs: commands may read standard input."""
        body = "\n".join(f"    {call}" for call in self._calls)
        return f"{_TEXT}\nmain() {{\n{body}\n    fact done yes\n}}\nmain < /dev/null\n"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a script told: (name, value) in the order told."""

    items: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.items if key == name]

    def find(self, name: str) -> str | None:
        """The last value of a name, None when it was not told."""
        values = self.all(name)
        return values[-1] if values else None


def parse(output: str) -> Facts:
    """The facts among a script's output lines."""
    items = []
    # A line ends where the computer's shell ends it: names of users' programs are in it.
    for line in output.replace("\r\n", "\n").split("\n"):
        if line.startswith(_MARK):
            name, _, value = line.removeprefix(_MARK).partition("=")
            items.append((name, value))
    return Facts(tuple(items))


def run(remote: Remote, script: Script, log: Any, *, limit_seconds: float = 120) -> Facts:
    """Run a script and return its facts.

    Raises:
        RemoteError: it could not be run, or one of its steps failed; the message says which.
        WorkerStopped: the worker must stop.
    """
    command = COMMAND.format(limit=int(limit_seconds) + 5)
    stdin = script.text().encode()
    result = remote.run(command, stdin=stdin, limit_seconds=limit_seconds)
    facts = parse(result.output)
    for text in facts.all("warning")[:MOST_WARNINGS]:
        log.warning("the computer reports", text=_tidy(text))
    # A step that failed at the end of a pipe does not end the script.
    if result.status != 0 or facts.find("done") is None or facts.all("error"):
        blame = Blame.NOBODY if facts.find("refused") else Blame.COMPUTER
        raise RemoteError(f"{remote.endpoint.name}: {_failure(facts, result)}", blame=blame)
    return facts


def _failure(facts: Facts, result: CommandResult) -> str:
    told = facts.all("error")
    if told:
        return _tidy(told[0])
    said: Sequence[str] = [line for line in result.lines if not line.startswith(_MARK)][-3:]
    return f"a script ended with status {result.status}: {_tidy(' / '.join(said)) or 'no output'}"


def _tidy(text: str) -> str:
    """What somebody who is root there may have written, fit for an operator's terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST_TEXT])
