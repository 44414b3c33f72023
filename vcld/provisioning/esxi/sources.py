"""VMs that vCenter makes linked clones from: one for each master, never started.

vCenter clones VMs, not disks. So each master has, once a clone of it is wanted, a VM with a
delta disk on it and a snapshot of that; clones are children of the snapshot. A source has a
folder of its own, ``vcld-source_IMAGE.TOKEN``, so that one that is broken is replaced by
another and its clones keep their parents.
"""

from __future__ import annotations

import secrets
from typing import Any

from pyVmomi import vim, vmodl

from vcld.errors import BackendUnavailableError, Blame, ProvisioningError
from vcld.provisioning.esxi import creating, faults, naming, spec, usage
from vcld.provisioning.esxi.host import Host, lease_name
from vcld.provisioning.esxi.images import StoredImage
from vcld.provisioning.esxi.inventory import Machine
from vcld.provisioning.esxi.paths import DatastorePath

SNAPSHOT = "vcld"


def ensure(host: Host, master: StoredImage) -> tuple[Any, Any]:
    """The source of a master and its snapshot, after making what there is not.

    Raises:
        ProvisioningError: it cannot be made.
    """
    found = _complete(host, master)
    if found is not None:
        return found
    ready: list[tuple[Any, Any]] = []

    def is_there() -> bool:
        host.refresh()
        again = _complete(host, master)
        ready.extend([again] if again else [])
        return again is not None

    name = lease_name("source", f"{host.datastore_of(host.vm_base).url}/{master.name}")
    what = f"the VM that {master.name} is cloned from"
    with host.leases.hold(name, what, unless=is_there) as ours:
        if ours and not is_there():
            host.step("load:source")
            _remove_orphans(host, master.name)
            ready.append(_make(host, master))
    return ready[-1]


def remove(host: Host, imagename: str) -> None:
    """Remove the sources of a master that has no clones any more."""
    for vm in _registered(host, imagename):
        host.machines.unregister(vm)
        host.tools.log.info("source of clones removed", image=imagename, vm=vm.name)
    _remove_folders(host, imagename)


def _registered(host: Host, imagename: str) -> list[Machine]:
    """Valid sources by name; the VM itself must say that it is one, and of what."""
    named = [vm for vm in host.inventory.machines if vm.name == naming.source_name(imagename)]
    refs = [vm.ref for vm in named if vm.is_valid]
    found = host.client.read(refs, {vim.VirtualMachine: ("config.extraConfig",)})
    return [vm for vm in named if _keys(found.get(vm.ref, {})).get(spec.SOURCE_KEY) == imagename]


def _keys(facts: Any) -> dict[str, str]:
    return {one.key: str(one.value) for one in facts.get("config.extraConfig", ())}


def _complete(host: Host, master: StoredImage) -> tuple[Any, Any] | None:
    """A source whose disk is on this master, with its snapshot; made now if only that lacks."""
    for vm in _registered(host, master.name):
        disks = host.machines.disks(vm)
        if len(disks) != 1 or str(master.disk) not in disks[0].chain:
            continue
        facts = host.client.read_one(vm.ref, "snapshot")
        if facts.get("snapshot") is not None:
            return vm.ref, facts["snapshot"].currentSnapshot
    return None


def _remove_orphans(host: Host, imagename: str) -> None:
    """Remove what workers that died have left: sources without a snapshot, folders without a VM."""
    for vm in _registered(host, imagename):
        if host.client.read_one(vm.ref, "snapshot").get("snapshot") is None:
            host.machines.unregister(vm)
    _remove_folders(host, imagename)


def _remove_folders(host: Host, imagename: str) -> None:
    """Remove folders of sources that are not registered, and in which no clone has its parents."""
    host.refresh()
    used = usage.used_folders(host)
    registered = {vm.path.parent for vm in host.inventory.machines if vm.path is not None}
    for name, facts in (host.files.list(host.vm_base) or {}).items():
        folder = host.vm_base / name
        ours = facts.is_folder and name.startswith(f"{naming.SOURCE}{imagename}.")
        if ours and used is not None and folder not in used | registered:
            host.files.delete(folder)


def _make(host: Host, master: StoredImage) -> tuple[Any, Any]:
    folder = host.vm_base / f"{naming.SOURCE}{master.name}.{secrets.token_hex(4)}"
    host.files.make_folder(folder)
    capacity = spec.check_disk(master, host.reservation.image)
    disk = spec.linked_disk(folder, master, capacity)
    config = spec.source_config(host.reservation, host.inventory, folder, master, disk)
    what = f"the source of clones of {master.name} cannot be made"
    ref = creating.create(host, config, what)
    host.step("load:source-snapshot")
    limit = host.tools.settings.vsphere_task_timeout_seconds
    try:
        snapshot = host.client.run_task(
            lambda: ref.CreateSnapshot_Task(SNAPSHOT, "parent of clones", False, False),
            what,
            limit_seconds=limit,
        )
    except faults.GONE as fault:
        # The master was removed between look and link: look again.
        text = f"{what}: {faults.describe(fault)}"
        raise BackendUnavailableError(text, blame=Blame.NOBODY) from fault
    except vmodl.MethodFault as fault:
        raise faults.translate(fault, what) from fault
    return ref, snapshot


def clone(host: Host, master: StoredImage, config: Any) -> Machine:
    """Make a VM with a linked clone of the master's disk, not started.

    vCenter puts it into a folder of its own name below the root of the datastore, wherever
    ``vmpath`` leads: so it is made under the folder's name, and then called what it is.

    Raises:
        ProvisioningError: it cannot be made.
    """
    source, snapshot = ensure(host, master)
    place = host.inventory
    name, config.name = config.name, None
    wanted = vim.vm.CloneSpec(
        location=vim.vm.RelocateSpec(
            pool=place.pool,
            host=place.host,
            datastore=host.datastore_of(host.vm_base).ref,
            diskMoveType="createNewChildDiskBacking",
        ),
        snapshot=snapshot,
        config=config,
        powerOn=False,
        template=False,
    )
    what = f"the clone for {host.reservation.computer.shortname} cannot be made"
    limit = host.tools.settings.vsphere_task_timeout_seconds
    folder = naming.vm_folder_name(host.reservation)
    host.step("load:clone")
    try:
        ref = host.client.run_task(
            lambda: source.CloneVM_Task(place.folder, folder, wanted), what, limit_seconds=limit
        )
        host.step("load:clone-rename")
        host.client.run_task(lambda: ref.Rename_Task(name), what, limit_seconds=limit)
    except faults.GONE as fault:
        text = f"{what}: {faults.describe(fault)}"
        raise BackendUnavailableError(text, blame=Blame.NOBODY) from fault
    except vmodl.MethodFault as fault:
        raise faults.translate(fault, what) from fault
    host.refresh()
    made = next((vm for vm in host.inventory.machines if vm.ref == ref), None)
    if made is None or made.path is None:
        raise ProvisioningError(f"{what}: it is not there when it is made", blame=Blame.VMHOST)
    return made


def root_of(path: DatastorePath) -> DatastorePath:
    """Where vCenter puts the folders of clones."""
    return DatastorePath(path.datastore)
