"""Making room on a datastore: masters that nobody uses, and that the repository has too."""

from __future__ import annotations

from contextlib import ExitStack

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

    A master goes only if the repository holds it, complete; if no VM of any host that sees the
    datastore has a disk on it; and while nobody else copies or removes it. Those of deleted
    images go first, then those that are not in production, the longest unused first.
    """
    has_repository = host.repository is not None or host.local_repository is not None
    if not has_repository or store.url != host.datastore_of(host.masters.base).url:
        return
    host.refresh()  # the load has just removed its own
    if used_folders(host) is None:
        return
    known = host.tools.run(vmhosts.masters_by_need)
    present = set(host.masters.files.list(host.masters.base) or {})
    for name in known:
        if missing <= 0:
            return
        if name in present and name != keep and PARTIAL not in name:
            missing -= _remove(host, name)


def _remove(host: Host, name: str) -> int:
    """Remove one master; the bytes that it had, 0 when it may not go."""
    with ExitStack() as stack:
        turn = Turn(wait_seconds=0.0)
        try:
            stack.enter_context(host.leases.take(host.master_lease(name), f"master {name}", turn))
        except BackendUnavailableError:
            return 0  # somebody copies it; and to wait for who may wait for us would last for ever
        return _remove_held(host, name)


def _remove_held(host: Host, name: str) -> int:
    """Remove a master whose lease is held: no load begins to use it (``masters.ensure``)."""
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
