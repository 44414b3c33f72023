"""SSH host keys of computers, kept where every management node finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.errors import NotFoundError
from vcld.schema.models import Computer
from vcld.schema.own import HostKey
from vcld.schema.sqltime import utc_now

_MINE = HostKey.computerid == sa.bindparam("of_computer")


class StoredHostKeys:
    """The host key of one computer; ``run`` gives a function a transaction of its own."""

    def __init__(self, run: Callable[..., Any], computerid: int) -> None:
        self._run = run
        self._computerid = computerid

    def find(self) -> str | None:
        """The key it is known by, None when it is not known yet."""
        found: str | None = self._run(find, self._computerid)
        return found

    def learn(self, key: str) -> None:
        """Keep the key from now on."""
        self._run(learn, self._computerid, key)

    def forget(self) -> None:
        """Whatever key comes next is right."""
        self._run(forget, self._computerid)


def find(connection: Connection, computerid: int) -> str | None:
    """The computer's key, None when it is not known."""
    return connection.scalar(sa.select(HostKey.hostkey).where(_MINE), {"of_computer": computerid})


def learn(connection: Connection, computerid: int, key: str) -> None:
    """Keep the key."""
    forget(connection, computerid)
    values = {"computerid": computerid, "hostkey": key, "learned_at": utc_now()}
    connection.execute(sa.insert(HostKey).values(values))


def forget(connection: Connection, computerid: int) -> bool:
    """Drop the key; False when there was none."""
    return (
        connection.execute(sa.delete(HostKey).where(_MINE), {"of_computer": computerid}).rowcount
        > 0
    )


def find_computer(connection: Connection, name: str) -> tuple[int, str]:
    """Id and host name of the computer that is not deleted, by its short or full name.

    Raises:
        NotFoundError: none or several have the name.
    """
    short = Computer.hostname.startswith(f"{name}.", autoescape=True)
    rows = connection.execute(
        sa.select(Computer.id, Computer.hostname)
        .where(sa.or_(Computer.hostname == name, short), Computer.deleted == 0)
        .order_by(Computer.id)
    ).all()
    if len(rows) != 1:
        if not rows:
            raise NotFoundError(f"there is no computer {name}")
        names = ", ".join(row.hostname for row in rows)
        raise NotFoundError(f"{name} may be {names}: give the full host name")
    return rows[0].id, rows[0].hostname
