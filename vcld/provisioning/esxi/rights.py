"""May the profile's user do what a load needs? Each right where the server asks for it.

The privileges are those that the API's reference names for the calls that a load makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pyVmomi import vmodl

from vcld.provisioning.esxi.client import Client
from vcld.provisioning.esxi.inventory import Inventory
from vcld.provisioning.esxi.paths import parse
from vcld.snapshot import VMHost

OF_VMS = (
    "VirtualMachine.Inventory.Create",
    "VirtualMachine.Inventory.Unregister",
    "VirtualMachine.Config.AddNewDisk",
    "VirtualMachine.Config.AddExistingDisk",
    "VirtualMachine.Config.AdvancedConfig",
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Interact.PowerOff",
)
#: Besides, where clones are wanted.
OF_CLONES = (
    "VirtualMachine.Inventory.CreateFromExisting",
    "VirtualMachine.Provisioning.Clone",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.Config.Rename",
)
OF_POOL = ("Resource.AssignVMToPool",)
OF_DATASTORE = ("Datastore.AllocateSpace", "Datastore.Browse", "Datastore.FileManagement")
OF_NETWORK = ("Network.Assign",)
Wanted = tuple[str, Any, Sequence[str]]


def check(
    client: Client, inventory: Inventory, vmhost: VMHost, *, clones: bool
) -> tuple[str, bool]:
    """What to tell of the rights, and whether they are enough."""
    manager, sessions = client.content.authorizationManager, client.content.sessionManager
    lacking = []
    try:
        current: Any = client.read_one(sessions, "currentSession").get("currentSession")
        for where, ref, names in _wanted(inventory, vmhost, clones=clones):
            has = manager.HasPrivilegeOnEntity(ref, current.key, list(names))
            gone = [name for name, given in zip(names, has, strict=False) if not given]
            lacking += [f"{', '.join(gone)} on {where}"] if gone else []
    except (vmodl.MethodFault, AttributeError):
        return "the server does not tell them; the first load will", True
    return (f"lacks {'; '.join(lacking)}", False) if lacking else ("all that a load needs", True)


def _wanted(inventory: Inventory, vmhost: VMHost, *, clones: bool) -> Iterator[Wanted]:
    profile = vmhost.profile
    yield "the folder of the VMs", inventory.folder, OF_VMS + (OF_CLONES if clones else ())
    yield "the resource pool", inventory.pool, OF_POOL
    names = set()
    for text in filter(None, (profile.datastorepath, profile.vmpath, profile.repositorypath)):
        try:
            names.add(parse(text).datastore)
        except ValueError:
            continue  # the check of datastores says so
    for store in inventory.datastores.values():
        if store.name in names:
            yield f"datastore {store.name}", store.ref, OF_DATASTORE
    for name in profile.virtualswitches:
        if name and name in inventory.networks:
            yield f"network {name}", inventory.networks[name].ref, OF_NETWORK
