"""Sums over a window, by user, host or image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import unescape

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.sqlfacts import element
from vcld.accounting.tables import Tables
from vcld.accounting.window import Window

Query = sa.Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one user, host or image comes to."""

    id: int
    name: str
    #: VMs that ran in the window.
    vms: int
    transfer_seconds: int
    running_seconds: int


def report(connection: Connection, tables: Tables, window: Window, by: str) -> list[Line]:
    """The lines of a report ``by`` user, host or image; the longest running first."""
    key, joined = GROUPS[by](tables)
    runs = window.runs(tables)
    ran = sa.case((runs, tables.history.c.vid), else_=None)
    query = (
        joined.add_columns(
            sa.func.count(sa.distinct(ran)),
            sa.func.sum(window.transfer_seconds(tables)),
            sa.func.sum(window.running_seconds(tables)).label("running"),
        )
        .where(sa.or_(runs, window.transfers(tables)))
        .group_by(key)
        .order_by(sa.desc("running"), key)
    )
    return [
        Line(
            id=int(row[0] or 0),
            name=plain_name(row[1]) or f"{by} {row[0]}",
            vms=row[2],
            transfer_seconds=int(row[3]),
            running_seconds=int(row[4]),
        )
        for row in connection.execute(query)
    ]


def _by_user(t: Tables) -> tuple[Any, Query]:
    # A name that is gone is no reason to lose the time.
    name = sa.func.max(t.user_pool.c.user_name)
    joined = (
        sa.select(t.vm_pool.c.uid, name)
        .select_from(t.history)
        .join(t.vm_pool, t.vm_pool.c.oid == t.history.c.vid)
        .join(t.user_pool, t.user_pool.c.oid == t.vm_pool.c.uid, isouter=True)
    )
    return t.vm_pool.c.uid, joined


def _by_host(t: Tables) -> tuple[Any, Query]:
    named = sa.func.max(sa.func.coalesce(t.host_pool.c.host_name, t.history.c.host_name))
    joined = (
        sa.select(t.history.c.hid, named)
        .select_from(t.history)
        .join(t.host_pool, t.host_pool.c.oid == t.history.c.hid, isouter=True)
    )
    return t.history.c.hid, joined


def _by_image(t: Tables) -> tuple[Any, Query]:
    key = element(t.vm_pool.c.template, "IMAGE_ID")
    name = sa.func.max(element(t.vm_pool.c.template, "IMAGE"))
    joined = (
        sa.select(key.label("image"), name)
        .select_from(t.history)
        .join(t.vm_pool, t.vm_pool.c.oid == t.history.c.vid)
    )
    return sa.literal_column("image"), joined


GROUPS: Mapping[str, Callable[[Tables], tuple[Any, Query]]] = MappingProxyType(
    {"user": _by_user, "host": _by_host, "image": _by_image}
)


def plain_name(text: str | None) -> str:
    """A name that was made safe for XML, as people read it."""
    return unescape(text or "", {"&quot;": '"', "&apos;": "'"})
