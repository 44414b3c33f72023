"""A repository in a folder of the management node: images go to and from the host over HTTPS."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from vcld.errors import Blame, FatalProvisioningError, ProvisioningError, WorkerStopped
from vcld.provisioning.esxi import descriptor, marker, naming
from vcld.provisioning.esxi.files import FileFacts, Files
from vcld.provisioning.esxi.images import StoredImage
from vcld.provisioning.esxi.marker import MARKER, Hardware, Marker
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.provisioning.esxi.vmx import hardware_of


class LocalFolder:
    """The images below a folder of this machine."""

    def __init__(self, files: Files, base: Path) -> None:
        self._files = files
        self._base = base

    def find(self, name: str) -> StoredImage | None:
        """A complete image, whose ``folder`` means nothing; None when there is none.

        Raises:
            FatalProvisioningError: it is there, and damaged.
        """
        naming.check_image(name)
        try:
            return self._find(name)
        except (OSError, UnicodeDecodeError) as err:
            raise self._unreadable(name, err) from err

    def _unreadable(self, name: str, err: Exception) -> FatalProvisioningError:
        why = err.strerror if isinstance(err, OSError) else "it is no text"
        where = getattr(err, "filename", None) or self._base / name / MARKER
        return FatalProvisioningError(
            f"image {name} in the repository {self._base} cannot be read: {where}: {why}",
            blame=Blame.MANAGEMENT_NODE if isinstance(err, OSError) else Blame.IMAGE,
        )

    def _find(self, name: str) -> StoredImage | None:
        folder = self._base / name
        if not (folder / f"{name}.vmdk").is_file():
            return None
        present = {
            path.name: FileFacts(size_bytes=path.stat().st_size)
            for path in folder.iterdir()
            if path.is_file()
        }
        capacity, hardware = None, Hardware()
        if MARKER in present:
            found = marker.from_text((folder / MARKER).read_text(encoding="utf-8"), folder)
            found.check(folder, present)
            capacity, hardware = found.capacity_kib, found.hardware
        elif naming.reference_of(name) in present:
            hardware = hardware_of(self._read_reference(name))
        described = descriptor.read(folder / f"{name}.vmdk")
        gone = [one.name for one in descriptor.extents_of(described) if one.name not in present]
        if gone:
            raise FatalProvisioningError(
                f"image {name} in {folder} is damaged: {gone[0]} is not there; restore it",
                blame=Blame.IMAGE,
            )
        if capacity is None:
            capacity = descriptor.capacity_kib(described)
        nowhere = DatastorePath("", name)
        return StoredImage(
            name=name,
            folder=nowhere,
            files=present,
            capacity_kib=capacity,
            hardware=hardware,
        )

    def holds(self, entry: str) -> bool:
        """True when a folder of this name is there, whatever it holds."""
        return (self._base / entry).exists()

    def refuse_incomplete(self, name: str) -> None:
        """Make sure, before a capture, that its place is free and can be written to.

        Raises:
            FatalProvisioningError: a folder is there that holds no complete image; or there is
                no repository.
        """
        if not os.access(self._base, os.W_OK | os.X_OK):
            raise FatalProvisioningError(
                f"the repository {self._base} is not there on this management node, or cannot be"
                " written",
                blame=Blame.MANAGEMENT_NODE,
            )
        folder = self._base / name
        if folder.exists() and not (folder / f"{name}.vmdk").is_file():
            raise FatalProvisioningError(
                f"{folder} is there but holds no {name}.vmdk: remove the folder", blame=Blame.IMAGE
            )

    def reference(self, image: StoredImage) -> str:
        """The vmx file of the VM that it was captured from, which Perl daemons read; or empty."""
        there = naming.reference_of(image.name) in image.files
        return self._read_reference(image.name) if there else ""

    def _read_reference(self, name: str) -> str:
        path = self._base / name / naming.reference_of(name)
        return path.read_text(encoding="utf-8", errors="replace")

    def upload(
        self, image: StoredImage, base: DatastorePath, on_progress: Callable[[int], None]
    ) -> DatastorePath:
        """Bring an image's disk files into a folder for unfinished copies; the caller removes it.

        Returns:
            The folder.

        Raises:
            ProvisioningError: a file cannot be read, or sent; the folder is gone.
        """
        folder = base / f"{image.name}{naming.PARTIAL}up-{secrets.token_hex(4)}"
        self._files.make_folder(folder)
        done = 0
        try:
            for name, facts in sorted(image.files.items()):
                if name.endswith(".vmdk"):
                    self._files.upload(self._base / image.name / name, folder / name)
                    done += facts.size_bytes
                    on_progress(done * 100 // max(1, image.size_bytes))
        except (Exception, WorkerStopped) as err:
            self._files.discard(folder)
            if isinstance(err, OSError):
                raise self._unreadable(image.name, err) from err
            raise
        return folder

    def store(self, name: str, folder: DatastorePath) -> Path:
        """Fetch a finished copy, marker and all, into a folder that is not yet the image's.

        Raises:
            ProvisioningError: this machine's folder cannot be written, or the copy is short.
        """
        for old in self._base.glob(f"{name}{naming.PARTIAL}*"):
            shutil.rmtree(old, ignore_errors=True)
        target = self._base / f"{name}{naming.PARTIAL}{secrets.token_hex(4)}"
        present = self._files.list(folder) or {}
        try:
            target.mkdir(mode=0o755)
            for entry in present:
                if entry != MARKER:
                    self._fetch(folder, target, entry, present)
            # The marker last: it says that the others are there.
            text = self._files.read_text(folder / MARKER) or ""
            _write_marker(marker.from_text(text, folder), target)
        except (OSError, ProvisioningError) as err:
            shutil.rmtree(target, ignore_errors=True)
            if isinstance(err, ProvisioningError):
                raise
            raise ProvisioningError(
                f"the repository {self._base} cannot be written: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err
        return target

    def _fetch(
        self, folder: DatastorePath, target: Path, entry: str, present: Mapping[str, FileFacts]
    ) -> None:
        """Fetch a file and, of a disk that the host lists as one, those that hold its data.

        Raises:
            ProvisioningError: one is not as long as it should be.
        """
        self._files.download(folder / entry, target / entry)
        hidden = [
            extent
            for extent in descriptor.extents_of(descriptor.read(target / entry))
            if extent.name not in present
        ]
        if not hidden:
            _check_size(target / entry, present[entry].size_bytes)
        for extent in hidden:
            if "/" in extent.name or extent.name in {"", ".", ".."}:
                raise ProvisioningError(
                    f"{entry} in {folder} has its data elsewhere: {extent.name}",
                    blame=Blame.IMAGE,
                )
            self._files.download(folder / extent.name, target / extent.name)
            _check_size(target / extent.name, extent.file_bytes)

    def make_draft(self, name: str, size_bytes: int) -> Path:
        """A folder for an image that is about to come; what earlier attempts left is removed.

        Raises:
            FatalProvisioningError: there is no room for it, or it cannot be made.
        """
        for old in self._base.glob(f"{name}{naming.PARTIAL}*"):
            shutil.rmtree(old, ignore_errors=True)
        try:
            self._base.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.refuse_full(name, size_bytes)
            target = self._base / f"{name}{naming.PARTIAL}{secrets.token_hex(4)}"
            target.mkdir(mode=0o755)
        except OSError as err:
            raise FatalProvisioningError(
                f"the repository {self._base} cannot be written: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err
        return target

    def refuse_full(self, name: str, size_bytes: int) -> None:
        """Make sure that there is room for an image.

        Raises:
            FatalProvisioningError: there is not.
            OSError: nobody can tell.
        """
        free = shutil.disk_usage(self._base).free
        if free < size_bytes:
            raise FatalProvisioningError(
                f"{name} needs {size_bytes >> 20} MB in {self._base}, where {free >> 20} MB"
                " are free",
                blame=Blame.MANAGEMENT_NODE,
            )

    def publish(self, name: str, target: Path) -> None:
        """Give a fetched copy the image's name.

        Raises:
            FatalProvisioningError: the name is taken.
        """
        try:
            os.rename(target, self._base / name)
        except OSError as err:
            shutil.rmtree(target, ignore_errors=True)
            raise FatalProvisioningError(
                f"image {name} cannot be put into {self._base}: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err


def _check_size(path: Path, wanted: int | None) -> None:
    size = path.stat().st_size
    if wanted is not None and size != wanted:
        raise ProvisioningError(
            f"{path.name} came with {size} bytes instead of {wanted}", blame=Blame.VMHOST
        )


def _write_marker(made: Marker, target: Path) -> None:
    """Write the marker of an image that was fetched, with the sizes that its files have here."""
    sizes = {path.name: path.stat().st_size for path in target.iterdir()}
    with (target / MARKER).open("w", encoding="utf-8") as writer:
        writer.write(dataclasses.replace(made, files=sizes).to_text())
        writer.flush()
        os.fsync(writer.fileno())
