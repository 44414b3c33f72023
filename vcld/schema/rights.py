"""What the database user may do, asked of the server itself.

Grants may come from roles, wildcards or several accounts, so they are not read but tried,
with statements that touch no row.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from vcld.schema import models as m
from vcld.schema import own
from vcld.schema.columns import Base
from vcld.schema.engine import error_code

#: MySQL's numbers for a right that is not there: on a database, a table, a column.
DENIED = frozenset({1044, 1142, 1143})
#: VCL's tables that vcld writes.
WRITTEN = (
    *(m.BlockComputer, m.BlockRequest, m.BlockTime, m.Computer, m.ComputerLoadLog),
    *(m.ConnectLog, m.Image, m.ImageRevision, m.Log, m.ManagementNode, m.NATPort),
    *(m.Request, m.Reservation),
    *(m.ReservationAccount, m.SubLog, m.Variable),
)


def find_missing_rights(connection: Connection) -> list[str]:
    """Rights that vcld needs on the tables that are there, a sentence for each kind."""
    denied: dict[str, list[str]] = {}
    present = set(sa.inspect(connection).get_table_names())
    written = [Base.metadata.tables[model.__tablename__] for model in WRITTEN]
    for table in (*written, *own.OWN_TABLES):
        if table.name not in present:
            continue
        for right, statement in _harmless(table):
            if _is_denied(connection, statement):
                denied.setdefault(right, []).append(table.name)
    return [
        f"the database user may not {right} in {', '.join(names)}:"
        " GRANT SELECT, INSERT, UPDATE, DELETE, CREATE on the whole database"
        for right, names in denied.items()
    ]


def may_create_tables(connection: Connection) -> bool:
    """True if the user may create tables. Asks for one that is there, so none is made."""
    there = Base.metadata.tables[m.State.__tablename__]
    return not _is_denied(connection, CreateTable(there, if_not_exists=True))


def _harmless(table: sa.Table) -> Iterator[tuple[str, sa.Executable]]:
    column = next(iter(table.columns))
    nothing = sa.select(table).where(sa.false())
    yield "INSERT", sa.insert(table).from_select([c.name for c in table.columns], nothing)
    yield "UPDATE", sa.update(table).values({column: column}).where(sa.false())
    yield "DELETE", sa.delete(table).where(sa.false())


def _is_denied(connection: Connection, statement: sa.Executable) -> bool:
    try:
        connection.execute(statement)
    except DBAPIError as err:
        if error_code(err) not in DENIED:
            raise
        return True
    return False
