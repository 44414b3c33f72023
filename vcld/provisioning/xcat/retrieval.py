"""Fetching an image from a partner management node (provisioning specification, §7).

Every file is copied under another name, compared by its SHA-256 sum, and renamed when all have
come; until all are there the image counts as partial.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from vcld.errors import Blame, FatalProvisioningError
from vcld.provisioning import library
from vcld.provisioning.asking import Search, find_offers
from vcld.provisioning.leasing import Turn
from vcld.provisioning.library import Offer
from vcld.provisioning.xcat.repository import DONE, FAILED, check_name, partial_name
from vcld.provisioning.xcat.site import XcatSite
from vcld.store.partners import Partner

WAIT_SECONDS = 7200.0
#: Of files that say how a capture ended.
ENDS = (DONE, FAILED)


class Retrieval:
    """Fetches one image."""

    def __init__(self, site: XcatSite, image: str) -> None:
        check_name(image)
        self._site = site
        self._image = image
        self._node = site.reservation.managementnode
        self._mark = partial_name(image)
        # Of this node: the folder may be that of others, too.
        self._prefix = f".{image}.vcld-{self._node.id}-"

    def run(self) -> None:
        """Fetch it from the partner that has most of it.

        Raises:
            ImageNotFoundError: no partner has it; what each said is in the message.
            FatalProvisioningError: it does not fit, or what came is not what was sent.
        """
        site = self._site
        turn = Turn(wait_seconds=WAIT_SECONDS)
        what = f"a turn at fetching {self._image}"
        with site.leases.take(f"retrieve:{self._image}:{self._node.id}", what, turn):
            if site.repository.files(self._image):
                return  # somebody has fetched it meanwhile
            offers = find_offers(
                site.tools,
                self._node,
                self._image,
                self._search,
                self._may_be_whole,
            )
            library.receive(list(map(_without_ends, offers)), self._receive)

    def _may_be_whole(self, offer: Offer) -> bool:
        """Neither is it being written, nor did that fail, as far as the partner tells."""
        names = offer.sizes.keys()
        is_marked = self._mark in names or any(name.endswith(FAILED) for name in names)
        return not is_marked and any(not name.endswith(ENDS) for name in names)

    def _search(self, partner: Partner) -> Search:
        roots = [root for root in (partner.installpath, "/install") if root.startswith("/")]
        return Search(
            folders=[
                f"{root}/{name}/{arch}"
                for root in roots
                for name in ("image", "images")
                for arch in self._site.repository.architectures
            ],
            patterns=(f"{self._image}.*", f"{self._image}-*", self._mark),
        )

    def _receive(self, offer: Offer) -> None:
        folder = self._site.repository.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # What an attempt that died has left: first what had not its name yet.
            _remove(folder.glob(f"{self._prefix}*"))
            with self._marked(folder):
                _remove(self._named(folder))
                self._check_space(folder, offer.size_bytes)
                with self._temporary(folder) as prefix:
                    self._copy(offer, prefix)
                    self._site.leases.confirm()  # nobody else has begun it anew
                    for name in offer.sizes:
                        Path(f"{prefix}{name}").replace(folder / name)
        except OSError as err:
            raise FatalProvisioningError(
                f"{self._image} cannot be written to {folder}: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err

    def _named(self, folder: Path) -> list[Path]:
        return self._site.repository.all_files(self._image, folder)

    def _check_space(self, folder: Path, size_bytes: int) -> None:
        facts = os.statvfs(folder)
        free = facts.f_bavail * facts.f_frsize
        if free < size_bytes:
            raise FatalProvisioningError(
                f"{self._image} needs {size_bytes >> 20} MB in {folder}, where {free >> 20} MB"
                " are free",
                blame=Blame.MANAGEMENT_NODE,
            )

    @contextlib.contextmanager
    def _marked(self, folder: Path) -> Iterator[None]:
        """The image counts as partial until the block ends; when it fails, nothing of it stays.

        Unless somebody has begun it anew meanwhile: then it is theirs.
        """
        mark, token = folder / self._mark, secrets.token_hex(8)
        try:
            mark.write_text(token, encoding="ascii")
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                # A full disk may have left it empty.
                if mark.read_text(encoding="ascii", errors="replace") in {token, ""}:
                    _remove(self._named(folder))
                    mark.unlink()
            raise
        mark.unlink(missing_ok=True)

    def _copy(self, offer: Offer, prefix: str) -> None:
        sums = offer.sums()
        for name, digest in sums.items():
            self._site.tools.progress("copyfrompartnerMN", f"copying {name} from {offer.partner}")
            target = Path(f"{prefix}{name}")
            offer.fetch(name, digest, partial(library.write, target))

    @contextlib.contextmanager
    def _temporary(self, folder: Path) -> Iterator[str]:
        """A prefix for paths of files that vanish with the block."""
        prefix = f"{self._prefix}{secrets.token_hex(4)}."
        try:
            yield str(folder / prefix)
        finally:
            _remove(folder.glob(f"{prefix}*"))


def _without_ends(offer: Offer) -> Offer:
    sizes = {name: size for name, size in offer.sizes.items() if not name.endswith(ENDS)}
    return replace(offer, sizes=sizes)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
