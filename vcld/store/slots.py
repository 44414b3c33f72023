"""Places for heavy work: so many at a time, first come first served, visible to everybody.

A ticket counts only while the claim it was drawn for is held. So a place needs no renewal, a
dead worker holds none, and one that was taken away is free at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.own import Claim, Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where somebody stands."""

    granted: bool
    #: Those who have a place, oneself included.
    taken: int
    #: Those who asked before and wait.
    ahead: int


def draw(connection: Connection, name: str, reservationid: int) -> int | None:
    """Get into line; None when the reservation has no running claim."""
    token = connection.scalar(
        sa.select(Claim.token).where(Claim.reservationid == reservationid, Claim.phase == "running")
    )
    if token is None:
        return None
    connection.execute(
        sa.delete(Slot).where(Slot.name == name, Slot.reservationid == reservationid)
    )
    made = connection.execute(
        sa.insert(Slot).values(name=name, reservationid=reservationid, token=token, granted=0)
    )
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def ask(connection: Connection, name: str, ticket: int, limit: int) -> Place | None:
    """Take a place if one is free for this ticket; None when the ticket is no longer valid."""
    # The lock makes those who ask at the same moment come one after another. Claims are read
    # apart, so that no claim is locked.
    rows = connection.execute(
        sa.select(Slot.ticket, Slot.granted, Slot.reservationid, Slot.token)
        .where(Slot.name == name)
        .order_by(Slot.ticket)
        .with_for_update()
    ).all()
    held = _held(connection, [row.reservationid for row in rows])
    rows = [row for row in rows if (row.reservationid, row.token) in held]
    taken = sum(row.granted for row in rows)
    ahead = sum(not row.granted and row.ticket < ticket for row in rows)
    own = next((row for row in rows if row.ticket == ticket), None)
    if own is None:
        return None
    if own.granted:
        return Place(granted=True, taken=taken, ahead=0)
    if taken + ahead >= limit:
        return Place(granted=False, taken=taken, ahead=ahead)
    connection.execute(sa.update(Slot).where(Slot.ticket == ticket).values(granted=1))
    return Place(granted=True, taken=taken + 1, ahead=0)


def leave(connection: Connection, name: str, reservationid: int) -> None:
    """Give the place back, and with it those of workers that died."""
    rows = connection.execute(
        sa.select(Slot.ticket, Slot.reservationid, Slot.token).where(Slot.name == name)
    ).all()
    held = _held(connection, [row.reservationid for row in rows])
    gone = [
        row.ticket
        for row in rows
        if row.reservationid == reservationid or (row.reservationid, row.token) not in held
    ]
    if gone:
        connection.execute(sa.delete(Slot).where(Slot.ticket.in_(gone)))


def _held(connection: Connection, reservationids: list[int]) -> set[tuple[int, int]]:
    """(reservationid, token) of claims that a worker holds now."""
    rows = connection.execute(
        sa.select(Claim.reservationid, Claim.token).where(
            Claim.reservationid.in_(reservationids), Claim.phase == "running"
        )
    )
    return {(row.reservationid, row.token) for row in rows}
