"""JSON documents in a folder that several processes read and change at the same time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vcld.errors import ConfigError


class Documents:
    """Reads and changes documents by name.

    A reader sees a document as it was before or after a change, never half of it. A process
    that dies during a change leaves the document as it was, and no lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> dict[str, Any]:
        """A document as it is now; empty when there is none.

        Raises:
            ConfigError: somebody else wrote into the file.
        """
        path = self._path(name)
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as err:
            raise ConfigError(f"{path} is not a document of the simulator; delete it") from err
        if not isinstance(data, dict):
            raise ConfigError(f"{path} is not a document of the simulator; delete it")
        return data

    @contextmanager
    def change(self, name: str) -> Iterator[dict[str, Any]]:
        """Change a document in place; nobody else does meanwhile.

        It is written when the block ends without an error, and only if it was changed.
        """
        path = self._path(name)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = self.read(name)
            before = json.dumps(data)
            yield data
            after = json.dumps(data)
            if after != before:
                partial = path.with_suffix(".partial")
                partial.write_text(after, encoding="utf-8")
                partial.replace(path)
        finally:
            os.close(lock)

    def _path(self, name: str) -> Path:
        # No character that means something in a path, and no two names with one file.
        safe = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):x}" for c in name)
        return self._folder / f"{safe}.json"
