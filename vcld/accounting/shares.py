"""``host_shares``: what the open stays on a host take of it."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.tables import Tables, fitting
from vcld.schema.models import Computer, Image, Reservation


def write_share(connection: Connection, tables: Tables, hid: int) -> None:
    """Count a host's open stays anew, as they were when it was last looked at."""
    stay, host = tables.history.c, tables.host_pool.c
    at = connection.scalar(sa.select(host.last_mon_time).where(host.oid == hid)) or 0
    was_open = stay.etime == 0
    if at:
        was_open = sa.and_(stay.stime <= at, sa.or_(was_open, stay.etime > at))
    query = usage_query(tables, was_open).where(stay.hid == hid)
    row = connection.execute(query).one_or_none()
    values = usage_values(row)
    connection.execute(
        sa.update(tables.host_shares).where(tables.host_shares.c.hid == hid).values(values)
    )


def usage_query(
    tables: Tables, which: sa.ColumnElement[bool] | None = None
) -> sa.Select[int, int, int, int, int]:
    """By host: the number of open stays, or others, and what they take (KiB, 100 a core, MB)."""
    stay, vm = tables.history.c, tables.vm_pool.c
    # vm_pool may hold what was measured; what the VM was given is the computer's size.
    handed_out = sa.func.coalesce
    return (
        sa.select(
            stay.hid,
            sa.func.count().label("running_vms"),
            sa.func.sum(handed_out(Computer.RAM * 1024, vm.memory)).label("mem_usage"),
            sa.func.sum(handed_out(Computer.procnumber * 100, vm.cpu)).label("cpu_usage"),
            sa.func.sum(sa.func.coalesce(Image.size, 0)).label("disk_usage"),
        )
        .select_from(tables.history)
        .join(tables.vm_pool, vm.oid == stay.vid)
        .join(Reservation, Reservation.id == stay.vid, isouter=True)
        .join(Image, Image.id == Reservation.imageid, isouter=True)
        .join(Computer, Computer.id == Reservation.computerid, isouter=True)
        .where(stay.etime == 0 if which is None else which)
        .group_by(stay.hid)
    )


def live_usage_query(tables: Tables, hids: Collection[int]) -> sa.Select[int, int, int, int, int]:
    """The same for some hosts, by way of the reservations there are: those are few."""
    lives = sa.select(Reservation.id)
    return usage_query(tables).where(
        tables.history.c.vid.in_(lives), tables.history.c.hid.in_(hids)
    )


def usage_values(row: sa.Row[int, int, int, int, int] | None) -> dict[str, int]:
    """Columns of ``host_shares`` for a row of ``usage_query``; zeros without one."""
    names = ("running_vms", "mem_usage", "cpu_usage", "disk_usage")
    return {name: 0 if row is None else fitting(int(row._mapping[name])) for name in names}
