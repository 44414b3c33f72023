"""Sums over a window, by user, host or image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.facts import plain_name
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
    group = GROUPS[by]
    stays = _by_vm(tables, window, *group.columns(tables)).subquery("stays")
    key = group.key(tables, stays).label("id")
    query = (
        sa.select(
            key,
            sa.func.sum(stays.c.ran),
            sa.func.sum(stays.c.transfer_seconds),
            sa.func.sum(stays.c.running_seconds).label("running"),
            sa.func.max(stays.c.vid),
        )
        .select_from(stays)
        .join(tables.vm_pool, tables.vm_pool.c.oid == stays.c.vid)
        .group_by(sa.literal_column("id"))
        .order_by(sa.desc("running"), sa.literal_column("id"))
    )
    rows = connection.execute(query).all()
    # Names apart: a sum over a million rows is quick only while it carries no texts.
    keys, newest = [row[0] for row in rows], [row[4] for row in rows]
    names = {row[0]: row[1] for row in connection.execute(group.names(tables, keys, newest))}
    return [
        Line(
            id=int(row[0] or 0),
            name=plain_name(names.get(row[0])) or f"{by} {row[0]}",
            vms=int(row[1]),
            transfer_seconds=int(row[2]),
            running_seconds=int(row[3]),
        )
        for row in rows
    ]


def _by_vm(tables: Tables, window: Window, *columns: sa.ColumnElement[int]) -> Query:
    """Sums by VM first: in the order of the key, and before any text is looked at."""
    stay = tables.history.c
    runs = window.runs(tables)
    return (
        sa.select(
            stay.vid,
            *columns,
            sa.func.max(sa.case((runs, 1), else_=0)).label("ran"),
            sa.func.sum(window.transfer_seconds(tables)).label("transfer_seconds"),
            sa.func.sum(window.running_seconds(tables)).label("running_seconds"),
        )
        .where(sa.or_(runs, window.transfers(tables)))
        .group_by(stay.vid, *columns)
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Whose sums a report tells."""

    #: What the sums by VM are grouped by, a number.
    key: Callable[[Tables, sa.Subquery], sa.ColumnElement[int]]
    #: (key, name), for keys and the newest VM of each; a name that is gone is left out.
    names: Callable[[Tables, Sequence[int], Sequence[int]], Query]
    #: Of a stay, beside its VM.
    columns: Callable[[Tables], tuple[sa.ColumnElement[int], ...]] = lambda _tables: ()


def _user_names(t: Tables, keys: Sequence[int], _vms: Sequence[int]) -> Query:
    user = t.user_pool.c
    return sa.select(user.oid, user.user_name).where(user.oid.in_(keys))


def _host_names(t: Tables, keys: Sequence[int], _vms: Sequence[int]) -> Query:
    host = t.host_pool.c
    return sa.select(host.oid, host.host_name).where(host.oid.in_(keys))


def _image_names(t: Tables, _keys: Sequence[int], vms: Sequence[int]) -> Query:
    vm = t.vm_pool.c
    return sa.select(_image(t), element(vm.template, "IMAGE")).where(vm.oid.in_(vms))


def _image(t: Tables) -> sa.ColumnElement[int]:
    return sa.cast(element(t.vm_pool.c.template, "IMAGE_ID"), sa.Integer)


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "user": Group(lambda t, _: t.vm_pool.c.uid, _user_names),
        "host": Group(lambda _, stays: stays.c.hid, _host_names, lambda t: (t.history.c.hid,)),
        "image": Group(lambda t, _: _image(t), _image_names),
    }
)
