"""The accounting of a test's site, read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from vcld.accounting.install import install
from vcld.accounting.tables import Tables, tables_in
from vcld.schema.engine import Database


class Accounts:
    """Rows of the accounting tables."""

    def __init__(self, engine: Engine, schema: str = "") -> None:
        self.engine = engine
        self.tables: Tables = tables_in(schema)

    def vm(self, oid: int) -> Any:
        """The row of a VM, or None."""
        with self.engine.begin() as c:
            vms = self.tables.vm_pool
            return c.execute(sa.select(vms).where(vms.c.oid == oid)).one_or_none()

    def state(self, oid: int) -> tuple[int, int] | None:
        row = self.vm(oid)
        return None if row is None else (row.state, row.lcm_state)

    def stays(self, oid: int) -> list[Any]:
        """The stays of a VM, in order."""
        with self.engine.begin() as c:
            history = self.tables.history
            query = sa.select(history).where(history.c.vid == oid).order_by(history.c.seq)
            return list(c.execute(query))

    def rows(self, name: str) -> list[Any]:
        table = getattr(self.tables, name)
        with self.engine.begin() as c:
            return list(c.execute(sa.select(table).order_by(*table.primary_key.columns)))


@contextmanager
def installed(engine: Engine, schema: str = "") -> Iterator[Accounts]:
    """The accounting tables, and none afterwards."""
    install(Database(engine), schema)
    accounts = Accounts(engine, schema)
    try:
        yield accounts
    finally:
        accounts.tables.metadata.drop_all(engine)
