"""Usage records: one for each VM that ran in a window, as an APEL cloud message, version 0.4.

A record tells of the whole VM up to the window's end, so that a later record of the same
``VMUUID`` replaces an earlier one, as APEL does it. CPU time is what was handed out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import __version__
from vcld.accounting.codes import ENDED
from vcld.accounting.report import plain_name
from vcld.accounting.sqlfacts import earliest, element, latest
from vcld.accounting.tables import Tables
from vcld.accounting.window import Window

HEADER = "APEL-cloud-message: v0.4"
SEPARATOR = "%%"
CLOUD_TYPE = f"Apache VCL (vcld/{__version__})"


def usage_records(
    connection: Connection, tables: Tables, window: Window, *, site: str, service: str
) -> Iterator[dict[str, str | int]]:
    """The records of VMs that ran in the window, by VM; fields in the order of a message."""
    for row in connection.execute(_query(tables, window)):
        yield _record(row, window, site, service)


def message(records: Iterator[dict[str, str | int]]) -> Iterator[str]:
    """The lines of a message; empty when there are no records."""
    for number, record in enumerate(records):
        yield HEADER if number == 0 else SEPARATOR
        for name, value in record.items():
            yield f"{name}: {' '.join(str(value).split())}"
    # A last separator would begin a record that is none.


def _query(tables: Tables, window: Window) -> sa.Select[*tuple[Any, ...]]:
    stay, vm = tables.history.c, tables.vm_pool.c
    until = sa.case((stay.retime > 0, stay.retime), (stay.etime > 0, stay.etime), else_=window.now)
    ran = latest(0, earliest(until, window.end) - stay.rstime)
    stays = (
        sa.select(
            stay.vid,
            sa.func.min(stay.rstime).label("began"),
            sa.func.max(until).label("ended"),
            sa.func.sum(ran).label("ran"),
            sa.func.max(sa.case((stay.etime == 0, 1), else_=0)).label("is_open"),
        )
        .where(stay.rstime > 0, stay.rstime <= window.end)
        .group_by(stay.vid)
        .having(sa.func.max(sa.case((window.runs(tables), 1), else_=0)) == 1)
        .subquery("stays")
    )
    return (
        sa.select(
            vm.oid,
            vm.name,
            vm.state,
            vm.stime,
            vm.cpu,
            vm.memory,
            tables.user_pool.c.user_name,
            vm.uid,
            element(vm.template, "IMAGE_ID").label("image"),
            element(vm.template, "REVISION").label("revision"),
            *stays.c,
        )
        .join(stays, stays.c.vid == vm.oid)
        .join(tables.user_pool, tables.user_pool.c.oid == vm.uid, isouter=True)
        .order_by(vm.oid)
    )


def _record(row: Any, window: Window, site: str, service: str) -> dict[str, str | int]:
    user = row.user_name or f"user {row.uid}"
    group = user.partition("@")[2]
    completed = row.state in ENDED and row.ended <= window.end
    wall, cores = int(row.ran), max(1, row.cpu // 100)
    reached = min(row.ended, window.end)
    made = dt.datetime.fromtimestamp(row.stime, dt.UTC)
    record: dict[str, str | int | None] = {
        "VMUUID": f"{made:%Y-%m-%d %H:%M:%S}+00:00 {site} vm-{row.oid}",
        "SiteName": site,
        "CloudComputeService": service or None,
        "MachineName": plain_name(row.name),
        "LocalUserId": user,
        "LocalGroupId": group or None,
        "Status": "completed" if completed else "started" if row.is_open else "suspended",
        "StartTime": row.began,
        "EndTime": row.ended if completed else None,
        "SuspendDuration": max(0, reached - row.began - wall),
        "WallDuration": wall,
        "CpuDuration": wall * cores,
        "CpuCount": cores,
        "Memory": row.memory // 1024,
        "ImageId": f"{row.image}-{row.revision}" if row.image else None,
        "CloudType": CLOUD_TYPE,
    }
    return {name: value for name, value in record.items() if value is not None}
