"""Measuring hosts by the probes of their provisioners, and keeping what they found.

Runs in a process of its own: a host that does not answer delays nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.codes import HostState, VmState
from vcld.accounting.hostrows import write_hosts
from vcld.accounting.managed import ManagedHost, ProbeFinder, load_hosts
from vcld.accounting.sqlfacts import epoch, latest
from vcld.accounting.tables import Tables, fitting
from vcld.config import Settings
from vcld.errors import VcldError, WorkerStopped
from vcld.provisioning.probing import (
    HostProbe,
    Measurement,
    ProbedHost,
    ProbedVm,
    ProbeTools,
    VmUsage,
)
from vcld.schema.engine import Database
from vcld.schema.models import Computer, Reservation
from vcld.snapshot import VMHost
from vcld.store import secrets
from vcld.store.snapshots import load_vmhosts
from vcld.waiting import Cancellation

#: Hosts that are asked at the same time.
AT_ONCE = 32
#: Column of vm_pool → field of a ``VmUsage``.
_MEASURED = {
    "cpu": "cpu_percent",
    "memory": "memory_kib",
    "net_tx": "sent_kib",
    "net_rx": "received_kib",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A host, and what measures it."""

    managed: ManagedHost
    probed: ProbedHost
    probe: type[HostProbe]
    #: It was in ERROR before, and that was told.
    was_failing: bool


def probe_hosts(
    database: Database,
    tables: Tables,
    settings: Settings,
    hostids: Collection[int],
    find_probe: ProbeFinder,
    log: Any,
) -> bool:
    """Measure the hosts and write what they say. False when one did not answer.

    Raises:
        StoreError: the database is away or refuses.
    """
    targets = database.run(lambda c: begin(c, tables, hostids, find_probe, settings.fqdn))
    found = measure(targets, settings, log)
    database.run(lambda c: finish(c, tables, targets, found))
    return len(found) == len(targets)


def begin(
    connection: Connection,
    tables: Tables,
    hostids: Collection[int],
    find_probe: ProbeFinder,
    fqdn: str,
) -> list[Target]:
    """Find out what to ask whom; the hosts are MONITORING until ``finish``."""
    pool = tables.host_pool.c
    managed = load_hosts(connection, hostids)
    vmhosts = load_vmhosts(connection, hostids)
    vms = _load_vms(connection, tables, hostids)
    query = sa.select(pool.oid, pool.state).where(pool.oid.in_(hostids))
    states = {row.oid: row.state for row in connection.execute(query)}
    targets = [
        Target(
            managed=host,
            probed=ProbedHost(
                computerid=host.oid,
                hostname=host.hostname,
                IPaddress=host.IPaddress,
                privateIPaddress=host.privateIPaddress,
                ram_mib=host.ram_mib,
                procnumber=host.procnumber,
                vmhost=vmhosts.get(host.oid),
                secret=_find_secret(connection, vmhosts.get(host.oid), fqdn),
                vms=tuple(vms.get(host.oid, ())),
            ),
            probe=probe,
            was_failing=states.get(host.oid) == HostState.ERROR,
        )
        for host in managed
        if (probe := host.probe(find_probe)) is not None
    ]
    # A host in ERROR stays so until it answers: readers are not told of every attempt.
    connection.execute(
        sa.update(tables.host_pool)
        .where(
            pool.oid.in_([target.managed.oid for target in targets]),
            pool.state.in_([int(HostState.INIT), int(HostState.MONITORED)]),
        )
        .values(state=int(HostState.MONITORING))
    )
    return targets


def _find_secret(connection: Connection, vmhost: VMHost | None, fqdn: str) -> str | None:
    if vmhost is None or vmhost.profile.secretid is None:
        return None
    return secrets.find_for(connection, vmhost.profile.secretid, fqdn)


def measure(targets: Sequence[Target], settings: Settings, log: Any) -> dict[int, Measurement]:
    """Ask all hosts at once; by host, without those that failed or took too long."""
    if not targets:
        return {}
    limit = settings.accounting_probe_timeout_seconds
    executor = futures.ThreadPoolExecutor(max_workers=min(len(targets), AT_ONCE))
    cancellations = [Cancellation() for _ in targets]
    jobs = {}
    for target, cancellation in zip(targets, cancellations, strict=True):
        tools = ProbeTools(
            settings=settings, cancellation=cancellation, limit_seconds=limit, log=log
        )
        jobs[executor.submit(_measure, target, tools)] = target
    done, late = futures.wait(jobs, timeout=limit)
    for cancellation in cancellations:
        cancellation.stop("it took too long")
    executor.shutdown(wait=False, cancel_futures=True)
    found = {}
    for job in [*done, *late]:
        target = jobs[job]
        result = job.result() if job in done else f"no answer within {limit:g} s"
        if isinstance(result, Measurement):
            found[target.managed.oid] = result
        elif not target.was_failing:
            log.warning(
                "host could not be measured", computer=target.managed.hostname, reason=result
            )
    return found


def _measure(target: Target, tools: ProbeTools) -> Measurement | str:
    """What was found, or why nothing was."""
    try:
        return target.probe(target.probed, tools).measure()
    except WorkerStopped as err:
        return err.reason
    except VcldError as err:
        return str(err)
    except Exception as err:
        tools.log.exception("probe failed by an unexpected error", computer=target.managed.hostname)
        return type(err).__name__


def finish(
    connection: Connection,
    tables: Tables,
    targets: Sequence[Target],
    found: Mapping[int, Measurement],
) -> None:
    """Write what was measured; a host that did not answer is in ERROR."""
    usages = {oid: measurement.host for oid, measurement in found.items()}
    hosts = [target.managed for target in targets]
    write_hosts(connection, tables, hosts, usages)
    for measurement in found.values():
        for oid, usage in measurement.vms.items():
            _write_vm(connection, tables, oid, usage)


def _write_vm(connection: Connection, tables: Tables, oid: int, usage: VmUsage) -> None:
    vm = tables.vm_pool.c
    values = {
        column: fitting(value)
        for column, name in _MEASURED.items()
        if (value := getattr(usage, name)) is not None
    }
    if values:
        connection.execute(
            sa.update(tables.vm_pool)
            .where(vm.oid == oid, vm.state == int(VmState.ACTIVE))
            .values(last_poll=latest(vm.last_poll, epoch()), **values)
        )


def _load_vms(
    connection: Connection, tables: Tables, hostids: Collection[int]
) -> dict[int, list[ProbedVm]]:
    """VMs that are on these hosts, by way of the reservations there are: those are few."""
    stay, vm = tables.history.c, tables.vm_pool.c
    rows = connection.execute(
        sa.select(
            stay.hid,
            vm.oid,
            vm.deploy_id,
            Computer.hostname,
            Computer.type,
            Computer.RAM,
            Computer.procnumber,
        )
        .select_from(Reservation)
        .join(tables.history, stay.vid == Reservation.id)
        .join(tables.vm_pool, vm.oid == Reservation.id)
        .join(Computer, Computer.id == Reservation.computerid)
        .where(stay.etime == 0, stay.hid.in_(hostids))
        .order_by(vm.oid)
    )
    found: dict[int, list[ProbedVm]] = {}
    for row in rows:
        short = row.hostname.partition(".")[0]
        found.setdefault(row.hid, []).append(
            ProbedVm(
                reservationid=row.oid,
                node_name=row.hostname if row.type == "lab" else short,
                deploy_id=row.deploy_id,
                ram_mib=row.RAM,
                procnumber=row.procnumber,
            )
        )
    return found
