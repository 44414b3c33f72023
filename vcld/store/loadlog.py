"""The load log: what the web site shows a waiting user, and what workers tell one another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.schema.models import ComputerLoadLog, ComputerLoadState
from vcld.schema.own import Claim
from vcld.schema.sqltime import seconds_between, site_now
from vcld.store.catalog import Catalog

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
    fallback = catalog.loadstate_ids.get("info")
    rows = [
        {
            "reservationid": reservationid,
            "computerid": computerid,
            "loadstateid": catalog.loadstate_ids.get(name, fallback),
            "additionalinfo": text[:LONGEST_TEXT],
        }
        for name, text in entries
    ]
    if token is None:
        connection.execute(
            sa.insert(ComputerLoadLog).values([{**row, "timestamp": site_now()} for row in rows])
        )
        return True
    # A subquery in VALUES, not INSERT … SELECT: that would lock the whole table's counter.
    held = (
        sa.select(Claim.reservationid)
        .where(Claim.reservationid == reservationid, Claim.token == token, Claim.revoked == 0)
        .scalar_subquery()
    )
    values = [{**row, "reservationid": held, "timestamp": site_now()} for row in rows]
    try:
        connection.execute(sa.insert(ComputerLoadLog).values(values))
    except IntegrityError:  # the claim is lost (NULL), or the reservation is gone
        return False
    return True


def delete(
    connection: Connection,
    catalog: Catalog,
    reservationids: Collection[int],
    names: Collection[str] | None = None,
) -> None:
    """Delete rows of the reservations, those of some load states or all."""
    where = [ComputerLoadLog.reservationid.in_(sorted(reservationids))]
    if names is not None:
        ids = [catalog.loadstate_ids[name] for name in names if name in catalog.loadstate_ids]
        where.append(ComputerLoadLog.loadstateid.in_(ids))
    connection.execute(sa.delete(ComputerLoadLog).where(*where))


def read(connection: Connection, reservationids: Collection[int]) -> list[Entry]:
    """All rows of the reservations, oldest first."""
    query = (
        sa.select(
            ComputerLoadLog.reservationid,
            ComputerLoadState.loadstatename,
            ComputerLoadLog.additionalinfo,
            seconds_between(ComputerLoadLog.timestamp, site_now()),
        )
        .join(ComputerLoadState, ComputerLoadState.id == ComputerLoadLog.loadstateid)
        .where(ComputerLoadLog.reservationid.in_(sorted(reservationids)))
        .order_by(ComputerLoadLog.id)
    )
    return [
        Entry(reservationid, name, text or "", age or 0)
        for reservationid, name, text, age in connection.execute(query)
    ]
