"""Paths on datastores, in the three ways that sites write them (specification §1.3)."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

_VOLUMES = "/vmfs/volumes/"
_BRACKETS = re.compile(r"\[(?P<store>[^\]]+)\]\s*(?P<path>.*)")


@dataclass(frozen=True, slots=True)
class DatastorePath:
    """A file or folder; ``path`` has no slash at either end and is empty for the root."""

    datastore: str
    path: str = ""

    def __str__(self) -> str:
        return f"[{self.datastore}] {self.path}".rstrip()

    def __truediv__(self, name: str) -> DatastorePath:
        return DatastorePath(self.datastore, posixpath.join(self.path, name))

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def parent(self) -> DatastorePath:
        return DatastorePath(self.datastore, posixpath.dirname(self.path))

    def holds(self, other: DatastorePath) -> bool:
        """True when the other lies below this folder."""
        return self.datastore == other.datastore and other.path.startswith(f"{self.path}/")


def parse(text: str) -> DatastorePath:
    """Read ``/vmfs/volumes/store/dir``, ``[store] dir`` or ``store/dir``.

    Raises:
        ValueError: it names no datastore, or leads out of it.
    """
    text = text.strip()
    brackets = _BRACKETS.fullmatch(text)
    if brackets:
        store, path = brackets["store"], brackets["path"]
    else:
        if text.startswith(_VOLUMES):
            text = text.removeprefix(_VOLUMES)
        store, _, path = text.lstrip("/").partition("/")
    if not store or ".." in path.split("/"):
        raise ValueError(text)
    return DatastorePath(store, "/".join(part for part in path.split("/") if part not in {"", "."}))
