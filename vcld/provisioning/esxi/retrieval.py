"""Fetching an image that only a partner management node has (specification §7).

Into the repository, on this machine or on the host's datastore: into a folder of another name,
each file compared by its SHA-256 sum with the partner's, renamed when all are there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vcld.errors import (
    BackendUnavailableError,
    Blame,
    FatalProvisioningError,
    ImageNotFoundError,
    ProvisioningError,
    WorkerStopped,
)
from vcld.provisioning import library
from vcld.provisioning.asking import Search, find_offers
from vcld.provisioning.esxi import descriptor, marker, masters, naming
from vcld.provisioning.esxi.files import FileFacts, Files
from vcld.provisioning.esxi.host import Host, lease_name
from vcld.provisioning.esxi.images import Draft, ImageFolder
from vcld.provisioning.esxi.local import LocalFolder
from vcld.provisioning.esxi.marker import MARKER
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.provisioning.library import Offer, Stream
from vcld.store import vmhosts
from vcld.store.partners import Partner

Deliver = Callable[[str, Stream], None]


class Retrieval:
    """Fetches one image."""

    def __init__(self, host: Host, image: str) -> None:
        naming.check_image(image)
        self._host = host
        self._image = image

    def run(self) -> None:
        """Fetch it from the partner that has most of it, unless somebody does that already.

        Raises:
            ImageNotFoundError: no partner has it; what each said is in the message.
            ProvisioningError: it does not fit, or did not come as it was sent.
        """
        host, image = self._host, self._image
        if host.repository is None and host.local_repository is None:
            raise ImageNotFoundError(
                f"image {image} is not on the VM host, and profile"
                f" {host.vmhost.profile.profilename!r} has no repositorypath to fetch it to"
            )

        def is_here() -> bool:
            return host.find_stored(image) is not None

        name = lease_name("retrieve", image)
        with host.leases.hold(name, f"the fetching of {image}", unless=is_here) as ours:
            if ours and not is_here():
                library.receive(self._whole_ones(), self._receive)

    def _whole_ones(self) -> list[Offer]:
        """The first whole one, and those after it."""
        host, image = self._host, self._image
        offers = find_offers(
            host.tools,
            host.reservation.managementnode,
            image,
            self._search,
            lambda offer: f"{image}.vmdk" in offer.sizes,
        )
        problems = []
        for number, offer in enumerate(offers):
            try:
                check_whole(image, offer)
            except BackendUnavailableError:
                raise  # not the partner's: a lease was lost
            except ProvisioningError as err:
                problems.append(f"{offer.partner}: {err}")
                continue
            if problems:
                host.tools.log.info("a partner's image is not whole", reason="; ".join(problems))
            return offers[number:]
        raise ImageNotFoundError(f"image {image}: {'; '.join(problems)}")

    def _search(self, partner: Partner) -> Search:
        """Folders that images may be in: those that profiles name, and VCL's own."""
        host = self._host
        profiles = [host.vmhost.profile]
        profiles += [one.profile for one in host.tools.run(vmhosts.load_others, host.vmhost.id)]
        roots = [profile.repositorypath or "" for profile in profiles]
        roots += [f"{partner.installpath}/vmware_images", partner.installpath]
        return Search(
            folders=[f"{root.rstrip('/')}/{self._image}" for root in roots if root],
            patterns=(f"{self._image}*", "vcld-*"),
        )

    def _receive(self, offer: Offer) -> None:
        host = self._host
        local = host.local_repository
        host.step("retrieve:copy")
        if local is not None:
            self._to_this_machine(local, offer)
        elif host.repository is not None:
            store = host.datastore_of(host.repository.base)
            with host.space.promise({store.url: (store, offer.size_bytes)}):
                self._to_datastore(host.repository, offer)
        host.tools.log.info(
            "image fetched", image=self._image, partner=offer.partner, bytes=offer.size_bytes
        )

    def _to_this_machine(self, local: LocalFolder, offer: Offer) -> None:
        folder = local.make_draft(self._image, offer.size_bytes)
        try:
            self._copy(offer, lambda name, stream: library.write(folder / name, stream))
            _sync(folder)
            self._host.step("retrieve:publish")
            self._host.leases.confirm()
        except OSError as err:
            raise FatalProvisioningError(
                f"{self._image} cannot be written to {folder}: {err.strerror}",
                blame=Blame.MANAGEMENT_NODE,
            ) from err
        else:
            local.publish(self._image, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _to_datastore(self, place: ImageFolder, offer: Offer) -> None:
        files = self._host.files
        place.remove_drafts(self._image)
        folder = place.base / f"{self._image}{naming.PARTIAL}{secrets.token_hex(4)}"
        draft = Draft(files, folder, naming.master_folder(place.base, self._image))
        files.make_folder(folder)
        try:
            self._copy(offer, lambda name, stream: files.receive(stream, folder / name))
            _mark_anew(files, folder)
            self._host.step("retrieve:publish")
            self._host.leases.confirm()
        except (Exception, WorkerStopped):
            draft.discard()
            raise
        draft.publish()

    def _copy(self, offer: Offer, deliver: Deliver) -> None:
        sums = offer.sums()
        tell = masters.copy_teller(
            self._host, f"copying {self._image} from {offer.partner}", "copyfrompartnerMN"
        )
        done = 0
        # The marker last: it says that the others are there.
        for name in sorted(offer.sizes, key=lambda one: (one == MARKER, one)):
            tell(done * 100 // max(1, offer.size_bytes))
            offer.fetch(name, sums[name], partial(deliver, name))
            done += offer.sizes[name]


def check_whole(image: str, offer: Offer) -> None:
    """Make sure that a partner has all that the image's marker and its disk's descriptor name.

    Raises:
        FatalProvisioningError: something is missing, or has another size.
    """
    where = f"{offer.partner}:{offer.folder}"
    if MARKER in offer.sizes:
        found = marker.from_text(offer.read_text(MARKER), where)
        found.check(where, {n: FileFacts(size_bytes=size) for n, size in offer.sizes.items()})
    for extent in descriptor.extents_of(offer.read_text(f"{image}.vmdk")):
        size = offer.sizes.get(extent.name)
        if size is None or size < (extent.file_bytes or 0):
            state = "missing" if size is None else f"only {size} bytes long"
            raise FatalProvisioningError(
                f"image {image} is not whole there: {extent.name} is {state}", blame=Blame.IMAGE
            )


def _sync(folder: Path) -> None:
    """A folder's entries survive a power cut once it is synced itself."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _mark_anew(files: Files, folder: DatastorePath) -> None:
    """Let the marker say what the host lists: there a disk is one file, whatever came."""
    present = files.list(folder) or {}
    if MARKER not in present:
        return
    came = marker.from_text(files.read_text(folder / MARKER) or "", folder)
    made = marker.describe(came.image, present, came.hardware, came.capacity_kib)
    if made.files != came.files:
        files.write_text(folder / MARKER, made.to_text())
