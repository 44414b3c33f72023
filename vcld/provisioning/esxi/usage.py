"""Which folders of a datastore are in use by disks of VMs, whatever host they are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from vcld.errors import ProvisioningError
from vcld.provisioning.esxi import naming
from vcld.provisioning.esxi.client import hop
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.inventory import Datastore
from vcld.provisioning.esxi.naming import SOURCE
from vcld.provisioning.esxi.paths import DatastorePath, parse
from vcld.snapshot import VMProfile
from vcld.store import vmhosts

DEVICES = "config.hardware.device"


def used_folders(host: Host) -> set[DatastorePath] | None:
    """Folders on the masters' datastore in which disks of VMs, or parents of them, lie.

    VMs that clones are made from do not count as long as there is no clone of them.

    Returns:
        None when a host that may see the datastore, or a VM of ours on one, cannot be asked.
    """
    base = host.masters.base
    store = host.datastore_of(base)
    used = _by_vm(host, store.url, base.datastore, skip_idle=True)
    theirs = used_elsewhere(host, base) if used is not None else None
    return used | theirs if used is not None and theirs is not None else None


def used_elsewhere(host: Host, base: DatastorePath) -> set[DatastorePath] | None:
    """The same for the datastore of a folder, by what the other hosts say that may see it.

    Returns:
        None when one of them, or a VM of ours on one, cannot be asked.
    """
    store = host.datastore_of(base)
    used: set[DatastorePath] = set()
    if not store.shared:
        return used
    mine = (host.session.endpoint.address, host.session.endpoint.port)
    for other in host.tools.run(vmhosts.load_others, host.vmhost.id):
        if not may_share(other.profile, store):
            continue
        neighbour = host.neighbour(other)
        try:
            endpoint = neighbour.session.endpoint
            if (endpoint.address, endpoint.port) != mine:
                theirs = _by_vm(neighbour, store.url, base.datastore, skip_idle=False)
                if theirs is None:
                    return None
                used |= theirs
        except ProvisioningError as err:
            host.tools.log.warning(
                "another host on the datastore cannot be asked what it uses",
                host=other.hostname,
                reason=str(err),
            )
            return None
        finally:
            neighbour.close()
    return used


def may_share(profile: VMProfile, store: Datastore) -> bool:
    """A datastore has the same name, and id, everywhere; a path that cannot be read may be any."""
    names = {store.name, store.id}
    for text in filter(None, (profile.datastorepath, profile.vmpath)):
        try:
            if parse(text).datastore in names:
                return True
        except ValueError:
            return True
    return False


def _by_vm(host: Host, url: str, name: str, *, skip_idle: bool) -> set[DatastorePath] | None:
    """The folders by what one host sees; a datastore is known by its URL, not by its name."""
    store = next((one for one in host.inventory.datastores.values() if one.url == url), None)
    if store is None:
        return set()
    # Those that have files there and, as their own files may be elsewhere, all of VCL's making.
    paths: dict[type, Sequence[str]] = {vim.VirtualMachine: ("name", DEVICES)}
    found = dict(host.client.read([store.ref], paths, hop("vms", vim.Datastore, "vm")))
    ours = [vm for vm in host.inventory.machines if naming.may_be_vm(vm.name, vm.path)]
    found.update(host.client.read([vm.ref for vm in ours if vm.ref not in found], paths))
    for vm in ours:
        # One whose files cannot be reached now has its disks again when they can.
        if vm.ref in found and (not vm.is_readable or DEVICES not in found[vm.ref]):
            host.tools.log.warning(
                "a VM does not say which disks it has",
                host=host.vmhost.hostname,
                vm=vm.name,
                state=vm.connection,
            )
            return None
    folders: set[DatastorePath] = set()
    sources: list[set[DatastorePath]] = []
    for facts in found.values():
        chain = {
            DatastorePath(name if path.datastore == store.name else path.datastore, path.path)
            for path in _disk_folders(facts.get(DEVICES, ()))
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
