"""The hosts that a management node keeps account of, as VCL describes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld.accounting.codes import HostState
from vcld.accounting.tables import Tables, fitting
from vcld.provisioning.probing import HostProbe
from vcld.schema.models import Computer, Module, Provisioning, Reservation, State, VMHost
from vcld.store import nodes

#: Computer states that say something of the host; any other leaves it to the probe.
HOST_STATES: Mapping[str, HostState] = {
    "maintenance": HostState.DISABLED,
    "deleted": HostState.DISABLED,
    "failed": HostState.ERROR,
}
#: Finds the probe of a provisioner by its ``module.name``.
ProbeFinder = Callable[[str], type[HostProbe] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedHost:
    """A VM host, a blade, or a VM without a VM host, which is its own."""

    oid: int
    hostname: str
    IPaddress: str
    privateIPaddress: str | None
    state: HostState
    provisioning: str
    kind: str
    ram_mib: int
    procnumber: int
    #: ``module.name`` of what makes the VMs on it, then of what makes the computer itself.
    modules: tuple[str, ...]

    @property
    def max_mem(self) -> int:
        """KiB."""
        return fitting(self.ram_mib * 1024)

    @property
    def max_cpu(self) -> int:
        """100 a core."""
        return fitting(self.procnumber * 100)

    def probe(self, find_probe: ProbeFinder) -> type[HostProbe] | None:
        """What measures it; None where nothing can, or where VCL says that it is out of use."""
        if self.state is not HostState.MONITORED:
            return None
        probes = (find_probe(name) for name in self.modules)
        return next((probe for probe in probes if probe is not None), None)


def find_host_ids(connection: Connection, tables: Tables, managementnodeid: int) -> set[int]:
    """VM hosts and blades of the node; a VM without a VM host once something was put on it."""
    reserved = sa.select(Reservation.computerid).where(
        Reservation.managementnodeid == managementnodeid
    )
    known = sa.select(tables.host_pool.c.oid)
    ours = sa.or_(Computer.id.in_(nodes.manageable(managementnodeid)), Computer.id.in_(reserved))
    is_host = sa.or_(
        VMHost.id.is_not(None), Computer.type != "virtualmachine", Computer.id.in_(known)
    )
    return set(
        connection.scalars(
            sa.select(sa.func.coalesce(VMHost.computerid, Computer.id))
            .select_from(Computer)
            .join(VMHost, VMHost.id == Computer.vmhostid, isouter=True)
            .where(ours, is_host, Computer.deleted == 0)
        )
    )


def load_hosts(connection: Connection, ids: Collection[int]) -> list[ManagedHost]:
    """Those of the computers that have a row, by id."""
    modules = _load_modules(connection, ids)
    rows = connection.execute(
        sa.select(
            Computer.id,
            Computer.hostname,
            Computer.IPaddress,
            Computer.privateIPaddress,
            Computer.type,
            Computer.RAM,
            Computer.procnumber,
            State.name.label("state"),
            Provisioning.name.label("provisioning"),
            Module.name.label("module"),
        )
        .join(State, State.id == Computer.stateid, isouter=True)
        .join(Provisioning, Provisioning.id == Computer.provisioningid, isouter=True)
        .join(Module, Module.id == Provisioning.moduleid, isouter=True)
        .where(Computer.id.in_(ids))
        .order_by(Computer.id)
    )
    return [
        ManagedHost(
            oid=row.id,
            hostname=row.hostname,
            IPaddress=row.IPaddress,
            privateIPaddress=row.privateIPaddress,
            state=HOST_STATES.get(row.state, HostState.MONITORED),
            provisioning=row.provisioning or "",
            kind=row.type,
            ram_mib=row.RAM,
            procnumber=row.procnumber,
            modules=(*modules.get(row.id, ()), *([row.module] if row.module else ())),
        )
        for row in rows
    ]


def _load_modules(connection: Connection, ids: Collection[int]) -> dict[int, list[str]]:
    """By VM host: the modules that make the VMs on it. Its own may be none, or xCAT."""
    vm = aliased(Computer)
    rows = connection.execute(
        sa.select(VMHost.computerid, Module.name)
        .join(vm, vm.vmhostid == VMHost.id)
        .join(Provisioning, Provisioning.id == vm.provisioningid)
        .join(Module, Module.id == Provisioning.moduleid)
        .where(VMHost.computerid.in_(ids), vm.deleted == 0)
        .distinct()
        .order_by(VMHost.computerid, Module.name)
    )
    found: dict[int, list[str]] = {}
    for hid, name in rows:
        found.setdefault(hid, []).append(name)
    return found
