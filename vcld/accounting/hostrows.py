"""Writing ``host_pool`` and ``host_shares``: what VCL says of a host, or what a probe measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.codes import HostState
from vcld.accounting.facts import HostFacts, template
from vcld.accounting.hosts import add_host
from vcld.accounting.managed import ManagedHost
from vcld.accounting.shares import live_usage_query, usage_values
from vcld.accounting.sqlfacts import epoch
from vcld.accounting.tables import Tables, fitting
from vcld.accounting.window import database_now
from vcld.provisioning.probing import HostUsage

#: Column of a share → field of a ``HostUsage``.
_MEASURED = {
    "max_cpu": "max_cpu_percent",
    "used_cpu": "used_cpu_percent",
    "max_mem": "max_memory_kib",
    "used_mem": "used_memory_kib",
    "max_disk": "max_disk_mib",
    "used_disk": "used_disk_mib",
}


def add_missing(connection: Connection, tables: Tables, hosts: Iterable[ManagedHost]) -> None:
    """Give every host its rows; what it is like, its first look tells."""
    pool = tables.host_pool.c
    known = set(connection.scalars(sa.select(pool.oid)))
    for host in hosts:
        if host.oid not in known:
            facts = HostFacts(oid=host.oid, hostname=host.hostname, provisioning=host.provisioning)
            add_host(connection, tables, facts)


def write_hosts(
    connection: Connection,
    tables: Tables,
    hosts: Sequence[ManagedHost],
    measured: Mapping[int, HostUsage | None] | None = None,
) -> None:
    """Bring the rows of hosts up to date; ``running_vms`` counts at ``last_mon_time``.

    ``measured`` is by host, None for one whose probe failed: it is in ERROR, and what was
    measured before stays. Without ``measured`` the figures are those of VCL.
    """
    ids = [host.oid for host in hosts]
    if not ids:
        return
    pool, share = tables.host_pool, tables.host_shares
    known = _rows(connection, pool, pool.c.oid, ids)
    shares = _rows(connection, share, share.c.hid, ids)
    usage = {row.hid: row for row in connection.execute(live_usage_query(tables, ids))}
    for host in hosts:
        values = usage_values(usage.get(host.oid))
        state, more = host.state, {}
        if measured is None:
            values |= _configured_figures(host, values)
            more = {"template": _template(host, values)}
        elif (found := measured.get(host.oid)) is None:
            state = HostState.ERROR
        else:
            values |= _measured_figures(found)
            more = {"template": _template(host, values)}
        _write(connection, share, share.c.hid == host.oid, shares.get(host.oid), values)
        facts = {"state": int(state), **more}
        _write(connection, pool, pool.c.oid == host.oid, known.get(host.oid), facts)
    now = database_now(connection)
    connection.execute(sa.update(pool).where(pool.c.oid.in_(ids)).values(last_mon_time=now))


def mark_stale(connection: Connection, tables: Tables, after_seconds: float) -> None:
    """Hosts that nobody has looked at for so long are in ERROR."""
    host = tables.host_pool.c
    connection.execute(
        sa.update(tables.host_pool)
        .where(
            host.state.in_([int(HostState.MONITORED), int(HostState.MONITORING)]),
            host.last_mon_time < epoch() - int(after_seconds),
        )
        .values(state=int(HostState.ERROR))
    )


def _configured_figures(host: ManagedHost, usage: Mapping[str, int]) -> dict[str, int]:
    """What VCL says of the computer, and what was handed out of it."""
    return {
        "max_mem": host.max_mem,
        "max_cpu": host.max_cpu,
        "used_mem": usage["mem_usage"],
        "used_cpu": usage["cpu_usage"],
        "used_disk": usage["disk_usage"],
        "free_mem": max(0, host.max_mem - usage["mem_usage"]),
        "free_cpu": max(0, host.max_cpu - usage["cpu_usage"]),
    }


def _measured_figures(found: HostUsage) -> dict[str, int]:
    figures = {
        column: fitting(value)
        for column, name in _MEASURED.items()
        if (value := getattr(found, name)) is not None
    }
    for what in ("cpu", "mem", "disk"):
        if f"max_{what}" in figures and f"used_{what}" in figures:
            free = figures[f"max_{what}"] - figures[f"used_{what}"]
            figures[f"free_{what}"] = max(0, free)
    return figures


def _template(host: ManagedHost, figures: Mapping[str, int]) -> str:
    names = {
        "TOTALCPU": "max_cpu", "USEDCPU": "used_cpu", "FREECPU": "free_cpu",
        "TOTALMEMORY": "max_mem", "USEDMEMORY": "used_mem", "FREEMEMORY": "free_mem",
    }  # fmt: skip
    return template(
        (
            ("HOSTNAME", host.hostname),
            ("TYPE", host.kind),
            ("PROVISIONING", host.provisioning),
            *((name, figures.get(column)) for name, column in names.items()),
        )
    )


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
