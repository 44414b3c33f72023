"""What the heartbeat keeps: hosts and their shares, VMs of dead nodes, VMs that are gone."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.codes import ENDED, FIRST_REBUILT, LcmState, Reason, VmState
from vcld.accounting.hostrows import add_missing, mark_stale, write_hosts
from vcld.accounting.ledger import Ledger
from vcld.accounting.managed import ProbeFinder, find_host_ids, load_hosts
from vcld.accounting.rules import vanished
from vcld.accounting.tables import Tables
from vcld.schema.models import ManagementNode, Reservation
from vcld.schema.sqltime import site_age

#: Hosts that were not looked at for so long are marked, whoever had to.
STALE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a look found, for the next one."""

    #: VMs that live.
    vms: frozenset[int]
    #: Hosts of the node; those of its last reservation are looked at once more.
    hosts: frozenset[int]
    #: Those that have a probe, which writes their figures.
    probed: frozenset[int] = frozenset()
    #: The highest id of all VMs there were.
    newest: int = 0


def keep(
    connection: Connection,
    tables: Tables,
    managementnodeid: int,
    *,
    silent_after_seconds: float,
    last: Kept | None,
    find_probe: ProbeFinder = lambda _module: None,
    stale_after_seconds: float = STALE_SECONDS,
) -> Kept:
    """Bring hosts and VMs up to date, as far as the database alone tells.

    ``last`` is what the last call returned; the first looks at all VMs. The figures of hosts
    that have a probe are left to it.
    """
    vm = tables.vm_pool.c.oid
    newest = connection.scalar(sa.select(sa.func.max(vm)).where(vm < FIRST_REBUILT)) or 0
    alive = _keep_vms(connection, tables, managementnodeid, silent_after_seconds)
    gone = _find_gone(connection, tables, last, alive)
    if gone:
        ledger = Ledger(tables, ())
        ledger.end(connection, sorted(gone), VmState.DONE, Reason.CANCEL)
    ids = find_host_ids(connection, tables, managementnodeid)
    hosts = load_hosts(connection, ids.union(last.hosts if last else ()))
    add_missing(connection, tables, hosts)
    probed = {host.oid for host in hosts if host.probe(find_probe)}
    write_hosts(connection, tables, [host for host in hosts if host.oid not in probed])
    mark_stale(connection, tables, stale_after_seconds)
    return Kept(vms=frozenset(alive), hosts=frozenset(ids), probed=frozenset(probed), newest=newest)


def _keep_vms(
    connection: Connection, tables: Tables, managementnodeid: int, silent_after_seconds: float
) -> set[int]:
    """A VM that runs under a dead node is UNKNOWN until somebody looks after it again."""
    vm = tables.vm_pool.c
    silent = site_age(ManagementNode.lastcheckin)
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
        and (row.managementnodeid == managementnodeid or (row.silent or 0) <= silent_after_seconds)
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
    vm = tables.vm_pool.c
    # One may have come and gone since; the ids of reservations only grow.
    unseen = vanished(tables).with_only_columns(vm.oid).where(vm.oid > last.newest)
    gone = set(connection.scalars(unseen))
    missing = last.vms - alive
    if missing:
        query = sa.select(vm.oid).where(vm.oid.in_(missing), vm.state.not_in(map(int, ENDED)))
        gone |= set(connection.scalars(query))
    return gone
