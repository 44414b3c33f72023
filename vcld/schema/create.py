"""Making the schema: all of it in an empty database, or only our own tables beside VCL's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import quoted_name

from vcld.errors import SchemaError
from vcld.schema import models, own, untyped
from vcld.schema.columns import Base
from vcld.schema.engine import Database, error_code

#: MySQL's number for an index that is there already.
DUPLICATE_INDEX = 1061
#: Importing these fills the metadata.
_FILLED = (models, own, untyped)


def vcl_tables() -> list[sa.Table]:
    """VCL's 85 tables."""
    return [table for table in Base.metadata.tables.values() if table not in own.OWN_TABLES]


def create_schema(engine: Engine) -> None:
    """Create VCL's and our tables in an empty database.

    Raises:
        SchemaError: the database holds tables already; nothing was changed.
        StoreError: the database is away or refuses.
    """

    def work(connection: Connection) -> None:
        present = sa.inspect(connection).get_table_names()
        if present:
            raise SchemaError(
                f"database {engine.url.database!r} is not empty ({len(present)} tables);"
                " a new schema is only made in an empty one"
            )
        _create(connection, [*vcl_tables(), *own.OWN_TABLES])

    Database(engine).run(work)


def missing_own_tables(connection: Connection) -> list[sa.Table]:
    """Those of our own tables that the database lacks, or that lack an index."""
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    return [
        table for table in own.OWN_TABLES if table.name not in present or _lacking(inspector, table)
    ]


def _lacking(inspector: sa.Inspector, table: sa.Table) -> list[sa.Index]:
    """Indexes of the table that the database does not have."""
    present = [index["column_names"] for index in inspector.get_indexes(table.name)]
    return [index for index in _by_name(table) if list(index.columns.keys()) not in present]


def ensure_own_tables(engine: Engine) -> list[str]:
    """Create what is missing of our own tables; return their names.

    Any number of daemons may do so at the same time.

    Raises:
        StoreError: the database is away, or its user may not create tables.
    """

    def work(connection: Connection) -> list[str]:
        missing = missing_own_tables(connection)
        _create(connection, missing)
        for table in missing:
            for index in _lacking(sa.inspect(connection), table):
                _create_index(connection, index)
        return [table.name for table in missing]

    return Database(engine).run(work)


def _create(connection: Connection, tables: Iterable[sa.Table]) -> None:
    """Create tables whatever their order: some refer to one another."""
    if connection.dialect.name == "sqlite":
        _create_in_sqlite(connection, tables)
        return
    with relaxed(connection):
        for table in tables:
            connection.execute(_CreateWithKeys(table, if_not_exists=True))


class _CreateWithKeys(CreateTable):
    """A table and its keys in one statement: CREATE INDEX needs a right of its own."""

    inherit_cache = False


@compiles(_CreateWithKeys)
def _compile_with_keys(statement: _CreateWithKeys, compiler: Any, **options: Any) -> str:
    table, quote = statement.element, compiler.preparer.quote
    keys = ""
    for index in _by_name(table):
        columns = ", ".join(quote(column.name) for column in index.columns)
        keys += f",\n\tKEY {quote(index.name)} ({columns})"
    end = f"\n){compiler.post_create_table(table)}\n\n"
    text = compiler.visit_create_table(statement, **options)
    return f"{text.removesuffix(end)}{keys}{end}"


def _by_name(table: sa.Table) -> list[sa.Index]:
    return sorted(table.indexes, key=lambda index: index.name or "")


def _create_index(connection: Connection, index: sa.Index) -> None:
    try:
        connection.execute(CreateIndex(index))
    except DBAPIError as err:
        # Another daemon was quicker; only MariaDB knows IF NOT EXISTS here.
        if error_code(err) != DUPLICATE_INDEX:
            raise


@contextmanager
def relaxed(connection: Connection) -> Iterator[None]:
    """Let VCL's defaults in: the zero date, which strict servers refuse to declare or write."""
    if connection.dialect.name == "sqlite":
        yield
        return
    mode = connection.exec_driver_sql("SELECT @@SESSION.sql_mode").scalar()
    connection.exec_driver_sql("SET SESSION sql_mode = '', SESSION foreign_key_checks = 0")
    try:
        yield
    finally:
        connection.execute(
            sa.text("SET SESSION sql_mode = :mode, SESSION foreign_key_checks = 1"),
            {"mode": mode},
        )


def _create_in_sqlite(connection: Connection, tables: Iterable[sa.Table]) -> None:
    """Create tables where index names are global and no key of two columns counts by itself."""
    metadata = sa.MetaData()
    for table in Base.metadata.tables.values():
        copy = table.to_metadata(metadata)
        for index in copy.indexes:
            index.name = quoted_name(f"{table.name}_{index.name}", None)
        # Ids of removed rows must not come again, as with MySQL.
        copy.dialect_options["sqlite"]["autoincrement"] = len(copy.primary_key) == 1
        if len(copy.primary_key) > 1:
            for column in copy.primary_key:
                column.autoincrement = False
    metadata.create_all(connection, [metadata.tables[table.name] for table in tables])
