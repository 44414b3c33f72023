"""Finding a VM host's profile in an inventory: datacenter, pool, folder, what its hosts see."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from vcld.errors import BackendUnavailableError, Blame, FatalProvisioningError
from vcld.provisioning.esxi.client import Client, Properties
from vcld.provisioning.esxi.inventory import (
    CONNECTED,
    DVS,
    HOPS,
    PATHS,
    Datastore,
    Inventory,
    Machine,
    Network,
)
from vcld.provisioning.esxi.paths import DatastorePath, parse
from vcld.snapshot import VMHost, VMProfile

MIB = 1 << 20
_VOLUME = re.compile(r"(?:ds://)?/vmfs/volumes/([^/]+)/*")
#: Folders that the interface of vSphere does not show.
HIDDEN = frozenset({"host", "vm", "Resources"})
Found = Mapping[Any, Properties]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a profile leads to."""

    pool: Any
    #: The cluster, or what a stand-alone host is below.
    compute: Any
    center: Any
    #: Hosts of the cluster, or the one host, and those of them that are connected.
    hosts: tuple[Any, ...]
    alive: tuple[Any, ...]


def find_place(found: Found, vmhost: VMHost) -> Place:
    """Find a profile's place among the properties of everything below the root.

    Raises:
        BackendUnavailableError: no host is connected.
        FatalProvisioningError: the profile's resourcepath leads nowhere.
    """
    pool = _pool(found, vmhost.profile.resourcepath, vmhost.hostname)
    compute = _ancestor(found, pool, vim.ComputeResource)
    hosts = tuple(host for host in found[compute].get("host", ()) if host in found)
    alive = tuple(host for host in hosts if found[host].get("runtime.connectionState") == CONNECTED)
    if not alive:
        raise BackendUnavailableError(f"{vmhost.hostname} is not connected to its hosts")
    center = _ancestor(found, pool, vim.Datacenter)
    return Place(pool=pool, compute=compute, center=center, hosts=hosts, alive=alive)


def read_inventory(client: Client, vmhost: VMHost) -> Inventory:
    """Read the inventory, in one call, and find the profile's place in it.

    Raises:
        BackendUnavailableError: the host is not connected.
        FatalProvisioningError: the profile's resourcepath or folderpath leads nowhere.
    """
    found = client.read([client.content.rootFolder], PATHS, *HOPS)
    place = find_place(found, vmhost)
    center, alive = place.center, place.alive
    stores = {ref for host in alive for ref in found[host].get("datastore", ())}
    nets = {ref for host in alive for ref in found[host].get("network", ())}
    folder = _folder(found, vmhost.profile.folderpath, center, vmhost.hostname)
    return Inventory(
        datacenter=center,
        datacenter_path="/".join(_names(found, center)),
        folder=folder,
        pool=place.pool,
        browser=found[place.compute].get("environmentBrowser"),
        host=choose_host(found, place, vmhost.profile),
        in_maintenance=not _open(found, place),
        nests=all(found[host].get("capability.nestedHVSupported") for host in alive),
        cores=max(found[host].get("summary.hardware.numCpuCores", 0) for host in alive),
        datastores={
            store.name: store
            for store in (_datastore(ref, found[ref]) for ref in stores & set(found))
        },
        networks={
            net.name: net for net in (_network(ref, found[ref]) for ref in nets & set(found))
        },
        machines=tuple(
            _machine(ref, facts)
            for ref, facts in found.items()
            if isinstance(ref, vim.VirtualMachine)
        ),
    )


def choose_host(found: Found, place: Place, profile: VMProfile) -> Any:
    """The host for a new VM; None where the cluster chooses: only one with DRS may be asked to.

    Where it cannot, one of those that see the profile's datastores and networks, the likelier the
    more memory it has free: loads that choose at the same moment must not all take the same.
    """
    if len(place.hosts) == 1:
        return place.alive[0]
    drs = getattr(found[place.compute].get("configurationEx"), "drsConfig", None)
    if drs is not None and drs.enabled:
        return None
    names = _wanted_stores(profile) | set(filter(None, profile.virtualswitches))
    able = _open(found, place) or place.alive
    seeing = [host for host in able if names <= _names_seen(found, host)] or able
    weights = [1 + max(0, _free_memory_mib(found[host])) for host in seeing]
    (chosen,) = random.choices(seeing, weights)
    return chosen


def _open(found: Found, place: Place) -> list[Any]:
    """Hosts that may be given work."""
    return [host for host in place.alive if not found[host].get("runtime.inMaintenanceMode")]


def _wanted_stores(profile: VMProfile) -> set[str]:
    try:
        return {parse(text).datastore for text in (profile.datastorepath, profile.vmpath) if text}
    except ValueError:
        return set()  # every load says so


def _names_seen(found: Found, host: Any) -> set[str]:
    """Names of a host's networks and datastores, and the ids of these."""
    refs = [*found[host].get("datastore", ()), *found[host].get("network", ())]
    seen = [found[ref] for ref in refs if ref in found]
    ids = {str(one.get("summary.url", "")).rstrip("/").rpartition("/")[2] for one in seen}
    return ids | {one["name"] for one in seen}


