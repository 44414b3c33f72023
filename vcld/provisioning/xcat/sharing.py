"""One command for many workers: what xCAT is asked, or told, for many nodes at once.

A worker that wants something for its node leaves a note with the node's name. The one that gets
the lease runs one command for all nodes that have a note, and the others read its answers. The
lease is a lock on a file: it ends with its holder, however that dies. Nothing outlives a boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vcld import clock
from vcld.errors import ConfigError, ProvisioningError
from vcld.provisioning.xcat.failures import XcatUnavailableError
from vcld.waiting import Cancellation, pauses

#: A pause in which other workers of the same moment can add their nodes.
GATHER_SECONDS = 0.03
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.03, 0.3
#: A note is renewed this often while its worker waits; one much older is of a dead worker.
RENEW_SECONDS, STALE_SECONDS = 0.5, 2.0
PID_DIGITS = 10
#: Longest wait for whoever asks, unless the caller knows better.
LIMIT_SECONDS = 900.0

Answer = dict[str, Any]


class Shared:
    """Answers of one kind, such as power states, in a folder of the daemon's.

    ``ask`` gets names of nodes and returns an answer for each that it could find out; the
    answers must be what JSON can hold. It raises only when nothing could be found out.
    ``keep_seconds``: nodes that somebody wanted within this time are asked for again, so that
    workers who look now and then find a fresh answer. Without it, nothing is asked for but what
    a live worker waits for: so ``ask`` may also do something to the nodes.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        ask: Callable[[Sequence[str]], Mapping[str, Answer]],
        cancellation: Cancellation,
        *,
        keep_seconds: float = 0.0,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        """``limit_seconds``: no asker that works takes longer over two of its commands."""
        self._answers = folder / f"{kind}.json"
        self._lock = folder / f"{kind}.lease"
        self._notes = folder / f"{kind}.wanted"
        self._ask = ask
        self._cancellation = cancellation
        self._keep_seconds = keep_seconds
        self._limit_seconds = limit_seconds
        self._seen: tuple[int, int] | None = None
        self._document: dict[str, Any] = _empty()

    def get(self, node: str, *, max_age: float = 0.0, since: float | None = None) -> Answer | None:
        """What is known of the node, from a command that began no longer ago than ``max_age``.

        ``since``: or than this moment of the monotonic clock, after something was changed.

        Returns:
            None when the command had no answer for the node.

        Raises:
            XcatUnavailableError: whoever asked got no answer at all, or is stopped.
        """
        start = clock.monotonic()
        oldest = max(start - max_age, since if since is not None else 0.0)
        note = self._notes / node
        noted = 0.0
        try:
            for pause in pauses(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS):
                now = clock.monotonic()
                if now - noted > RENEW_SECONDS:
                    noted = now
                    self._write(note, f"{start!r} {now!r}")
                known = self._look(node, oldest, start)
                if known is None:
                    with self._lease() as is_ours:
                        if is_ours:
                            known = self._look(node, oldest, start) or self._lead(node)
                if known is not None:
                    return known["answer"]  # type: ignore[no-any-return]
                if now - start > self._limit_seconds:
                    raise XcatUnavailableError(
                        f"process {self._holder()} has asked xCAT for others for more than"
                        f" {self._limit_seconds:g} s: if it is stopped, let it go on or end it"
                    )
                self._cancellation.wait(pause)
        finally:
            if not self._keep_seconds:
                note.unlink(missing_ok=True)
        raise AssertionError("pauses never end")

    def settle(self, limit_seconds: float) -> None:
        """Wait until nobody asks: nothing is done any more for a note that is gone.

        Also for a worker that must stop; so not for long.
        """
        deadline = clock.monotonic() + limit_seconds
        for pause in pauses(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS):
            with self._lease() as is_free:
                if is_free or clock.monotonic() > deadline:
                    return
            Cancellation().wait(pause)

    def known(self) -> list[str]:
        """Names of nodes that there is an answer for, however old; those asked for last first."""
        nodes = self._read()["nodes"]
        return sorted((n for n in nodes if nodes[n]["answer"]), key=lambda n: -nodes[n]["at"])

    def _look(self, node: str, oldest: float, start: float) -> dict[str, Any] | None:
        document = self._read()
        now = clock.monotonic()
        known: dict[str, Any] | None = document["nodes"].get(node)
        if known is not None and oldest <= known["at"] <= now:
            return known
        failed = document["failed"]
        if failed is not None and start <= failed["at"] <= now:
            raise XcatUnavailableError(failed["reason"])
        return None

    def _lead(self, node: str) -> dict[str, Any]:
        """Ask for everybody. Only the holder of the lease gets here, and only it writes."""
        self._cancellation.wait(GATHER_SECONDS)
        document = self._read()
        names = sorted({node, *self._wanted(document["nodes"], clock.monotonic())})
        # After the notes were read: whatever is in the list is answered by this command.
        at = clock.monotonic()
        try:
            answers = self._ask(names)
        except ProvisioningError as err:
            document["failed"] = {"at": clock.monotonic(), "reason": str(err)}
            self._write(self._answers, json.dumps(document))
            raise
        for name in names:
            document["nodes"][name] = {"at": at, "answer": answers.get(name)}
        document["failed"] = None
        self._write(self._answers, json.dumps(document))
        return {"answer": answers.get(node)}

    def _wanted(self, known: Mapping[str, Any], now: float) -> Iterator[str]:
        """Nodes with a note that counts; others' notes are taken away."""
        for note in self._notes.iterdir():
            if note.suffix == ".partial":
                continue
            try:
                asked, said = map(float, note.read_text(encoding="ascii").split())
            except (FileNotFoundError, ValueError):
                continue
            age = now - said
            # A note that was only renewed since the answer came is not a new question.
            answered = known.get(note.name, {}).get("at", 0.0) >= asked
            if 0 <= age <= self._keep_seconds or (age <= STALE_SECONDS and not answered):
                yield note.name
            elif age > max(self._keep_seconds, STALE_SECONDS):
                note.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lease(self) -> Iterator[bool]:
        """True for one at a time; never waits."""
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = True
                os.pwrite(lock, f"{os.getpid():<{PID_DIGITS}}".encode("ascii"), 0)
            except BlockingIOError:
                is_ours = False
            yield is_ours
        finally:
            os.close(lock)

    def _holder(self) -> str:
        """The process that has the lease, for messages."""
        try:
            return self._lock.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return "unknown"

    def _write(self, path: Path, text: str) -> None:
        """Replace a file as a whole."""
        self._notes.mkdir(mode=0o700, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    def _read(self) -> dict[str, Any]:
        """The answers; read anew only when the file was replaced."""
        try:
            with self._answers.open("rb") as file:
                facts = os.fstat(file.fileno())
                seen = facts.st_ino, facts.st_mtime_ns
                if seen != self._seen:
                    self._document, self._seen = _checked(file.read()), seen
        except FileNotFoundError:
            return _empty()
        return self._document


def _checked(data: bytes) -> dict[str, Any]:
    """A document as we write it, of this boot: the clock of its times starts anew with each."""
    empty = _empty()
    try:
        document = json.loads(data)
    except ValueError:
        return empty
    if not isinstance(document, dict) or document.keys() != empty.keys():
        return empty
    return document if document["boot"] == empty["boot"] else empty


def _empty() -> dict[str, Any]:
    return {"boot": _boot_id(), "nodes": {}, "failed": None}


def private_folder(path: Path) -> Path:
    """Make the folder, for us alone.

    Raises:
        ConfigError: it cannot be made, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.lstat()
    except OSError as err:
        raise ConfigError(f"folder {path} cannot be used: {err.strerror}") from err
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise ConfigError(f"folder {path} is not ours alone; remove it")
    return path


@functools.cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
