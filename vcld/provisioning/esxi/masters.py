"""Bringing an image's master to the datastore: once, however many workers and hosts want it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from vcld.errors import ImageNotFoundError
from vcld.provisioning.esxi import naming, reclaim
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.images import StoredImage
from vcld.provisioning.esxi.inventory import Datastore
from vcld.provisioning.esxi.local import LocalFolder
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.store import leases

#: Copies at one time per datastore, where the site sets no limit.
COPIES = 2


def ensure(host: Host, imagename: str) -> StoredImage:
    """Return the master, after copying it from the repository if it is not there.

    Raises:
        ImageNotFoundError: neither datastore nor repository has it.
        ProvisioningError: there is no space, or the copy failed.
    """
    found = host.masters.find(imagename)
    # Whoever holds the lease may be about to remove it (``reclaim``), not knowing of us yet.
    if found is not None and not host.tools.run(leases.is_named, host.master_lease(imagename)):
        return found
    store = host.datastore_of(host.masters.base)
    what = f"the copy of {imagename} to datastore {store.name}"

    def is_there() -> bool:
        nonlocal found
        found = host.masters.find(imagename)
        return found is not None

    with host.leases.hold(host.master_lease(imagename), what, unless=is_there) as ours:
        if ours and not is_there():
            found = _copy(host, imagename)
    assert found is not None
    return found


def _copy(host: Host, imagename: str) -> StoredImage:
    host.masters.refuse_incomplete(imagename)
    store = host.datastore_of(host.masters.base)
    source = host.find_stored(imagename)
    if source is None:
        raise ImageNotFoundError(
            f"image {imagename} is neither on datastore {store.name} nor in the repository"
        )
    # From this node it comes as files first, and is then copied to one disk.
    times = 2 if host.local_repository is not None else 1
    needed = {store.url: (store, times * source.size_bytes)}
    tell = copy_teller(host, f"copying {imagename} to datastore {store.name}")
    with (
        copy_turn(host, store),
        host.space.promise(needed, lambda s, n: reclaim.make_room(host, s, n, imagename)),
    ):
        tell(0)
        if host.local_repository is None:
            _add(host, source, source.disk, tell)
        else:
            _bring(host, host.local_repository, source, tell)
    host.tools.log.info("master copied", image=imagename, datastore=store.name)
    copied = host.masters.find(imagename)
    if copied is None:
        raise ImageNotFoundError(f"master {imagename} vanished from datastore {store.name}")
    return copied


def _bring(
    host: Host, repository: LocalFolder, source: StoredImage, tell: Callable[[int], None]
) -> None:
    """Bring the image's files from this node to the host, and make a master of them there."""
    host.masters.remove_drafts(source.name)
    host.step("load:master-upload")
    uploaded = repository.upload(source, host.masters.base, tell)
    try:
        _add(host, source, naming.disk_in(uploaded, source.name), tell, keep=uploaded)
    finally:
        host.files.discard(uploaded)


def _add(
    host: Host,
    source: StoredImage,
    disk: DatastorePath,
    tell: Callable[[int], None],
    keep: DatastorePath | None = None,
) -> None:
    place = host.local_repository or host.repository
    assert place is not None  # the source was found in it
    host.step("load:master-copy")
    draft = host.masters.add(
        source.name,
        disk,
        hardware=source.hardware,
        reference=place.reference(source),
        capacity_kib=source.capacity_kib,
        expected_bytes=source.data_bytes if _same_format(host) else None,
        on_progress=tell,
        confirm=host.leases.confirm,
        keep=keep,
    )
    host.step("load:master-publish")
    host.leases.confirm()
    draft.publish()


def copy_turn(host: Host, store: Datastore) -> AbstractContextManager[bool]:
    """A turn at copying to a datastore, for as long as the copy takes."""
    limit = host.limit("copies", store.name, COPIES)
    turn = f"a turn at copying to {store.name}"
    return host.leases.hold(f"copies:{store.url}", turn, limit=limit)


def copy_teller(host: Host, text: str, loadstate: str = "transfervm") -> Callable[[int], None]:
    """Tells the load log of each tenth of a copy that is done."""
    told = -1

    def tell(percent: int) -> None:
        nonlocal told
        if percent // 10 != told // 10:
            told = percent
            host.tools.progress(loadstate, f"{text}, {percent} %")

    return tell


def _same_format(host: Host) -> bool:
    """True when the files of a copy must be as large as those of its source."""
    profile = host.vmhost.profile
    return profile.repositoryimagetype == profile.datastoreimagetype
