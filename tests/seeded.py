"""A VCL database that is put back between tests, quickly and completely."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url

from tests.mariadb import Server
from vcld.schema.create import create_schema, relaxed
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator


class SeededDatabase:
    """A database with VCL's tables, its seed rows and those of the simulator.

    A second database keeps a copy of the seed rows. A checksum per table tells which tables
    a test has changed; only those are put back.
    """

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self.url = server.create_database(name)
        self.engine: Engine = make_engine(self.url)
        create_schema(self.engine)
        with self.engine.begin() as connection:
            seed(connection)
            seed_simulator(connection)
        copy = make_url(server.create_database(f"{name}_seed")).database
        self._copy = sa.MetaData(schema=copy)
        with self.engine.begin() as connection:
            self._tables = sa.inspect(connection).get_table_names()
            self._keep_copy(connection)
            self._seeded = self._checksums(connection)

    def _keep_copy(self, connection: Connection) -> None:
        with relaxed(connection):
            for name in self._tables:
                quoted = self._quoted(name)
                if connection.exec_driver_sql(f"SELECT 1 FROM {quoted} LIMIT 1").first():
                    copy = self._quoted(sa.Table(name, self._copy))
                    connection.exec_driver_sql(f"CREATE TABLE {copy} AS SELECT * FROM {quoted}")

    def reset(self) -> None:
        """Bring every row back to what it was at the start."""
        self.engine.dispose()  # the server may have been killed since
        changed = self.changed()
        if changed:
            with self.engine.begin() as connection, relaxed(connection):
                self._put_back(connection, changed)

    def changed(self) -> list[str]:
        """Names of the tables with other rows than at the start."""
        with self.engine.begin() as connection:
            sums = self._checksums(connection)
        return [name for name in self._tables if sums[name] != self._seeded[name]]

    def _put_back(self, connection: Connection, names: Iterable[str]) -> None:
        copied = {table.name: table for table in self._copy.tables.values()}
        for name in names:
            quoted = self._quoted(name)
            connection.exec_driver_sql(f"DELETE FROM {quoted}")
            if name in copied:
                copy = self._quoted(copied[name])
                connection.exec_driver_sql(f"INSERT INTO {quoted} SELECT * FROM {copy}")

    def _checksums(self, connection: Connection) -> dict[str, Any]:
        quoted = ", ".join(map(self._quoted, self._tables))
        rows = connection.exec_driver_sql(f"CHECKSUM TABLE {quoted}").all()
        return {name: row[1] for name, row in zip(self._tables, rows, strict=True)}

    def _quoted(self, table: str | sa.Table) -> str:
        preparer = self.engine.dialect.identifier_preparer
        return preparer.quote(table) if isinstance(table, str) else preparer.format_table(table)

    def remove(self) -> None:
        self.engine.dispose()
        for name in (self._name, f"{self._name}_seed"):
            self._server.drop_database(name)
