"""What an ESXi host or a vCenter has: read once, in one call, and then looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from vcld.errors import Blame, FatalProvisioningError, ProvisioningError
from vcld.provisioning.esxi.client import hop
from vcld.provisioning.esxi.paths import DatastorePath, parse

CONNECTED = "connected"
#: Of VMs whose host is away, a vCenter still says what they are.
READABLE = frozenset({CONNECTED, "disconnected"})
DVS = vim.dvs.DistributedVirtualPortgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Datastore:
    ref: Any
    name: str
    #: The same for every host that sees it: what leases are named by.
    url: str
    capacity_bytes: int
    free_bytes: int
    accessible: bool
    #: True when other hosts see it too, or may.
    shared: bool
    #: False where folders are objects that cannot be made or renamed by the path, as on vSAN.
    has_folders: bool = True
    browser: Any

    @property
    def id(self) -> str:
        """The last part of the URL, which paths may name the datastore by."""
        return self.url.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    ref: Any
    name: str
    #: Of a distributed port group: its key and its switch.
    portgroup_key: str | None = None
    switch: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A registered VM, as the list of VMs shows it."""

    ref: Any
    name: str
    #: Path of its vmx file; None when its registration is invalid.
    path: DatastorePath | None
    power: str
    #: connected, disconnected, orphaned, inaccessible or invalid.
    connection: str
    #: The networks that its cards are connected to.
    networks: tuple[Any, ...] = ()

    @property
    def is_valid(self) -> bool:
        return self.connection == CONNECTED

    @property
    def is_readable(self) -> bool:
        """True when the server knows its configuration."""
        return self.connection in READABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One datacenter, and in it what a VM host of VCL stands for."""

    datacenter: Any
    #: From the root, as uploads and downloads name it.
    datacenter_path: str
    folder: Any
    pool: Any
    #: The host that a VM must be placed on; None where a cluster decides.
    host: Any
    cores: int
    #: Tells what VMs can be created here.
    browser: Any
    #: True when every host is: nothing can be started, but all else can be done.
    in_maintenance: bool = False
    #: True when every host can run hypervisors in VMs.
    nests: bool = False
    datastores: dict[str, Datastore]
    networks: dict[str, Network]
    machines: tuple[Machine, ...]

    def datastore(self, name: str) -> Datastore:
        """A datastore by name, or by the id in its URL.

        Raises:
            ProvisioningError: the host has none of that name, or cannot reach it.
        """
        found = self.datastores.get(name)
        if found is None:
            found = next((one for one in self.datastores.values() if one.id == name), None)
        if found is None:
            there = ", ".join(sorted(self.datastores)) or "none"
            raise FatalProvisioningError(
                f"the VM host has no datastore {name!r}, which its profile names; it has: {there}",
                blame=Blame.VMHOST,
            )
        if not found.accessible:
            raise ProvisioningError(f"datastore {name} is not accessible now", blame=Blame.VMHOST)
        if not found.has_folders:
            raise FatalProvisioningError(
                f"datastore {name} is of a kind (vSAN or vVols) that images cannot be kept on:"
                " choose one of VMFS or NFS in the profile",
                blame=Blame.VMHOST,
            )
        return found

    def has_datastore(self, text: str) -> bool:
        """True when a path of the profile begins with a datastore, and not with a local folder.

        A folder of the management node is written from its root.
        """
        text = text.strip()
        if not text.startswith("/"):
            return bool(text)
        try:
            return parse(text).datastore in self.datastores or text.startswith("/vmfs/volumes/")
        except ValueError:
            return False

    def network(self, name: str) -> Network:
        """A network or port group by name.

        Raises:
            FatalProvisioningError: the host has none of that name.
        """
        if name not in self.networks:
            there = ", ".join(sorted(self.networks)) or "none"
            raise FatalProvisioningError(
                f"the VM host has no network {name!r}, which its profile names; it has: {there}",
                blame=Blame.VMHOST,
            )
        return self.networks[name]


#: From the root to everything of interest.
HOPS = (
    hop("folder", vim.Folder, "childEntity", "folder", "vms", "hosts", "stores", "nets", "members",
        "parts", "pool", "roots"),
    hop("vms", vim.Datacenter, "vmFolder", "folder"),
    hop("hosts", vim.Datacenter, "hostFolder", "folder"),
    hop("stores", vim.Datacenter, "datastoreFolder", "folder"),
    hop("nets", vim.Datacenter, "networkFolder", "folder"),
    hop("members", vim.ComputeResource, "host"),
    hop("roots", vim.ComputeResource, "resourcePool", "pool"),
    hop("pool", vim.ResourcePool, "resourcePool", "pool"),
    hop("parts", vim.VirtualApp, "vm"),
)  # fmt: skip
PATHS: dict[type, Sequence[str]] = {
    vim.Folder: ("name", "parent"),
    vim.Datacenter: ("name", "parent", "vmFolder"),
    vim.ComputeResource: ("name", "parent", "resourcePool", "host", "environmentBrowser"),
    vim.ClusterComputeResource: (
        "name",
        "parent",
        "resourcePool",
        "host",
        "environmentBrowser",
        "configurationEx",
    ),
    vim.ResourcePool: ("name", "parent"),
    vim.HostSystem: (
        "name",
        "datastore",
        "network",
        "runtime.connectionState",
        "runtime.inMaintenanceMode",
        "capability.nestedHVSupported",
        "summary.hardware.numCpuCores",
        "summary.hardware.memorySize",
        "summary.quickStats.overallMemoryUsage",
    ),
    vim.Datastore: (
        "name",
        "browser",
        "summary.url",
        "summary.capacity",
        "summary.freeSpace",
        "summary.accessible",
        "summary.multipleHostAccess",
        "capability.topLevelDirectoryCreateSupported",
        "info",
    ),
    vim.Network: ("name",),
    DVS: ("name", "key", "config.distributedVirtualSwitch"),
    vim.VirtualMachine: (
        "name",
        "config.files.vmPathName",
        "summary.config.vmPathName",
        "runtime.powerState",
        "runtime.connectionState",
        "network",
    ),
}
