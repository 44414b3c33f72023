"""The load log: what the web site shows a waiting user, and what workers tell one another."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import IntegrityError

from vcld.schema.models import ComputerLoadLog, ComputerLoadState
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_age, site_now
from vcld.store import texts
from vcld.store.catalog import Catalog
from vcld.store.grips import HELD

#: ``additionalinfo`` is a TEXT column of 65535 bytes; a person reads one line.
LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    reservationid: int
    name: str
    text: str
    #: Seconds since it was written, by the database's clock.
    age_seconds: int


def add(
    connection: Connection,
    catalog: Catalog,
    reservationid: int,
    computerid: int,
    entries: Sequence[tuple[str, str]],
    *,
    token: int | None = None,
) -> bool:
    """Write rows; with ``token`` only while the claim holds it and is not revoked.

    A name that the site's ``computerloadstate`` lacks is written as ``info``.

    Returns:
        False when the claim is lost and nothing was written.
    """
    if not computerid:
        return True  # the log's foreign key has no place for a computer without a row
    facts: dict[str, object] = {"reservationid": reservationid, "computerid": computerid}
    for number, (name, text) in enumerate(entries):
        facts[f"loadstateid_{number}"] = catalog.loadstate_id(name)
        facts[f"text_{number}"] = text[:LONGEST_TEXT]
    if token is None:
        texts.execute(connection, _insert(connection.dialect, len(entries), guarded=False), facts)
        return True
    facts |= {"own_reservationid": reservationid, "own_token": token}
    del facts["reservationid"]
    try:
        texts.execute(connection, _insert(connection.dialect, len(entries), guarded=True), facts)
    except IntegrityError:  # the claim is lost (NULL), or the reservation is gone
        return False
    return True


@functools.cache
def _insert(dialect: sa.Dialect, count: int, *, guarded: bool) -> sa.TextClause:
    """A statement for so many rows; if guarded, of a reservation whose claim is held.

    As a text, because SQLAlchemy would compile an INSERT of several rows anew each time.
    """
    reservationid: sa.ColumnElement[int] = sa.bindparam("reservationid", type_=sa.Integer())
    if guarded:
        # A subquery in VALUES, not INSERT … SELECT: that would lock the whole table's counter.
        reservationid = sa.select(Claim.reservationid).where(*HELD).scalar_subquery()
    rows = [
        {
            "reservationid": reservationid,
            "computerid": sa.bindparam("computerid", type_=sa.Integer()),
            "loadstateid": sa.bindparam(f"loadstateid_{number}", type_=sa.Integer()),
            "timestamp": site_now(),
            "additionalinfo": sa.bindparam(f"text_{number}", type_=sa.Text()),
        }
        for number in range(count)
    ]
    statement = sa.insert(ComputerLoadLog).values(rows)
    named = type(cast(DefaultDialect, dialect))(paramstyle="named")
    return sa.text(str(statement.compile(dialect=named)))


def delete(
    connection: Connection,
    catalog: Catalog,
    reservationids: Collection[int],
    names: Collection[str] | None = None,
) -> None:
    """Delete rows of the reservations, those of some load states or all."""
    facts = {"reservationids": sorted(reservationids)}
    if names is not None:
        ids = [catalog.loadstate_ids[name] for name in names if name in catalog.loadstate_ids]
        facts["loadstateids"] = ids
    connection.execute(_delete(all_names=names is None), facts)


@functools.cache
def _delete(*, all_names: bool) -> sa.Delete:
    log = ComputerLoadLog
    where = [log.reservationid.in_(sa.bindparam("reservationids", expanding=True))]
    if not all_names:
        where.append(log.loadstateid.in_(sa.bindparam("loadstateids", expanding=True)))
    return sa.delete(log).where(*where)


def read(connection: Connection, reservationids: Collection[int]) -> list[Entry]:
    """All rows of the reservations, oldest first."""
    rows = connection.execute(_read(), {"reservationids": sorted(reservationids)})
    return [
        Entry(reservationid, name, text or "", age or 0) for reservationid, name, text, age in rows
    ]


@functools.cache
def _read() -> sa.Select[int, str, str | None, int]:
    return (
        sa.select(
            ComputerLoadLog.reservationid,
            ComputerLoadState.loadstatename,
            ComputerLoadLog.additionalinfo,
            site_age(ComputerLoadLog.timestamp),
        )
        .join(ComputerLoadState, ComputerLoadState.id == ComputerLoadLog.loadstateid)
        .where(ComputerLoadLog.reservationid.in_(sa.bindparam("reservationids", expanding=True)))
        .order_by(ComputerLoadLog.id)
    )
