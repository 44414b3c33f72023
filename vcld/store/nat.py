"""Public ports of NAT hosts, given to reservations for as long as they last."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld import snapshot
from vcld.errors import Blame, ProvisioningError
from vcld.schema.models import NATPort

#: Where the site's variable ``natport_ranges`` says nothing.
DEFAULT_RANGES = "49152-65535"


def parse_ranges(text: str | None) -> list[range]:
    """The ranges of public ports that the site allows; nonsense is left out."""
    found = []
    for low, high in re.findall(r"(\d{1,5})\s*-\s*(\d{1,5})", text or DEFAULT_RANGES):
        numbers = range(max(1, int(low)), min(65535, int(high)) + 1)
        if numbers:
            found.append(numbers)
    return found or parse_ranges(DEFAULT_RANGES)


def ensure_ports(
    connection: Connection,
    reservation: snapshot.Reservation,
    portids: Sequence[int],
    ranges: str | None,
) -> Mapping[int, int]:
    """A public port for each ``connectmethodport``, by its id; those it has already stay.

    Raises:
        ProvisioningError: the NAT host has no port left.
    """
    host = reservation.computer.nathost
    if host is None:
        return {}
    mine = NATPort.reservationid == reservation.id
    rows = connection.execute(
        sa.select(NATPort.connectmethodportid, NATPort.publicport).where(mine)
    )
    known = {portid: public for portid, public in rows}
    wanted = [portid for portid in portids if portid not in known]
    if not wanted:
        return known
    taken = set(
        connection.scalars(sa.select(NATPort.publicport).where(NATPort.nathostid == host.id))
    )
    free = [port for numbers in parse_ranges(ranges) for port in numbers if port not in taken]
    random.shuffle(free)
    for portid in wanted:
        known[portid] = _take(connection, reservation.id, host, portid, free)
    return known


def _take(
    connection: Connection,
    reservationid: int,
    host: snapshot.NATHost,
    portid: int,
    free: list[int],
) -> int:
    while free:
        public = free.pop()
        values = {
            "reservationid": reservationid,
            "nathostid": host.id,
            "publicport": public,
            "connectmethodportid": portid,
        }
        try:
            connection.execute(sa.insert(NATPort).values(values))
        except IntegrityError:  # undoes the one statement, not the transaction
            continue  # another reservation was quicker
        return public
    msg = f"NAT host {host.publicIPaddress} has no public port left (variable natport_ranges)"
    raise ProvisioningError(msg, blame=Blame.MANAGEMENT_NODE)
