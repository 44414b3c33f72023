"""Making room on a datastore: masters that nobody uses, and that the repository has too."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from vcld.errors import BackendUnavailableError, ProvisioningError
from vcld.provisioning.esxi import sources
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.inventory import Datastore
from vcld.provisioning.esxi.naming import PARTIAL
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.provisioning.esxi.usage import used_folders
from vcld.provisioning.leasing import Turn
from vcld.store import leases, vmhosts


def make_room(host: Host, store: Datastore, missing: int, keep: str) -> None:
    """Remove masters until ``missing`` bytes more are free, or nothing more may go.

    What copies that died have left goes first. A master goes only if the repository holds it,
    complete; if no VM of any host that sees the datastore has a disk on it; and while nobody else
    copies or removes it. Those of deleted images go first, then those that are not in production,
    the longest unused first.
    """
    if store.url != host.datastore_of(host.masters.base).url:
        return
    known = host.tools.run(vmhosts.masters_by_need)
    present = set(host.masters.files.list(host.masters.base) or {})
    if not _is_apart(host):
        return
    for name in present.difference(known):
        image, mark, _ = name.partition(PARTIAL)
        if missing > 0 and mark and image in known and image != keep:
            missing -= _hold(host, image, partial(_clear, host, name))
    host.refresh()  # the load has just removed its own
    if missing <= 0:
        return
    if used_folders(host) is None:
        host.tools.log.warning("no master is removed: nobody knows which of them are in use")
        return
    for name in known:
        if missing <= 0:
            return
        if name in present and name != keep and PARTIAL not in name:
            missing -= _hold(host, name, partial(_remove, host, name))


def _is_apart(host: Host) -> bool:
    """True when there is a repository, and it is not the masters' own folder by another way.

    A folder of this node, or a datastore, may be where another datastore is, too.
    """
    place = host.repository or host.local_repository
    if place is None or (host.repository is not None and host.repository.base == host.masters.base):
        return False
    probe = host.masters.base / f"probe{PARTIAL}{secrets.token_hex(4)}"
    host.files.make_folder(probe)
    is_same = place.holds(probe.name)
    host.files.discard(probe)
    if is_same:
        host.tools.log.warning("no master is removed: they are the repository's images themselves")
    return not is_same


def _hold(host: Host, name: str, work: Callable[[], int]) -> int:
    """Do what must not be done while somebody copies or removes a master; the bytes it frees."""
    with ExitStack() as stack:
        turn = Turn(wait_seconds=0.0)
        try:
            stack.enter_context(host.leases.take(host.master_lease(name), f"master {name}", turn))
        except BackendUnavailableError:
            return 0  # somebody copies it; and to wait for who may wait for us would last for ever
        return work()


def _clear(host: Host, entry: str) -> int:
    """Remove what a copy, or a removal, that died has left; the bytes that it had."""
    folder = host.masters.base / entry
    size = sum(facts.size_bytes for facts in (host.files.list(folder) or {}).values())
    host.files.discard(folder)
    host.tools.log.info("unfinished copy removed to make room", folder=str(folder), bytes=size)
    return size


def _remove(host: Host, name: str) -> int:
    """Remove a master whose lease is held: no load begins to use it (``masters.ensure``).

    Returns:
        The bytes that it had, 0 when it may not go.
    """
    # First who is about to use it, then who does: between the two, nobody is missed.
    if host.tools.run(leases.is_named, host.use_name(name)):
        return 0
    host.refresh()
    try:
        found = host.masters.find(name)
        stored = host.find_stored(name)
    except ProvisioningError as err:
        host.tools.log.warning("a master is not removed", image=name, reason=str(err))
        return 0
    used = used_folders(host)
    if found is None or stored is None or used is None or found.folder in used:
        return 0
    # Under another name first: nobody takes half a master for a whole one.
    sources.remove(host, name)
    doomed = DatastorePath(found.folder.datastore, f"{found.folder.path}{PARTIAL}removed")
    host.leases.confirm()
    if not host.files.move(found.folder, doomed):
        host.files.delete(doomed)
        return 0
    host.files.delete(doomed)
    host.tools.log.info("master removed to make room", image=name, bytes=found.size_bytes)
    return found.size_bytes
