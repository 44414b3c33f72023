"""Leases: rights that workers of all nodes share, in line, and that a dead worker loses.

A lease expires unless it is renewed. A reservation has one worker at a time, so what an
earlier worker of the same reservation left is given up by the next (``forget``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld import clock
from vcld.schema.own import Claim, Lease
from vcld.schema.sqltime import after_utc_now, utc_now

#: A holder that was not heard of for so long has lost its lease.
LEASE_SECONDS = 30
#: What expired so long ago is nobody's any more, and how much of it is removed at one time.
OLD_SECONDS = 600
MOST_SWEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request for a lease stands."""

    #: None: it waits.
    slot: int | None
    #: How many are before it.
    before: int = 0
    #: Tokens of those who hold the slots.
    holders: frozenset[int] = frozenset()


def join(
    connection: Connection,
    name: str,
    *,
    reservationid: int,
    urgency: int = 0,
    amount: int = 0,
) -> int:
    """Stand in line for a lease, or promise an amount; the token for the calls below."""
    token = secrets.randbits(32)
    connection.execute(
        sa.insert(Lease).values(
            name=name,
            token=token,
            slot=None,
            amount=amount,
            urgency=urgency,
            reservationid=reservationid,
            since=int(clock.epoch() * 1_000_000),
            expires_at=after_utc_now(LEASE_SECONDS),
        )
    )
    return token


def advance(connection: Connection, name: str, token: int, *, limit: int) -> Place | None:
    """Take a slot if one is free and nobody more urgent waits for it; renews the row.

    Returns:
        Where it stands; None when the row is gone because it expired: join again.
    """
    if not renew(connection, {name: token}):
        return None
    found = connection.execute(
        sa.select(Lease.token, Lease.slot, (Lease.expires_at < utc_now()).label("is_gone"))
        .where(Lease.name == name)
        .order_by(Lease.urgency, Lease.since, Lease.token)
    ).all()
    # Row by row: a search for what has expired would lock the whole line.
    _remove_expired(connection, name, [row.token for row in found if row.is_gone])
    rows = [row for row in found if not row.is_gone]
    held = {row.slot for row in rows if row.slot is not None}
    free = sorted(set(range(limit)) - held)
    holders = frozenset(row.token for row in rows if row.slot is not None)
    own = next(row for row in rows if row.token == token)
    if own.slot is not None:
        return Place(slot=own.slot)
    waiting = [row.token for row in rows if row.slot is None]
    before = waiting.index(token)
    if before >= limit - len(held):
        return Place(slot=None, before=before, holders=holders)
    # Not all the first: those who look at the same moment would be in each other's way.
    slot = free[before]
    try:
        connection.execute(
            sa.update(Lease).where(Lease.name == name, Lease.token == token).values(slot=slot)
        )
    # Somebody else was quicker. It undoes the one statement; a savepoint would do no more, and
    # hide a deadlock, with which it is gone.
    except IntegrityError:
        return Place(slot=None, before=before, holders=holders)
    return Place(slot=slot)


def _remove_expired(connection: Connection, name: str, tokens: list[int]) -> None:
    if tokens:
        connection.execute(
            sa.delete(Lease).where(
                Lease.name == name, Lease.token.in_(tokens), Lease.expires_at < utc_now()
            )
        )


def renew(connection: Connection, held: dict[str, int]) -> bool:
    """Renew leases, name → token; False when one of them was lost."""
    done = connection.execute(
        sa.update(Lease)
        .where(sa.tuple_(Lease.name, Lease.token).in_(list(held.items())))
        .values(expires_at=after_utc_now(LEASE_SECONDS + 1))
    )
    return done.rowcount == len(held)


def release(connection: Connection, name: str, token: int) -> None:
    """Give a lease up, or leave the line."""
    connection.execute(sa.delete(Lease).where(Lease.name == name, Lease.token == token))


def forget(connection: Connection, reservationid: int) -> None:
    """Give up what an earlier worker of the reservation held, and what has long expired.

    A worker that died may have been its reservation's last.
    """
    connection.execute(sa.delete(Lease).where(Lease.reservationid == reservationid))
    is_old = Lease.expires_at < after_utc_now(-OLD_SECONDS)
    # By key, as above, and some only: others will come by.
    old = connection.execute(sa.select(Lease.name, Lease.token).where(is_old).limit(MOST_SWEPT))
    keys = [(row.name, row.token) for row in old]
    if keys:
        key = sa.tuple_(Lease.name, Lease.token)
        connection.execute(sa.delete(Lease).where(key.in_(keys), is_old))


def promised(connection: Connection, name: str) -> int:
    """The sum of the amounts promised under a name."""
    found = connection.scalar(
        sa.select(sa.func.coalesce(sa.func.sum(Lease.amount), 0)).where(
            Lease.name == name, Lease.expires_at >= utc_now()
        )
    )
    return int(found or 0)


def is_named(connection: Connection, name: str) -> bool:
    """True when anybody has a row under a name."""
    found = sa.select(Lease.token).where(Lease.name == name, Lease.expires_at >= utc_now())
    return connection.execute(found.limit(1)).first() is not None


def find_claim(connection: Connection, reservationid: int) -> int | None:
    """The token of the claim that a worker holds on a reservation now; None: there is none."""
    return connection.scalar(
        sa.select(Claim.token).where(Claim.reservationid == reservationid, Claim.phase == "running")
    )


def is_claim(connection: Connection, reservationid: int, token: int) -> bool:
    """True while the reservation is claimed by that token."""
    return find_claim(connection, reservationid) == token
