"""Usage records: one for each VM that ran in a window, as an APEL cloud message, version 0.4.

A record tells of the whole VM up to the window's end, so that a later record of the same
``VMUUID`` replaces an earlier one, as APEL does it. CPU time is what was handed out.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import __version__
from vcld.accounting.codes import ENDED
from vcld.accounting.facts import plain_name
from vcld.accounting.sqlfacts import earliest, element, latest
from vcld.accounting.tables import Tables
from vcld.accounting.window import Window
from vcld.errors import UsageError

HEADER = "APEL-cloud-message: v0.4"
SEPARATOR = "%%"
#: What readers take for no value.
NULLS = frozenset({"none", "null"})
CLOUD_TYPE = f"Apache VCL (vcld/{__version__})"


def usage_records(
    connection: Connection, tables: Tables, window: Window, *, site: str, service: str
) -> Iterator[dict[str, str | int]]:
    """The records of VMs that ran in the window, by VM; fields in the order of a message."""
    query = _query(tables, window).execution_options(stream_results=True, yield_per=1000)
    for row in connection.execute(query):
        yield _record(row, window, site, service)


def message(records: Iterator[dict[str, str | int]]) -> Iterator[str]:
    """The lines of a message; empty when there are no records."""
    for number, record in enumerate(records):
        yield f"{HEADER if number == 0 else SEPARATOR}\n"
        for name, value in record.items():
            yield f"{name}: {_one_line(str(value))}\n"
    # A last separator would begin a record that is none.


def json_lines(records: Iterator[dict[str, str | int]]) -> Iterator[str]:
    """The lines of one JSON list, a record each."""
    before = "[\n"
    for record in records:
        yield f"{before} {json.dumps(record, ensure_ascii=False)}"
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def check_names(site: str, service: str) -> None:
    """Refuse what a message cannot carry, or a reader would take for nothing.

    Raises:
        UsageError: the site has no name, or a name is not as it will be read.
    """
    for option, name in (("--site", site), ("--service", service)):
        if _one_line(name) != name or name.lower() in NULLS or (option == "--site" and not name):
            raise UsageError(
                f"{option}: {name!r} cannot stand in a usage record; name it otherwise"
            )


def _one_line(text: str) -> str:
    """The text without what has a meaning in a message: ends of lines, and the separator."""
    shown = "".join(c if c.isprintable() or c.isspace() else "" for c in text)
    while SEPARATOR in shown:
        shown = shown.replace(SEPARATOR, SEPARATOR[0])
    return " ".join(shown.split())


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
            element(vm.template, "ALLOCATED_CPU").label("cores"),
            element(vm.template, "ALLOCATED_MEMORY").label("ram_mib"),
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
    wall, cores = int(row.ran), max(1, int(row.cores or row.cpu // 100))
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
        "Memory": int(row.ram_mib or row.memory // 1024),
        "ImageId": f"{row.image}-{row.revision}" if row.image else None,
        "CloudType": CLOUD_TYPE,
    }
    return {name: value for name, value in record.items() if value is not None}
