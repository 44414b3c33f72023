"""What the heartbeat keeps: hosts and their shares, VMs of dead nodes, VMs that are gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.codes import ENDED, HostState, LcmState, Reason, VmState
from vcld.accounting.facts import HostFacts, template
from vcld.accounting.hosts import add_host
from vcld.accounting.ledger import Ledger
from vcld.accounting.rules import vanished
from vcld.accounting.shares import live_usage_query, usage_values
from vcld.accounting.sqlfacts import epoch
from vcld.accounting.tables import Tables, fitting
from vcld.accounting.window import database_now
from vcld.schema.models import (
    Computer,
    ManagementNode,
    Provisioning,
    Reservation,
    State,
    VMHost,
)
from vcld.schema.sqltime import seconds_between, site_now
from vcld.store import nodes

#: Hosts that were not looked at for so long are marked, whoever had to.
STALE_SECONDS = 300
#: Computer states that say something of the host; any other leaves it to the probe.
HOST_STATES: Mapping[str, HostState] = {
    "maintenance": HostState.DISABLED,
    "deleted": HostState.DISABLED,
    "failed": HostState.ERROR,
}


@dataclass(frozen=True, slots=True)
class Kept:
    """What a look found, for the next one."""

    #: VMs that live.
    vms: frozenset[int]
    #: Hosts of the node; those of its last reservation are looked at once more.
    hosts: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Host:
    oid: int
    hostname: str
    state: HostState
    provisioning: str
    kind: str
    max_mem: int
    max_cpu: int

    @property
    def template(self) -> str:
        return template(
            (
                ("HOSTNAME", self.hostname),
                ("TYPE", self.kind),
                ("PROVISIONING", self.provisioning),
                ("TOTALCPU", self.max_cpu),
                ("TOTALMEMORY", self.max_mem),
            )
        )


def keep(
    connection: Connection,
    tables: Tables,
    managementnodeid: int,
    *,
    silent_after_seconds: float,
    last: Kept | None,
    probed: Collection[int] = (),
) -> Kept:
    """Bring hosts and VMs up to date, as far as the database alone tells.

    ``last`` is what the last call returned; the first looks at all VMs. Hosts that are
    ``probed`` have their figures and times from elsewhere.
    """
    alive = _keep_vms(connection, tables, managementnodeid, silent_after_seconds)
    gone = _find_gone(connection, tables, last, alive)
    if gone:
        ledger = Ledger(tables, ())
        ledger.end(connection, sorted(gone), VmState.DONE, Reason.CANCEL)
    hosts = _load_hosts(connection, tables, managementnodeid, last.hosts if last else ())
    _keep_hosts(connection, tables, hosts, probed)
    _mark_stale(connection, tables)
    return Kept(frozenset(alive), frozenset(host.oid for host in hosts))


def _keep_vms(
    connection: Connection, tables: Tables, managementnodeid: int, silent_after_seconds: float
) -> set[int]:
    """A VM that runs under a dead node is UNKNOWN until somebody looks after it again."""
    vm = tables.vm_pool.c
    silent = seconds_between(ManagementNode.lastcheckin, site_now())
    rows = connection.execute(
        sa.select(vm.oid, vm.lcm_state, Reservation.managementnodeid, silent.label("silent"))
        .join(Reservation, Reservation.id == vm.oid)
        .join(ManagementNode, ManagementNode.id == Reservation.managementnodeid, isouter=True)
        .where(vm.state.not_in(map(int, ENDED)))
    ).all()
    lost = [
        row.oid
        for row in rows
        if row.lcm_state == LcmState.RUNNING and (row.silent or 0) > silent_after_seconds
    ]
    back = [
        row.oid
        for row in rows
        if row.lcm_state == LcmState.UNKNOWN
        and (row.managementnodeid == managementnodeid or row.silent <= silent_after_seconds)
    ]
    for oids, lcm in ((lost, LcmState.UNKNOWN), (back, LcmState.RUNNING)):
        if oids:
            Ledger(tables, ()).move(connection, oids, lcm)
    return {row.oid for row in rows}


def _find_gone(
    connection: Connection, tables: Tables, last: Kept | None, alive: set[int]
) -> set[int]:
    if last is None:
        return set(connection.scalars(vanished(tables).with_only_columns(tables.vm_pool.c.oid)))
    missing = last.vms - alive
    if not missing:
        return set()
    vm = tables.vm_pool.c
    query = sa.select(vm.oid).where(vm.oid.in_(missing), vm.state.not_in(map(int, ENDED)))
    return set(connection.scalars(query))


def _load_hosts(
    connection: Connection, tables: Tables, managementnodeid: int, before: Collection[int]
) -> list[_Host]:
    """VM hosts and blades of the node; a VM without a VM host once something was put on it."""
    reserved = sa.select(Reservation.computerid).where(
        Reservation.managementnodeid == managementnodeid
    )
    known = sa.select(tables.host_pool.c.oid)
    ours = sa.or_(Computer.id.in_(nodes.manageable(managementnodeid)), Computer.id.in_(reserved))
    is_host = sa.or_(
        VMHost.id.is_not(None), Computer.type != "virtualmachine", Computer.id.in_(known)
    )
    ids = set(
        connection.scalars(
            sa.select(sa.func.coalesce(VMHost.computerid, Computer.id))
            .select_from(Computer)
            .join(VMHost, VMHost.id == Computer.vmhostid, isouter=True)
            .where(ours, is_host, Computer.deleted == 0)
        )
    )
    rows = connection.execute(
        sa.select(
            Computer.id,
            Computer.hostname,
            Computer.type,
            Computer.RAM,
            Computer.procnumber,
            State.name.label("state"),
            Provisioning.name.label("provisioning"),
        )
        .join(State, State.id == Computer.stateid, isouter=True)
        .join(Provisioning, Provisioning.id == Computer.provisioningid, isouter=True)
        .where(Computer.id.in_(ids.union(before)))
        .order_by(Computer.id)
    )
    return [
        _Host(
            oid=row.id,
            hostname=row.hostname,
            state=HOST_STATES.get(row.state, HostState.MONITORED),
            provisioning=row.provisioning or "",
            kind=row.type,
            max_mem=fitting(row.RAM * 1024),
            max_cpu=fitting(row.procnumber * 100),
        )
        for row in rows
    ]


def _keep_hosts(
    connection: Connection, tables: Tables, hosts: list[_Host], probed: Collection[int]
) -> None:
    ids = [host.oid for host in hosts]
    if not ids:
        return
    pool, share = tables.host_pool, tables.host_shares
    known = _rows(connection, pool, pool.c.oid, ids)
    for host in hosts:
        if host.oid not in known:
            facts = HostFacts(oid=host.oid, hostname=host.hostname, provisioning=host.provisioning)
            add_host(connection, tables, facts)
    shares = _rows(connection, share, share.c.hid, ids)
    usage = {row.hid: row for row in connection.execute(live_usage_query(tables, ids))}
    now = database_now(connection)
    for host in hosts:
        by_probe = host.oid in probed
        values: dict[str, Any] = usage_values(usage.get(host.oid))
        if not by_probe:
            values |= _configured_figures(host, values)
        _write(connection, share, share.c.hid == host.oid, shares.get(host.oid), values)
        disabled = host.state is not HostState.MONITORED
        if disabled or not by_probe:
            facts_ = {"state": int(host.state), "template": host.template}
            _write(connection, pool, pool.c.oid == host.oid, known.get(host.oid), facts_)
    looked_at = [oid for oid in ids if oid not in probed]
    connection.execute(sa.update(pool).where(pool.c.oid.in_(looked_at)).values(last_mon_time=now))


def _configured_figures(host: _Host, usage: Mapping[str, int]) -> dict[str, int]:
    """Without a probe, what VCL says of the computer, and what was handed out of it."""
    return {
        "max_mem": host.max_mem,
        "max_cpu": host.max_cpu,
        "used_mem": usage["mem_usage"],
        "used_cpu": usage["cpu_usage"],
        "used_disk": usage["disk_usage"],
        "free_mem": max(0, host.max_mem - usage["mem_usage"]),
        "free_cpu": max(0, host.max_cpu - usage["cpu_usage"]),
    }


def _rows(
    connection: Connection, table: sa.Table, key: sa.Column[int], ids: Collection[int]
) -> dict[int, Any]:
    rows = connection.execute(sa.select(table).where(key.in_(ids)))
    return {row._mapping[key.name]: row._mapping for row in rows}


def _write(
    connection: Connection,
    table: sa.Table,
    which: sa.ColumnElement[bool],
    before: Any,
    values: Mapping[str, Any],
) -> None:
    """Only what has changed: most of the time that is nothing."""
    if before is None or any(before[name] != value for name, value in values.items()):
        connection.execute(sa.update(table).where(which).values(**values))


def _mark_stale(connection: Connection, tables: Tables) -> None:
    host = tables.host_pool.c
    connection.execute(
        sa.update(tables.host_pool)
        .where(
            host.state.in_([int(HostState.MONITORED), int(HostState.MONITORING)]),
            host.last_mon_time < epoch() - STALE_SECONDS,
        )
        .values(state=int(HostState.ERROR))
    )
