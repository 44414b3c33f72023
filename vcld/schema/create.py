"""Making the schema: all of it in an empty database, or only our own tables beside VCL's."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.schema import CreateIndex, CreateTable

from vcld.errors import SchemaError
from vcld.schema import models, own, untyped
from vcld.schema.columns import Base

#: Importing these fills the metadata.
_FILLED = (models, own, untyped)


def vcl_tables() -> list[sa.Table]:
    """VCL's 85 tables."""
    return [table for table in Base.metadata.tables.values() if table not in own.OWN_TABLES]


def create_schema(engine: Engine) -> None:
    """Create VCL's and our tables in an empty database.

    Raises:
        SchemaError: the database holds tables already; nothing was changed.
    """
    present = sa.inspect(engine).get_table_names()
    if present:
        raise SchemaError(
            f"database {engine.url.database!r} is not empty ({len(present)} tables);"
            " a new schema is only made in an empty one"
        )
    with engine.begin() as connection:
        _create(connection, [*vcl_tables(), *own.OWN_TABLES])


def missing_own_tables(connection: Connection) -> list[sa.Table]:
    """Those of our own tables that the database lacks."""
    present = set(sa.inspect(connection).get_table_names())
    return [table for table in own.OWN_TABLES if table.name not in present]


def ensure_own_tables(engine: Engine) -> list[str]:
    """Create what is missing of our own tables; return their names."""
    with engine.begin() as connection:
        missing = missing_own_tables(connection)
        _create(connection, missing)
    return [table.name for table in missing]


def _create(connection: Connection, tables: list[sa.Table]) -> None:
    """Create tables whatever their order: some refer to one another."""
    is_mysql = connection.dialect.name != "sqlite"
    mode = None
    if is_mysql:
        # VCL's columns default to the zero date, which strict servers refuse to declare.
        mode = connection.exec_driver_sql("SELECT @@SESSION.sql_mode").scalar()
        connection.exec_driver_sql("SET SESSION sql_mode = '', SESSION foreign_key_checks = 0")
    try:
        for table in tables:
            connection.execute(CreateTable(table))
            for index in sorted(table.indexes, key=lambda index: index.name or ""):
                connection.execute(CreateIndex(_for_dialect(index, table, is_mysql=is_mysql)))
    finally:
        if is_mysql:
            connection.execute(
                sa.text("SET SESSION sql_mode = :mode, SESSION foreign_key_checks = 1"),
                {"mode": mode},
            )


def _for_dialect(index: sa.Index, table: sa.Table, *, is_mysql: bool) -> sa.Index:
    """SQLite wants names of indexes to be unique in the whole database."""
    if is_mysql:
        return index
    copy = sa.Index(f"{table.name}_{index.name}", *index.columns)
    table.indexes.discard(copy)
    return copy
