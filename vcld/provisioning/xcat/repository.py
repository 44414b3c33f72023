"""Where images are on this management node (provisioning specification, §9.4). Only looks."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from vcld.errors import FatalProvisioningError, ImageNotFoundError
from vcld.store.blades import WantedImage

#: An imagename becomes part of paths and of xCAT's tables.
IMAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
#: Written by the network boot environment beside a captured image.
DONE, FAILED = ".img.capturedone", ".img.capturefailed"
#: Ours: the image of this name is not complete.
PARTIAL = "vcld-partial"
BLOCK_BYTES = 512


class Repository:
    """Images of one management node, as an image's row says where to look."""

    def __init__(self, installpath: str, image: WantedImage, xcat_root: str) -> None:
        #: The root of images, installation trees and the site's own templates.
        self.install = Path(installpath or "/install")
        self._image = image
        self._root = Path(xcat_root)

    @property
    def architectures(self) -> tuple[str, ...]:
        """Names of folders: the image's own first. 32-bit images may be called either way."""
        own = self._image.architecture or "x86_64"
        return tuple(dict.fromkeys((own, "x86_64", "x86")))

    @property
    def folder(self) -> Path:
        """Where a new image of this kind is put."""
        return self.folders()[0]

    def folders(self) -> list[Path]:
        """Where captured images may be, the most likely first."""
        source = self._image.os_sourcepath or ""
        if source.startswith("/"):
            return [Path(source)]
        names = dict.fromkeys((source if source.startswith("image") else "image", "images"))
        found = [self.install / name / arch for name in names for arch in self.architectures]
        return sorted(found, key=lambda path: not path.is_dir())

    def files(self, name: str) -> list[Path]:
        """The files of a captured image; none unless it is complete."""
        for folder in self.folders():
            found = self.all_files(name, folder)
            if found and not self.partial_mark(name, folder).exists():
                return found
        return []

    def all_files(self, name: str, folder: Path) -> list[Path]:
        """The files of an image in a folder, complete or not, without marks."""
        check_name(name)
        stem = glob.escape(name)
        found = {*folder.glob(f"{stem}.*"), *folder.glob(f"{stem}-*")}
        return sorted(p for p in found if p.is_file() and not p.name.endswith((DONE, FAILED)))

    def partial_mark(self, name: str, folder: Path) -> Path:
        """A file that is there while the image is written."""
        check_name(name)
        return folder / partial_name(name)

    def size_mib(self, name: str) -> int:
        """Space on the disk, as ``du -c``, rounded up.

        Raises:
            ImageNotFoundError: there is no such image.
        """
        files = self.files(name)
        if not files:
            raise ImageNotFoundError(f"image {name} is not in {self.folder}")
        used = sum(path.stat().st_blocks for path in files) * BLOCK_BYTES
        return max(1, -(-used // 2**20))

    def tree(self) -> Path | None:
        """The installation tree of a kickstart image: ``<installpath>/<os>/<arch>``.

        Without ``OS.sourcepath`` it is the directory with the highest minor version: for rhel6
        such as rhels6.9.
        """
        for arch in self.architectures:
            for name in self._tree_names():
                path = self.install / name / arch
                if path.is_dir():
                    return path
        return None

    def template(self, name: str) -> Path | None:
        """The kickstart template of an image, or the one it would be made from."""
        tree = self.tree()
        source = self._image.os_sourcepath or (tree.parent.name if tree else "")
        short = re.sub(r"\d+$", "", source.strip("/").replace(".", ""))
        for prefix in ("rh", "esx"):
            if short.startswith(prefix):
                short = prefix
        check_name(name)
        # The site's own before those that come with xCAT, as xCAT itself looks for them.
        folders = (
            self.install / "custom/install" / short,
            self._root / "share/xcat/install" / short,
        )
        for stem in (name, self._image.os_name, self._image.os_type, "default"):
            paths = (folder / f"{stem}.tmpl" for folder in folders if "/" not in stem)
            found = next((path for path in paths if path.is_file()), None)
            if found is not None:
                return found
        return None

    def _tree_names(self) -> list[str]:
        source = (self._image.os_sourcepath or "").strip("/")
        if source and source != "image":
            return [source]
        found = re.fullmatch(r"([a-z]+?)s?(\d+)", self._image.os_name)
        if found is None:
            return [self._image.os_name]
        pattern = re.compile(rf"{found[1]}s?{found[2]}(?:\.(\d+))?")
        names = [path.name for path in self.install.glob(f"{found[1]}*")]
        versions = [(int(m[1] or -1), name) for name in names if (m := pattern.fullmatch(name))]
        return [name for _, name in sorted(versions, reverse=True)]


def partial_name(name: str) -> str:
    """The name of the file that is there while an image is written, on any management node."""
    return f".{name}.{PARTIAL}"


def check_name(name: str) -> None:
    """Refuse a name that could mean another file.

    Raises:
        FatalProvisioningError: it could.
    """
    if not IMAGE_NAME.fullmatch(name):
        raise FatalProvisioningError(f"{name!r} cannot be the name of an image")
