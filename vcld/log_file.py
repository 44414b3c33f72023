"""The file of the log: written by several processes, through rotations and full disks."""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from vcld import clock
from vcld.config.redaction import redact

#: A broken log file is complained of at most this often.
COMPLAIN_SECONDS = 60.0


class _Damage:
    """What is wrong with the file, in memory that forked processes share.

    A worker that could not write its lines has mostly ended when there is room again, so another
    process tells of them. Two that write at once may miscount; no more hangs on it.
    """

    _LAYOUT = struct.Struct("=QB")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._LAYOUT.size)

    @property
    def lost(self) -> int:
        """Lines that were not written."""
        return int(self._LAYOUT.unpack_from(self._memory)[0])

    @lost.setter
    def lost(self, lines: int) -> None:
        self._LAYOUT.pack_into(self._memory, 0, lines, self.is_torn)

    @property
    def is_torn(self) -> bool:
        """The last line has no end."""
        return bool(self._LAYOUT.unpack_from(self._memory)[1])

    @is_torn.setter
    def is_torn(self, is_torn: bool) -> None:
        self._LAYOUT.pack_into(self._memory, 0, self.lost, is_torn)


class LogFile:
    """Appends whole lines to the log; finds it again after a rotation, survives a full disk.

    Each line is one write to a file opened for appending, so that lines of several processes
    do not mix. A line that cannot be written goes to stderr, with a complaint once a minute; how
    many those were is written, in the words of ``tell_gap``, once lines can be written again.
    """

    def __init__(
        self, path: Path | None = None, tell_gap: Callable[[int], str] = lambda _lines: ""
    ) -> None:
        self._path = path
        #: The line that says how many are missing. It must not log: the logger is locked.
        self.tell_gap = tell_gap
        self._damage = _Damage()
        self._file: io.FileIO | None = None
        self._complained_at = float("-inf")

    def use(self, path: Path | None) -> None:
        """Write to this file from now on; None: to stderr."""
        self._close()
        if path != self._path:
            self._damage.is_torn = False
        self._path = path
        self._complained_at = float("-inf")

    def write(self, text: str) -> None:
        """Write one line, with its line end and without any secret."""
        text = redact(text)
        if self._path is None:
            _to_stderr(text)
            return
        try:
            if self._damage.lost:
                self._append(self._open(self._path), self.tell_gap(self._damage.lost).encode())
                self._damage.lost = 0
            self._append(self._open(self._path), text.encode("utf-8", "backslashreplace"))
        except OSError as err:
            self._damage.lost += 1
            now = clock.monotonic()
            if now - self._complained_at >= COMPLAIN_SECONDS:
                self._complained_at = now
                _to_stderr(f"vcld: the log {self._path} cannot be written: {err.strerror}\n")
            _to_stderr(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _append(self, file: io.FileIO, line: bytes) -> None:
        if self._damage.is_torn:
            line = b"\n" + line
        rest = memoryview(line)
        while rest:
            written = file.write(rest)
            if not written:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            rest = rest[written:]
            self._damage.is_torn = bool(rest)

    def _open(self, path: Path) -> io.FileIO:
        if self._file is not None and self._is_still(self._file, path):
            return self._file
        if self._file is not None:
            self._damage.is_torn = False  # that was the end of another file
        self._close()
        self._file = io.FileIO(path, "a", opener=_open_private)
        return self._file

    @staticmethod
    def _is_still(file: io.FileIO, path: Path) -> bool:
        try:
            ours = os.fstat(file.fileno())
        except OSError:
            return False  # closed behind our back
        try:
            return os.path.samestat(ours, os.stat(path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


def _to_stderr(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody listens; the daemon goes on
