"""Is an existing database one that vcld can run on?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema import models as m
from vcld.schema import own
from vcld.schema.columns import Base
from vcld.schema.create import missing_own_tables
from vcld.schema.rights import find_missing_rights, may_create_tables
from vcld.schema.sqltime import seconds_between, site_now, utc_now

#: Rows that vcld finds by name, with what lacks them.
NEEDED_ROWS: tuple[tuple[Any, frozenset[str]], ...] = (
    (
        m.State.name,
        frozenset(
            {"available", "checkpoint", "complete", "deleted", "failed", "image", "imageinuse"}
            | {"imageprep", "inuse", "maintenance", "makeproduction", "new", "pending"}
            | {"reboothard", "rebootsoft", "reinstall", "reload", "reloading", "reserved"}
            | {"servermodified", "timeout", "tomaintenance", "tovmhostinuse", "vmhostinuse"}
        ),
    ),
    # Only those that other daemons or the web site look for; others are written as "info".
    (
        m.ComputerLoadState.loadstatename,
        frozenset(
            {"acknowledgetimeout", "begin", "exited", "failed", "info"}
            | {"initialconnecttimeout", "nodeready", "postreserve", "reserved"}
        ),
    ),
    (m.ResourceType.name, frozenset({"computer", "image", "managementnode"})),
    (m.User.unityid, frozenset({"vclreload"})),
    (m.Image.name, frozenset({"noimage"})),
)


def find_problems(connection: Connection) -> list[str]:
    """Everything that keeps vcld from running here, a sentence each; empty: nothing.

    Changes nothing. A site's database that lacks only our own tables is in order if its user
    may create them: ``vcld run`` does that.
    """
    problems = list(_missing_columns(connection))
    if problems:
        return problems
    for column, names in NEEDED_ROWS:
        problems += _missing_rows(connection, column, names)
    if connection.dialect.name == "sqlite":
        return problems
    problems += _without_transactions(connection)
    problems += _time_zone(connection)
    problems += find_missing_rights(connection)
    problems += _own_tables(connection)
    return problems


def find_missing_names(*tables: Collection[str]) -> list[str]:
    """Names that vcld needs of the tables ``state`` and ``computerloadstate``, by what they hold.

    Returns:
        A sentence for each that is not there.
    """
    found: list[str] = []
    for (column, needed), there in zip(NEEDED_ROWS, tables, strict=False):
        found += _tell_missing(column, needed - set(there))
    return found


def _missing_columns(connection: Connection) -> Iterable[str]:
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    if not present.intersection(table.name for table in _typed_tables()):
        yield (
            f"all tables of VCL are missing in database {connection.engine.url.database!r}, or this"
            " user may not see them: name another, or make them in an empty one by 'vcld db init'"
        )
        return
    for table in _typed_tables():
        if table.name not in present:
            yield (
                f"table {table.name} is missing, or this user may not see it: vcld needs the"
                " tables of VCL 2.5"
            )
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in columns:
                yield f"column {table.name}.{column.name} is missing: upgrade VCL to 2.5"


def _typed_tables() -> list[sa.Table]:
    """Those of VCL's tables that vcld reads or writes."""
    tables = {mapper.local_table for mapper in Base.registry.mappers}
    return sorted(
        (table for table in tables - set(own.OWN_TABLES) if isinstance(table, sa.Table)),
        key=lambda table: table.name,
    )


def _missing_rows(connection: Connection, column: Any, needed: frozenset[str]) -> Iterable[str]:
    there = set(connection.scalars(sa.select(column).where(column.in_(needed))))
    return _tell_missing(column, needed - there)


def _tell_missing(column: Any, names: Iterable[str]) -> list[str]:
    table = column.parent.local_table.name
    return [f"table {table} has no row {name!r}: add it" for name in sorted(names)]


def _without_transactions(connection: Connection) -> Iterable[str]:
    tables = sa.table(
        "tables",
        *(sa.column(name) for name in ("table_name", "table_schema", "engine")),
        schema="information_schema",
    )
    query = sa.select(tables.c.table_name, tables.c.engine).where(
        tables.c.table_schema == sa.func.database(),
        tables.c.table_name.in_([table.name for table in _typed_tables()]),
        tables.c.engine != "InnoDB",
    )
    return [
        f"table {name} is of engine {engine}, which has no transactions:"
        f" ALTER TABLE {name} ENGINE = InnoDB"
        for name, engine in connection.execute(query)
    ]


def _time_zone(connection: Connection) -> Iterable[str]:
    """VCL keeps local times, of both machines (VCL daemon specification §1.5)."""
    there = connection.scalar(sa.select(seconds_between(utc_now(), site_now())))
    here = dt.datetime.now().astimezone().utcoffset() or dt.timedelta()
    if there == here.total_seconds():
        return []
    zone = dt.timezone(dt.timedelta(seconds=int(there or 0)))
    return [
        f"the database's time zone is {zone}, this machine's is {dt.timezone(here)}:"
        " VCL stores local times, so set both to the same"
    ]


def _own_tables(connection: Connection) -> Iterable[str]:
    missing = missing_own_tables(connection)
    if not missing or may_create_tables(connection):
        return []
    names = ", ".join(table.name for table in missing)
    return [f"tables {names} are missing and this user may not make them: GRANT CREATE"]
