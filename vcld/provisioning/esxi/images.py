"""Images in a folder of a datastore: masters that VMs are linked to, or a repository."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vcld.errors import Blame, FatalProvisioningError, ProvisioningError, WorkerStopped
from vcld.provisioning.esxi import marker, naming
from vcld.provisioning.esxi.files import FileFacts, Files
from vcld.provisioning.esxi.marker import MARKER, Hardware, Marker
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.provisioning.esxi.vmx import hardware_of, text_of

MIB = 1 << 20
#: What a disk's own description calls controllers that are none of SCSI.
ADAPTERS = {"VirtualIDEController": "ide", "VirtualBusLogicController": "busLogic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image that is complete."""

    name: str
    folder: DatastorePath
    files: Mapping[str, FileFacts]
    capacity_kib: int | None = None
    hardware: Hardware = field(default_factory=Hardware)

    @property
    def disk(self) -> DatastorePath:
        return naming.disk_in(self.folder, self.name)

    @property
    def size_bytes(self) -> int:
        disks = (f.size_bytes for name, f in self.files.items() if name.endswith(".vmdk"))
        return sum(disks)

    @property
    def data_bytes(self) -> int:
        """Size of what the disk's descriptor only describes; a copy has a descriptor of its own."""
        return data_bytes(self.name, self.files)

    @property
    def size_mib(self) -> int:
        return -(-self.size_bytes // MIB)


class ImageFolder:
    """The images below one folder."""

    def __init__(self, files: Files, base: DatastorePath) -> None:
        self.files = files
        self.base = base

    def find(self, name: str) -> StoredImage | None:
        """A complete image; None when there is none of that name.

        Raises:
            FatalProvisioningError: it is there, and damaged.
        """
        folder = naming.master_folder(self.base, name)
        present = self.files.list(folder)
        if present is None or f"{name}.vmdk" not in present:
            return None
        capacity, hardware = None, Hardware()
        if MARKER in present:
            text = self.files.read_text(folder / MARKER) or ""
            found = marker.from_text(text, folder)
            found.check(folder, self._as_marked(found, naming.disk_in(folder, name), present))
            capacity, hardware = found.capacity_kib, found.hardware
        elif naming.reference_of(name) in present:
            hardware = hardware_of(self.files.read_text(folder / naming.reference_of(name)) or "")
        if capacity is None:
            capacity = self.files.capacity_kib(naming.disk_in(folder, name))
        return StoredImage(
            name=name,
            folder=folder,
            files=present,
            capacity_kib=capacity,
            hardware=hardware,
        )

    def _as_marked(
        self, found: Marker, disk: DatastorePath, present: Mapping[str, FileFacts]
    ) -> Mapping[str, FileFacts]:
        """What is there, a disk that is listed as one file with the size that it had.

        Such a size is the room that the disk takes, which storage that packs data changes by
        itself. What the disk shows to a VM must be the same.
        """
        then = {name: size for name, size in found.files.items() if name.endswith(".vmdk")}
        now = {name: one.size_bytes for name, one in present.items() if name.endswith(".vmdk")}
        if set(now) != {disk.name} or then == now or found.capacity_kib is None:
            return present
        if self.files.capacity_kib(disk) != found.capacity_kib:
            return present
        return {**present, **{name: FileFacts(size_bytes=size) for name, size in then.items()}}

    def holds(self, entry: str) -> bool:
        """True when a folder of this name is there, whatever it holds."""
        return self.files.list(self.base / entry) is not None

    def refuse_incomplete(self, name: str) -> None:
        """Make sure, before a copy, that its place is free.

        Raises:
            FatalProvisioningError: a folder is there that holds no complete image.
        """
        folder = naming.master_folder(self.base, name)
        present = self.files.list(folder)
        if present is not None and f"{name}.vmdk" not in present:
            raise FatalProvisioningError(
                f"{folder} is there but holds no {name}.vmdk: unless somebody is copying the image"
                " to it just now, remove the folder",
                blame=Blame.IMAGE,
            )

    def reference(self, image: StoredImage) -> str:
        """The vmx file of the VM that it was captured from, which Perl daemons read; or empty."""
        name = naming.reference_of(image.name)
        return self.files.read_text(image.folder / name) or "" if name in image.files else ""

    def add(
        self,
        name: str,
        disk: DatastorePath,
        *,
        hardware: Hardware,
        reference: str,
        capacity_kib: int | None,
        expected_bytes: int | None,
        on_progress: Callable[[int], None],
        confirm: Callable[[], None],
        keep: DatastorePath | None = None,
    ) -> Draft:
        """Copy a disk into a folder of its own, complete with its marker, but not yet in place.

        Args:
            name: of the image.
            disk: what is copied, with all that its parents hold.
            hardware: of the VM that the image was captured from.
            reference: its vmx file; empty: one is made up from ``hardware``.
            capacity_kib: of the disk, where it is known.
            expected_bytes: what ``data_bytes`` of the copy must be, where that is known.
            on_progress: told of the percentage that is copied.
            keep: an unfinished folder that is still needed.
            confirm: asked before the marker is written; raises when the right to go on is lost.

        Raises:
            ProvisioningError: the copy failed, or is not what it should be.
        """
        self.remove_drafts(name, keep)
        folder = self.base / f"{name}{naming.PARTIAL}{secrets.token_hex(4)}"
        draft = Draft(self.files, folder, naming.master_folder(self.base, name))
        self.files.make_folder(folder)
        try:
            adapter = ADAPTERS.get(hardware.controller, "lsiLogic")
            self.files.copy_disk(disk, naming.disk_in(folder, name), on_progress, adapter=adapter)
            text = reference or text_of(name, hardware)
            self.files.write_text(folder / naming.reference_of(name), text)
            present = self.files.list(folder) or {}
            shown = self.files.capacity_kib(naming.disk_in(folder, name))
            _verify(name, folder, present, (capacity_kib, shown), expected_bytes)
            known = shown or capacity_kib
            confirm()
            made = marker.describe(name, present, hardware, known)
            self.files.write_text(folder / MARKER, made.to_text())
        except (Exception, WorkerStopped):
            draft.discard()
            raise
        return draft

    def remove_drafts(self, name: str, keep: DatastorePath | None = None) -> None:
        """Remove what unfinished copies left; one that still goes on cannot be removed."""
        prefix = f"{name}{naming.PARTIAL}"
        for entry in self.files.list(self.base) or {}:
            if entry.startswith(prefix) and self.base / entry != keep:
                Draft(self.files, self.base / entry, self.base / name).discard()


@dataclass(frozen=True, slots=True)
class Draft:
    """A copy in a folder of its own."""

    files: Files
    folder: DatastorePath
    target: DatastorePath

    def publish(self) -> None:
        """Give it the image's name: from now on it is complete for everybody.

        Raises:
            FatalProvisioningError: the name is taken; the copy is gone.
        """
        if not self.files.move(self.folder, self.target):
            self.discard()
            raise FatalProvisioningError(f"{self.target} exists already", blame=Blame.IMAGE)

    def discard(self) -> None:
        """Remove it, if possible: the next copy of the image tries again."""
        self.files.discard(self.folder)


def data_bytes(name: str, files: Mapping[str, FileFacts]) -> int:
    """Size of a disk's extents; of the disk itself where it is one file."""
    extents = {entry for entry in files if entry.endswith(".vmdk")} - {f"{name}.vmdk"}
    return sum(files[entry].size_bytes for entry in extents or {f"{name}.vmdk"})


def _verify(
    name: str,
    folder: DatastorePath,
    present: Mapping[str, FileFacts],
    capacities_kib: tuple[int | None, int | None],
    expected_bytes: int | None,
) -> None:
    """Compare a copy with its source: by capacity, or by size where the host does not tell it."""
    if f"{name}.vmdk" not in present:
        raise ProvisioningError(f"the copy in {folder} has no {name}.vmdk", blame=Blame.IMAGE)
    wanted, shown = capacities_kib
    if wanted and shown and wanted != shown:
        raise ProvisioningError(
            f"the copy in {folder} shows {shown} KiB instead of {wanted}", blame=Blame.IMAGE
        )
    if wanted and shown:
        return  # a thin copy may take less room than its source
    size = data_bytes(name, present)
    if expected_bytes is not None and size != expected_bytes:
        raise ProvisioningError(
            f"the copy in {folder} has {size} bytes instead of {expected_bytes}",
            blame=Blame.IMAGE,
        )
