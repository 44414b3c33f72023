"""The accounting of a test's site, read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from vcld.accounting.check import find_breaches
from vcld.accounting.install import install
from vcld.accounting.tables import ORDER_OF_TIMES, Tables, tables_in
from vcld.accounting.window import database_now
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

    def now(self) -> int:
        """Seconds since 1970 by the database's clock."""
        with self.engine.begin() as c:
            return database_now(c)

    def breaches(self) -> list[str]:
        """What the consistency check finds."""
        with self.engine.begin() as c:
            return [str(breach) for breach in find_breaches(c, self.tables)]

    def put(self, oid: int, *stays: dict[str, Any], state: int = 6, **facts: Any) -> None:
        """A VM with its stays, on host 1, of user 101, as if vcld had written them."""
        row = {
            "oid": oid, "uid": 101, "name": f"vm {oid}", "state": state,
            "stime": stays[0]["stime"] if stays else 5,
            "etime": 0 if state in {1, 3, 5} or not stays else stays[-1]["etime"], "lcm_state": 3 * (state == 3),
            "deploy_id": "", "memory": 1024, "cpu": 100, "last_seq": len(stays) - 1,
            "template": "<TEMPLATE></TEMPLATE>", "last_poll": 0, **facts,
        }  # fmt: skip
        base = {"vid": oid, "host_name": "h1", "vm_dir": "", "hid": 1, "vm_mad": "m", "tm_mad": "c"}
        with self.engine.begin() as c:
            c.execute(sa.insert(self.tables.vm_pool).values(row))
            for seq, stay in enumerate(stays):
                c.execute(sa.insert(self.tables.history).values({**base, "seq": seq, **stay}))

    def put_base(self) -> None:
        """Host 1 and user 101."""
        host = {"oid": 1, "host_name": "h1", "template": ""}
        with self.engine.begin() as c:
            c.execute(sa.insert(self.tables.host_pool).values(host))
            c.execute(sa.insert(self.tables.host_shares).values(hid=1))
            c.execute(
                sa.insert(self.tables.user_pool).values(oid=101, user_name="ada", password="")
            )

    def rows(self, name: str) -> list[Any]:
        table = getattr(self.tables, name)
        with self.engine.begin() as c:
            return list(c.execute(sa.select(table).order_by(*table.primary_key.columns)))


def stay(*times: int, etime: int = 0, **facts: int) -> dict[str, int]:
    """A stay with its first times in their order (stime, pstime, petime, rstime, retime, …)."""
    return {**dict(zip(ORDER_OF_TIMES, times, strict=False)), "etime": etime, **facts}


@contextmanager
def installed(engine: Engine, schema: str = "") -> Iterator[Accounts]:
    """The accounting tables, and none afterwards."""
    install(Database(engine), schema)
    accounts = Accounts(engine, schema)
    try:
        yield accounts
        assert accounts.breaches() == []
    finally:
        accounts.tables.metadata.drop_all(engine)
