"""Fetching an image from a partner management node (provisioning specification, §7).

Every file is copied under another name, compared by its SHA-256 sum, and renamed when all have
come; until all are there the image counts as partial.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vcld.errors import Blame, FatalProvisioningError
from vcld.provisioning import library
from vcld.provisioning.leasing import Turn
from vcld.provisioning.library import Offer, Search
from vcld.provisioning.xcat.repository import check_name, partial_name
from vcld.provisioning.xcat.site import XcatSite
from vcld.store.partners import Partner

WAIT_SECONDS = 7200.0


class Retrieval:
    """Fetches one image."""

    def __init__(self, site: XcatSite, image: str) -> None:
        check_name(image)
        self._site = site
        self._image = image
        self._node = site.reservation.managementnode
        self._mark = partial_name(image)

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
            offers = library.find_offers(
                site.tools,
                self._node,
                self._image,
                self._search,
                lambda offer: self._mark not in offer.sizes,
            )
            self._receive(offers[0])

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
        repository = self._site.repository
        folder = repository.folder
        mark = repository.partial_mark(self._image, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            facts = os.statvfs(folder)
            if facts.f_bavail * facts.f_frsize < offer.size_bytes:
                raise FatalProvisioningError(
                    f"{self._image} needs {offer.size_bytes >> 20} MB in {folder}, where"
                    f" {facts.f_bavail * facts.f_frsize >> 20} MB are free",
                    blame=Blame.MANAGEMENT_NODE,
                )
            # What an attempt that died has left.
            for old in repository.all_files(self._image, folder):
                old.unlink()
            mark.touch()
            with self._temporary(folder) as prefix:
                self._copy(offer, prefix)
                self._site.leases.confirm()  # nobody else has begun it anew
                for name in offer.sizes:
                    Path(f"{prefix}{name}").replace(folder / name)
            mark.unlink()
        except OSError as err:
            raise FatalProvisioningError(
                f"{self._image} cannot be written to {folder}: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err

    def _copy(self, offer: Offer, prefix: str) -> None:
        sums = offer.sums()
        for name, digest in sums.items():
            self._site.tools.progress("copyfrompartnerMN", f"copying {name} from {offer.partner}")
            target = Path(f"{prefix}{name}")
            offer.fetch(name, digest, partial(library.write, target))

    @contextlib.contextmanager
    def _temporary(self, folder: Path) -> Iterator[str]:
        """A prefix for paths of files that vanish with the block."""
        prefix = folder / f".{self._image}.{secrets.token_hex(4)}."
        try:
            yield str(prefix)
        finally:
            for path in folder.glob(f"{prefix.name}*"):
                path.unlink(missing_ok=True)
