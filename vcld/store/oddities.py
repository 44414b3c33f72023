"""What is odd around the daemon: rows without their other half, and another time of day."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import Request, Reservation
from vcld.schema.sqltime import after_site_now, utc_now

#: The web site may be in the middle of writing a request.
SETTLED_SECONDS = 60
#: So many are told of; one is enough to look for more.
LIMIT = 20


def find_half_requests(connection: Connection, managementnodeid: int) -> list[str]:
    """Reservations of the node without a request, requests without a reservation; a clause each."""
    reservations = (
        sa.select(Reservation.id)
        .join(Request, Request.id == Reservation.requestid, isouter=True)
        .where(Reservation.managementnodeid == managementnodeid, Request.id.is_(None))
        .limit(LIMIT)
    )
    requests = (
        sa.select(Request.id)
        .join(Reservation, Reservation.requestid == Request.id, isouter=True)
        .where(
            Reservation.id.is_(None),
            Request.daterequested < after_site_now(-SETTLED_SECONDS),
        )
        .limit(LIMIT)
    )
    return [
        *(f"reservation {id_} has no request" for id_ in connection.scalars(reservations)),
        *(f"request {id_} has no reservation" for id_ in connection.scalars(requests)),
    ]


def database_utc(connection: Connection) -> dt.datetime:
    """Now by the database's clock, in UTC, naive."""
    now = connection.scalar(sa.select(utc_now()))
    return now if isinstance(now, dt.datetime) else dt.datetime.fromisoformat(str(now))
