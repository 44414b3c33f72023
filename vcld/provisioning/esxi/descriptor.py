"""Descriptors of disks: small texts that name the files that hold the data.

A host lists a disk as one file, with the room that it takes; by HTTPS and in a folder of the
management node there are the descriptor and what it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 512
#: Whatever is larger is a disk's data.
LONGEST_BYTES = 64 << 10
HEAD = b"# Disk DescriptorFile"
#: Kinds of extents whose files are as large as what they hold.
FLAT = frozenset({"FLAT", "VMFS"})
_EXTENT = re.compile(r'^(?:RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)\s+"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    name: str
    kind: str
    #: What of the disk it stands for.
    size_bytes: int

    @property
    def file_bytes(self) -> int | None:
        """Size of its file; None where that says nothing."""
        return self.size_bytes if self.kind in FLAT else None


def extents_of(text: str) -> list[Extent]:
    """The files that a descriptor names."""
    return [
        Extent(name=name, kind=kind, size_bytes=int(sectors) * SECTOR_BYTES)
        for sectors, kind, name in _EXTENT.findall(text)
    ]


def capacity_kib(text: str) -> int | None:
    """Size that the disk shows to its VM, KiB; None when the descriptor does not tell."""
    return sum(extent.size_bytes for extent in extents_of(text)) // 1024 or None


def read(path: Path) -> str:
    """A descriptor; empty when the file is data, or is not there."""
    try:
        with path.open("rb") as reader:
            data = reader.read(LONGEST_BYTES + 1)
    except OSError:
        return ""
    is_one = data.startswith(HEAD) and len(data) <= LONGEST_BYTES
    return data.decode("utf-8", "replace") if is_one else ""
