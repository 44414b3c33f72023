"""Making the accounting tables, and finding out whether there are any."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateTable

from vcld import clock
from vcld.accounting.codes import LAST_SECOND
from vcld.accounting.tables import Tables, tables_in
from vcld.errors import ConfigError, SchemaError
from vcld.schema.engine import Database


@dataclass(frozen=True, slots=True)
class Installation:
    """What an installation found and made."""

    made: list[str]
    present: list[str]


def install(database: Database, schema: str) -> Installation:
    """Make the tables that are missing; any number of times.

    Raises:
        ConfigError: the embedded database has no schemas beside it.
        SchemaError: a table of that name has other columns or keys, or the clock is past what the
            columns hold; nothing was made.
        StoreError: the database is away or refuses.
    """
    check_clock()
    tables = tables_in(schema)

    def work(connection: Connection) -> Installation:
        _check_place(connection, schema)
        if schema:
            connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
        present = _present(connection, tables)
        for table in tables.all:
            if table.name in present:
                _check_columns(connection, table)
        missing = [table for table in tables.all if table.name not in present]
        for table in missing:
            connection.execute(CreateTable(table, if_not_exists=True))
        return Installation([table.name for table in missing], sorted(present))

    return database.run(work)


def check_clock() -> None:
    """Refuse to write what the columns cannot hold.

    Raises:
        SchemaError: it is later than 2038-01-19 03:14:07 UTC.
    """
    if clock.epoch() > LAST_SECOND:
        raise SchemaError(
            "the accounting tables hold times up to 2038-01-19 03:14:07 UTC only (int(11)), and"
            " that is over; set the clock, or do without accounting"
        )


def find_installed(connection: Connection, schema: str) -> Tables | None:
    """The tables, if all of them are there.

    Raises:
        ConfigError: the embedded database has no schemas beside it.
    """
    _check_place(connection, schema)
    tables = tables_in(schema)
    return tables if len(_present(connection, tables)) == len(tables.all) else None


def get_installed(connection: Connection, schema: str) -> Tables:
    """The tables.

    Raises:
        SchemaError: they are not there.
        ConfigError: the embedded database has no schemas beside it.
    """
    tables = find_installed(connection, schema)
    if tables is None:
        where = f"schema {schema}" if schema else "the VCL database"
        raise SchemaError(
            f"{where} holds no accounting tables; make them with 'vcld accounting install'"
        )
    return tables


def _check_place(connection: Connection, schema: str) -> None:
    if schema and connection.dialect.name == "sqlite":
        raise ConfigError(
            "accounting_database: an embedded database holds its accounting itself; leave the key"
            " empty, and copy the tables with 'vcld accounting copy'"
        )


def _present(connection: Connection, tables: Tables) -> set[str]:
    names = {table.name for table in tables.all}
    return names & set(sa.inspect(connection).get_table_names(schema=tables.schema))


def _check_columns(connection: Connection, table: sa.Table) -> None:
    columns = sa.inspect(connection).get_columns(table.name, schema=table.schema)
    found = {column["name"] for column in columns}
    wanted = {column.name for column in table.columns}
    if found != wanted:
        raise SchemaError(
            f"table {table.fullname} is there already with other columns (missing:"
            f" {', '.join(sorted(wanted - found)) or 'none'}; more:"
            f" {', '.join(sorted(found - wanted)) or 'none'}); set accounting_database to"
            " the name of another schema, and install again"
        )
    key = sa.inspect(connection).get_pk_constraint(table.name, schema=table.schema)
    wanted_key = [column.name for column in table.primary_key]
    if sorted(key["constrained_columns"]) != sorted(wanted_key):
        raise SchemaError(
            f"table {table.fullname} is there already without the primary key"
            f" ({', '.join(wanted_key)}); set accounting_database to the name of another schema,"
            " and install again"
        )
