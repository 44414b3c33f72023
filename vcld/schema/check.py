"""Is an existing database one that vcld can run on?"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema import models, own
from vcld.schema.columns import Base
from vcld.schema.create import missing_own_tables
from vcld.schema.models import ComputerLoadState, State

#: States that the daemon writes or reads by name.
NEEDED_STATES = frozenset(
    {"deleted", "available", "reserved", "failed", "reloading", "inuse", "maintenance"}
    | {"timeout", "complete", "new", "pending", "image", "makeproduction", "tomaintenance"}
    | {"reload", "vmhostinuse", "tovmhostinuse"}
)
NEEDED_LOAD_STATES = frozenset({"info", "begin", "exited", "failed", "nodeready", "reserved"})


def find_problems(connection: Connection) -> list[str]:
    """Everything that keeps vcld from running here, a sentence each; empty: nothing."""
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    problems = []
    for table in _typed_tables():
        if table.name not in present:
            problems.append(f"table {table.name} is missing: is this a VCL database?")
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        problems += [
            f"column {table.name}.{column.name} is missing: upgrade the VCL schema to 2.5"
            for column in table.columns
            if column.name not in columns
        ]
    if problems:
        return problems
    problems += _missing_rows(connection, "state", State.name, NEEDED_STATES)
    problems += _missing_rows(
        connection, "computerloadstate", ComputerLoadState.loadstatename, NEEDED_LOAD_STATES
    )
    problems += [
        f"table {table.name} is missing: 'vcld run' makes it, its user needs the right to CREATE"
        for table in missing_own_tables(connection)
    ]
    return problems


def _typed_tables() -> list[sa.Table]:
    assert models
    text = files("vcld.schema").joinpath("untyped.json").read_text(encoding="utf-8")
    others = set(json.loads(text)) | {table.name for table in own.OWN_TABLES}
    return [table for name, table in sorted(Base.metadata.tables.items()) if name not in others]


def _missing_rows(
    connection: Connection, table: str, column: Any, needed: frozenset[str]
) -> list[str]:
    there = set(connection.scalars(sa.select(column)))
    return [f"table {table} has no row {name!r}: add it" for name in sorted(needed - there)]
