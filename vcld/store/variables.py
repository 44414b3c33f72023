"""The ``variable`` rows that a worker changes."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import snapshot
from vcld.schema.models import Computer, Variable


def forget_fixed_ip(connection: Connection, reservation: snapshot.Reservation) -> None:
    """Undo a server request's fixed address: its variables, and the computer's own (§8.4)."""
    server = reservation.request.server
    if server is None:
        return
    connection.execute(sa.delete(Variable).where(Variable.name == f"fixedIPsr{server.id}"))
    if reservation.managementnode.publicIPconfiguration != "static":
        return
    name = f"originalIPaddr_{server.id}"
    original = connection.scalar(sa.select(Variable.value).where(Variable.name == name))
    if original:
        connection.execute(
            sa.update(Computer)
            .where(Computer.id == reservation.computer.id)
            .values(IPaddress=original.strip())
        )
        connection.execute(sa.delete(Variable).where(Variable.name == name))
