"""Which folders of a datastore are in use by disks of VMs, whatever host they are on."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from vcld.errors import ProvisioningError
from vcld.provisioning.esxi.client import hop
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.naming import SOURCE
from vcld.provisioning.esxi.paths import DatastorePath, parse
from vcld.snapshot import VMProfile
from vcld.store import vmhosts


def used_folders(host: Host) -> set[DatastorePath] | None:
    """Folders on the masters' datastore in which disks of VMs, or parents of them, lie.

    VMs that clones are made from do not count as long as there is no clone of them.

    Returns:
        None when a host that may see the datastore cannot be asked.
    """
    base = host.masters.base
    store = host.datastore_of(base)
    used = _by_vm(host, store.url, base.datastore, skip_idle=True)
    if not store.shared:
        return used
    mine = (host.session.endpoint.address, host.session.endpoint.port)
    for other in host.tools.run(vmhosts.load_others, host.vmhost.id):
        if not _may_share(other.profile, base.datastore):
            continue
        neighbour = host.neighbour(other)
        try:
            endpoint = neighbour.session.endpoint
            if (endpoint.address, endpoint.port) != mine:
                used |= _by_vm(neighbour, store.url, base.datastore, skip_idle=False)
        except ProvisioningError as err:
            host.tools.log.warning(
                "no master is removed: another host on the datastore cannot be asked",
                host=other.hostname,
                reason=str(err),
            )
            return None
        finally:
            neighbour.close()
    return used


def _may_share(profile: VMProfile, name: str) -> bool:
    """A datastore has the same name everywhere; a path that cannot be read may mean any."""
    for text in filter(None, (profile.datastorepath, profile.vmpath)):
        try:
            if parse(text).datastore == name:
                return True
        except ValueError:
            return True
    return False


def _by_vm(host: Host, url: str, name: str, *, skip_idle: bool) -> set[DatastorePath]:
    """The folders by what one host sees; a datastore is known by its URL, not by its name."""
    store = next((one for one in host.inventory.datastores.values() if one.url == url), None)
    if store is None:
        return set()
    found = host.client.read(
        [store.ref],
        {vim.VirtualMachine: ("name", "config.hardware.device")},
        hop("vms", vim.Datastore, "vm"),
    )
    folders: set[DatastorePath] = set()
    sources: list[set[DatastorePath]] = []
    for facts in found.values():
        chain = {
            DatastorePath(name if path.datastore == store.name else path.datastore, path.path)
            for path in _disk_folders(facts.get("config.hardware.device", ()))
        }
        if skip_idle and str(facts.get("name", "")).startswith(SOURCE):
            sources.append(chain)
        else:
            folders |= chain
    for chain in sources:
        # A clone's chain of parents leads through the folder of its source.
        if any(SOURCE in folder.name and folder in folders for folder in chain):
            folders |= chain
    return folders


def _disk_folders(devices: Any) -> list[DatastorePath]:
    folders = []
    for one in devices:
        backing = one.backing if isinstance(one, vim.vm.device.VirtualDisk) else None
        while backing is not None and getattr(backing, "fileName", None):
            folders.append(parse(backing.fileName).parent)
            backing = getattr(backing, "parent", None)
    return folders
