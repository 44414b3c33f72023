"""SSH host keys of computers and NAT hosts, kept where every management node finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.errors import NotFoundError
from vcld.schema.models import Computer, NATHost
from vcld.schema.own import HostKey
from vcld.schema.sqltime import utc_now

_MINE = HostKey.holder == sa.bindparam("of_holder")


class StoredHostKeys:
    """The host key of one holder; ``run`` gives a function a transaction of its own."""

    def __init__(self, run: Callable[..., Any], holder: str) -> None:
        self._run = run
        self._holder = holder

    def find(self) -> str | None:
        """The key it is known by, None when it is not known yet."""
        found: str | None = self._run(find, self._holder)
        return found

    def learn(self, key: str) -> None:
        """Keep the key from now on."""
        self._run(learn, self._holder, key)

    def forget(self) -> None:
        """Whatever key comes next is right."""
        self._run(forget, self._holder)


def find(connection: Connection, holder: str) -> str | None:
    """The holder's key, None when it is not known."""
    return connection.scalar(sa.select(HostKey.hostkey).where(_MINE), {"of_holder": holder})


def learn(connection: Connection, holder: str, key: str) -> None:
    """Keep the key."""
    forget(connection, holder)
    values = {"holder": holder, "hostkey": key, "learned_at": utc_now()}
    connection.execute(sa.insert(HostKey).values(values))


def forget(connection: Connection, holder: str) -> bool:
    """Drop the key; False when there was none."""
    return connection.execute(sa.delete(HostKey).where(_MINE), {"of_holder": holder}).rowcount > 0


def find_holder(connection: Connection, name: str) -> tuple[str, str]:
    """Holder and name of a computer, by its short or full name, or of a NAT host, by an address.

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
            return _find_nathost(connection, name)
        names = ", ".join(row.hostname for row in rows)
        raise NotFoundError(f"{name} may be {names}: give the full host name")
    return f"computer {rows[0].id}", rows[0].hostname


def _find_nathost(connection: Connection, address: str) -> tuple[str, str]:
    addresses = (NATHost.publicIPaddress, NATHost.internalIPaddress)
    id_ = connection.scalar(
        sa.select(NATHost.id)
        .where(sa.or_(*(column == address for column in addresses)))
        .order_by(NATHost.id)
    )
    if id_ is None:
        raise NotFoundError(f"there is no computer, and no NAT host, {address}")
    return f"nathost {id_}", address