def _free_memory_mib(host: Properties) -> int:
    total: int = host.get("summary.hardware.memorySize", 0)
    used: int = host.get("summary.quickStats.overallMemoryUsage", 0)
    return total // MIB - used


def _datastore(ref: Any, facts: Properties) -> Datastore:
    return Datastore(
        ref=ref,
        name=facts["name"],
        url=common_url(facts.get("summary.url", "")),
        capacity_bytes=facts.get("summary.capacity", 0),
        free_bytes=facts.get("summary.freeSpace", 0),
        accessible=facts.get("summary.accessible", True),
        shared=is_shared(facts),
        has_folders=facts.get("capability.topLevelDirectoryCreateSupported") is not False,
        browser=facts["browser"],
    )


def common_url(url: str) -> str:
    """A datastore's URL as all servers write it.

    Some leave the scheme out: ``/vmfs/volumes/ID`` and ``ds:///vmfs/volumes/ID/`` are one.
    """
    found = _VOLUME.fullmatch(url)
    return f"ds:///vmfs/volumes/{found[1]}/" if found else url


def is_shared(facts: Properties) -> bool:
    """False when no other host can see the datastore; no server can always tell.

    A vCenter knows of its own hosts only: one that is not below it may see a network's datastore.
    """
    if facts.get("summary.multipleHostAccess"):
        return True
    info = facts.get("info")
    if isinstance(info, vim.host.LocalDatastoreInfo):
        return False
    volume = getattr(info, "vmfs", None)
    return getattr(volume, "local", None) is not True


def _network(ref: Any, facts: Properties) -> Network:
    if not isinstance(ref, DVS):
        return Network(ref=ref, name=facts["name"])
    switch = facts.get("config.distributedVirtualSwitch")
    return Network(ref=ref, name=facts["name"], portgroup_key=facts.get("key"), switch=switch)


def _machine(ref: Any, facts: Properties) -> Machine:
    text = facts.get("config.files.vmPathName") or facts.get("summary.config.vmPathName") or ""
    path: DatastorePath | None
    try:
        path = parse(text)
    except ValueError:
        path = None
    return Machine(
        ref=ref,
        name=facts.get("name", ""),
        path=path,
        power=facts.get("runtime.powerState", "unknown"),
        connection=facts.get("runtime.connectionState", CONNECTED),
        networks=tuple(facts.get("network", ())),
    )


def _names(found: Found, ref: Any) -> Iterable[str]:
    """Names from the root down to an object, without the root's and the hidden ones."""
    names: list[str] = []
    while ref in found and found[ref].get("parent") is not None:
        name = found[ref]["name"]
        if name not in HIDDEN:
            names.insert(0, name)
        ref = found[ref]["parent"]
    return names


def _path(found: Found, ref: Any) -> str:
    return "/".join(_names(found, ref)).lower()


def _wanted(text: str | None) -> str:
    parts = (text or "").strip().split("/")
    return "/".join(part for part in parts if part and part not in HIDDEN).lower()


def _pool(found: Found, resourcepath: str | None, hostname: str) -> Any:
    """The resource pool that the path names; without one the first compute resource's own.

    A path may leave out how it begins: ``cluster/pool`` is found below any datacenter.
    """
    pools = {ref: _path(found, ref) for ref in found if isinstance(ref, vim.ResourcePool)}
    wanted = _wanted(resourcepath)
    if not wanted:
        pools = {ref: "" for ref in pools if found[ref].get("name") == "Resources"}
    exact = [ref for ref, path in pools.items() if path == wanted]
    if exact:
        return exact[0]
    near = [ref for ref, path in pools.items() if f"/{path}".endswith(f"/{wanted}")]
    if len(near) == 1:
        return near[0]
    there = ", ".join(sorted(filter(None, pools.values()))) or "none"
    raise FatalProvisioningError(
        f"resourcepath {resourcepath!r} of the profile of {hostname} names"
        f" {'several resource pools' if near else 'no resource pool'}; there are: {there}",
        blame=Blame.VMHOST,
    )


def _folder(found: Found, folderpath: str | None, center: Any, hostname: str) -> Any:
    root = found[center]["vmFolder"]
    wanted = _wanted(folderpath)
    if not wanted:
        return root
    folders = {ref: _path(found, ref) for ref in found if isinstance(ref, vim.Folder)}
    for ref, path in folders.items():
        inside = _ancestor(found, ref, vim.Datacenter, missing_is_fine=True) == center
        if inside and (path == wanted or path == f"{_path(found, center)}/{wanted}"):
            return ref
    raise FatalProvisioningError(
        f"folderpath {folderpath!r} of the profile of {hostname} names no folder of VMs",
        blame=Blame.VMHOST,
    )


def _ancestor(found: Found, ref: Any, kind: type, *, missing_is_fine: bool = False) -> Any:
    while ref is not None and not isinstance(ref, kind):
        ref = found.get(ref, {}).get("parent")
    if ref is None and not missing_is_fine:
        raise FatalProvisioningError(
            "the profile's user does not see the datacenter or cluster of its resource pool",
            blame=Blame.VMHOST,
        )
    return ref


def switch_uuid(client: Client, network: Network) -> str:
    """The uuid of a distributed port group's switch, which a network card must name."""
    return str(client.read_one(network.switch, "uuid").get("uuid", ""))
