"""The probe of ESXi hosts and vCenters: what hosts, datastores and VMs say of themselves.

By the hosts' own quick statistics, which cost them nothing. What a VM has sent and received
since it was made is not among them, and stays unknown. A VM host that is a vCenter stands for
the hosts of its cluster that are connected, taken together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyVmomi import vim, vmodl

from vcld.errors import ReservationDataError
from vcld.provisioning.esxi import faults
from vcld.provisioning.esxi.client import Client, Properties
from vcld.provisioning.esxi.endpoint import make_endpoint
from vcld.provisioning.esxi.inventory import HOPS, PATHS
from vcld.provisioning.esxi.paths import parse
from vcld.provisioning.esxi.placing import find_place
from vcld.provisioning.esxi.session import Session
from vcld.provisioning.probing import HostProbe, HostUsage, Measurement, ProbedVm, VmUsage
from vcld.snapshot import VMProfile

KIB, MIB = 1 << 10, 1 << 20
CORE_PERCENT = 100
HOST_PATHS = (
    "name",
    "datastore",
    "vm",
    "runtime.connectionState",
    "summary.hardware.numCpuCores",
    "summary.hardware.cpuMhz",
    "summary.hardware.memorySize",
    "summary.quickStats.overallCpuUsage",
    "summary.quickStats.overallMemoryUsage",
)
VM_PATHS = (
    "name",
    "runtime.powerState",
    "runtime.host",
    "summary.quickStats.overallCpuUsage",
    "summary.quickStats.hostMemoryUsage",
)
STORE_PATHS = (
    "name",
    "summary.url",
    "summary.capacity",
    "summary.freeSpace",
    "summary.accessible",
)
MEASURED: Mapping[type, tuple[str, ...]] = {
    **{kind: tuple(PATHS[kind]) for kind in (vim.Folder, vim.Datacenter)},
    **{kind: tuple(PATHS[kind]) for kind in (vim.ComputeResource, vim.ResourcePool)},
    vim.HostSystem: HOST_PATHS,
    vim.Datastore: STORE_PATHS,
    vim.VirtualMachine: VM_PATHS,
}
Found = Mapping[Any, Properties]


class EsxiProbe(HostProbe):
    """Measures one VM host: one login, one look."""

    def measure(self) -> Measurement:
        vmhost = self.host.vmhost
        if vmhost is None:
            raise ReservationDataError(
                f"{self.host.hostname} has VMs of ESXi but is no VM host: table vmhost lacks it"
            )
        tools = self.tools
        endpoint = make_endpoint(vmhost, tools.settings, lambda _id, _fqdn: self.host.secret)
        session = Session(endpoint, tools.cancellation, tools.log, patience_seconds=0)
        session.waits.answer_seconds = tools.limit_seconds
        try:
            client = Client(session)
            found = client.read([client.content.rootFolder], MEASURED, *HOPS)
        except vmodl.MethodFault as fault:
            raise faults.translate(fault, f"{vmhost.hostname} cannot be measured") from fault
        finally:
            session.close()
        alive = find_place(found, vmhost).alive
        hosts = [found[ref] for ref in alive]
        return Measurement(
            host=_host(hosts, _stores(found, hosts, vmhost.profile)),
            vms=_vms(found, alive, self.host.vms),
        )


def _host(hosts: list[Properties], stores: list[Properties]) -> HostUsage:
    cores = _sum(hosts, "summary.hardware.numCpuCores")
    total = _sum(stores, "summary.capacity")
    free = _sum(stores, "summary.freeSpace")
    memory = _sum(hosts, "summary.hardware.memorySize")
    used = _sum(hosts, "summary.quickStats.overallMemoryUsage")
    busy = [_percent(host.get("summary.quickStats.overallCpuUsage"), host) for host in hosts]
    return HostUsage(
        max_cpu_percent=None if cores is None else cores * CORE_PERCENT,
        used_cpu_percent=None if None in busy else sum(filter(None, busy)),
        max_memory_kib=None if memory is None else memory // KIB,
        used_memory_kib=None if used is None else used * KIB,
        max_disk_mib=None if total is None else total // MIB,
        used_disk_mib=None if total is None or free is None else (total - free) // MIB,
    )


def _sum(many: list[Properties], name: str) -> int | None:
    """The sum over all of them; None when one of them does not tell, or there is none."""
    total = 0
    for one in many:
        if one.get(name) is None:
            return None
        total += int(one[name])
    return total if many else None


def _percent(mhz: int | None, host: Properties) -> int | None:
    """MHz of a host's processors as parts of its cores: 100 is one core, fully busy."""
    core_mhz = host.get("summary.hardware.cpuMhz")
    if mhz is None or not core_mhz:
        return None
    percent: int = round(mhz * CORE_PERCENT / core_mhz)
    return percent


def _stores(found: Found, hosts: list[Properties], profile: VMProfile) -> list[Properties]:
    """The datastores that the profile puts masters and VMs on, each once."""
    names = set()
    for text in filter(None, (profile.datastorepath, profile.vmpath)):
        try:
            names.add(parse(text).datastore)
        except ValueError:
            continue  # every load says so
    refs = {ref for host in hosts for ref in host.get("datastore", ()) if ref in found}
    chosen = [found[ref] for ref in refs if found[ref].get("summary.accessible", True)]
    return list(
        {
            store.get("summary.url", ""): store
            for store in chosen
            if store["name"] in names or _id(store) in names
        }.values()
    )


def _id(store: Properties) -> str:
    """The last part of a datastore's URL, which paths may name it by."""
    return str(store.get("summary.url", "")).rstrip("/").rpartition("/")[2]


def _vms(found: Found, alive: Iterable[Any], wanted: Iterable[ProbedVm]) -> dict[int, VmUsage]:
    """What the host tells of the VMs that it is asked about; those it has not are left out."""
    here = {ref for host in alive for ref in found[host].get("vm", ())}
    by_name = {found[ref].get("name", ""): found[ref] for ref in here if ref in found}
    usages = {}
    for vm in wanted:
        facts = by_name.get(vm.deploy_id) or _made_for(by_name, vm.node_name)
        if facts is not None:
            usages[vm.reservationid] = _usage(facts, found)
    return usages


def _made_for(by_name: Mapping[str, Properties], node_name: str) -> Properties | None:
    """The VM of a computer, by its name; None where several could be meant."""
    near = [facts for name, facts in by_name.items() if name.startswith(f"{node_name}_")]
    return near[0] if len(near) == 1 else None


def _usage(facts: Properties, found: Found) -> VmUsage:
    if facts.get("runtime.powerState") == "poweredOff":
        return VmUsage(cpu_percent=0, memory_kib=0)
    memory = facts.get("summary.quickStats.hostMemoryUsage")
    return VmUsage(
        cpu_percent=_percent(
            facts.get("summary.quickStats.overallCpuUsage"),
            found.get(facts.get("runtime.host"), {}),
        ),
        memory_kib=None if memory is None else memory * KIB,
    )
