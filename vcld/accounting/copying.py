"""A copy of the tables elsewhere: in an SQLite file, or on another server.

Another database cannot take part in the transactions of VCL's, so the tables themselves stay
beside it, and this brings a copy up to date. Running it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.install import install
from vcld.accounting.tables import Tables, tables_in
from vcld.schema.engine import Database

BATCH = 2000
Key = tuple[Any, ...]
Row = tuple[Any, ...]


@dataclass(slots=True)
class Copied:
    """Rows of all tables together."""

    added: int = 0
    changed: int = 0
    removed: int = 0


def copy(source: Connection, tables: Tables, target: Database) -> Copied:
    """Make the target's tables hold the same rows, in one transaction there.

    Raises:
        SchemaError: the target has tables of these names with other columns.
        StoreError: the target is away or refuses.
    """
    install(target, "")

    def work(connection: Connection) -> Copied:
        done = Copied()
        there = {table.name: table for table in tables_in("").all}
        for table in tables.all:
            _copy_table(source, table, connection, there[table.name], done)
        return done

    return target.run(work)


def _copy_table(
    source: Connection, here: sa.Table, target: Connection, there: sa.Table, done: Copied
) -> None:
    width = len(here.primary_key)
    ours, theirs = _rows(source, here), _rows(target, there)
    fresh: list[Row] = []
    for key, versions in groupby(_merge(ours, theirs, width), key=itemgetter(0)):
        found = {side: row for _, side, row in versions}
        if found.get("ours") == found.get("theirs"):
            continue
        if "theirs" in found:
            which = [c == value for c, value in zip(there.primary_key, key, strict=True)]
            target.execute(sa.delete(there).where(*which))
        if "ours" in found:
            fresh.append(found["ours"])
        done.added += "theirs" not in found
        done.removed += "ours" not in found
        done.changed += len(found) == 2
    names = [column.name for column in here.columns]
    for start in range(0, len(fresh), BATCH):
        batch = [dict(zip(names, row, strict=True)) for row in fresh[start : start + BATCH]]
        target.execute(sa.insert(there), batch)


def _merge(
    ours: Iterator[Row], theirs: Iterator[Row], width: int
) -> Iterator[tuple[Key, str, Row]]:
    """Both in the order of their keys, as one."""
    pending: list[tuple[Key, str, Row, Iterator[Row]]] = []
    for side, rows in (("ours", ours), ("theirs", theirs)):
        first = next(rows, None)
        if first is not None:
            pending.append((first[:width], side, first, rows))
    while pending:
        key, side, row, rows = smallest = min(pending, key=itemgetter(0, 1))
        yield key, side, row
        pending.remove(smallest)
        following = next(rows, None)
        if following is not None:
            pending.append((following[:width], side, following, rows))


def _rows(connection: Connection, table: sa.Table) -> Iterator[Row]:
    """All rows in the order of their key, a batch at a time. The key comes first in a row."""
    key = sa.tuple_(*table.primary_key)
    last: Key | None = None
    while True:
        query = sa.select(table).order_by(*table.primary_key).limit(BATCH)
        if last is not None:
            # The first condition is what the databases know how to find by the key.
            first = table.primary_key.columns[0]
            query = query.where(first >= last[0], key > sa.tuple_(*last))
        rows = connection.execute(query).all()
        for row in rows:
            yield tuple(row)
        if len(rows) < BATCH:
            return
        last = tuple(rows[-1][: len(table.primary_key)])
