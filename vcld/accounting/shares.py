"""``host_shares``: what the open stays on a host take of it."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.tables import Tables, fitting
from vcld.schema.models import Image, Reservation


def write_share(connection: Connection, tables: Tables, hid: int) -> None:
    """Count a host's open stays anew."""
    row = connection.execute(usage_query(tables).where(tables.history.c.hid == hid)).one_or_none()
    values = usage_values(row)
    connection.execute(
        sa.update(tables.host_shares).where(tables.host_shares.c.hid == hid).values(values)
    )


def usage_query(tables: Tables) -> sa.Select[int, int, int, int, int]:
    """By host: the number of open stays, and what they take (KiB, 100 a core, MB)."""
    stay, vm = tables.history.c, tables.vm_pool.c
    return (
        sa.select(
            stay.hid,
            sa.func.count().label("running_vms"),
            sa.func.sum(vm.memory).label("mem_usage"),
            sa.func.sum(vm.cpu).label("cpu_usage"),
            sa.func.sum(sa.func.coalesce(Image.size, 0)).label("disk_usage"),
        )
        .select_from(tables.history)
        .join(tables.vm_pool, vm.oid == stay.vid)
        .join(Reservation, Reservation.id == stay.vid, isouter=True)
        .join(Image, Image.id == Reservation.imageid, isouter=True)
        .where(stay.etime == 0)
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
