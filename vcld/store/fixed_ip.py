"""The fixed address of a server request, while it lasts (VCL daemon specification §8.4).

``computer.IPaddress`` holds it; what stood there before is kept in the site's ``variable``
``originalIPaddr_ID``, and how to reach the address in ``fixedIPsrID``, by the server request.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import Computer, ServerRequest, Variable
from vcld.schema.sqltime import site_now
from vcld.snapshot import Reservation

SETTER = "vcld"


def take(connection: Connection, reservation: Reservation) -> str | None:
    """Give the computer the address in the database.

    Returns:
        None, or the name of the computer that has the address already; then nothing changed.
    """
    server, computer = reservation.request.server, reservation.computer
    assert server is not None
    others = sa.select(Computer.hostname).where(
        Computer.IPaddress == server.fixedIP, Computer.id != computer.id, Computer.deleted == 0
    )
    other = connection.scalar(others.with_for_update())
    if other is not None:
        return other
    mine = sa.select(Computer.IPaddress).where(Computer.id == computer.id).with_for_update()
    before = connection.scalar(mine)
    if before == server.fixedIP:
        return None  # a run before this one has done it
    name = _original(server.id)
    connection.execute(sa.delete(Variable).where(Variable.name == name))
    connection.execute(
        sa.insert(Variable).values(
            name=name, serialization="none", value=before or "", setby=SETTER, timestamp=site_now()
        )
    )
    connection.execute(
        sa.update(Computer).where(Computer.id == computer.id).values(IPaddress=server.fixedIP)
    )
    return None


def give_back(connection: Connection, requestid: int, computerid: int) -> None:
    """The server request is over: its address is free, the computer has its own again."""
    for id_ in _of_request(connection, requestid):
        connection.execute(sa.delete(Variable).where(Variable.name == f"fixedIPsr{id_}"))
    restore(connection, requestid, computerid)


def restore(connection: Connection, requestid: int, computerid: int) -> None:
    """The computer has its own address again; the request may be tried once more."""
    for id_ in _of_request(connection, requestid):
        name = _original(id_)
        original = connection.scalar(sa.select(Variable.value).where(Variable.name == name))
        if original is None:
            continue
        connection.execute(
            sa.update(Computer).where(Computer.id == computerid).values(IPaddress=original.strip())
        )
        connection.execute(sa.delete(Variable).where(Variable.name == name))


def _of_request(connection: Connection, requestid: int) -> list[int]:
    query = sa.select(ServerRequest.id).where(ServerRequest.requestid == requestid)
    return list(connection.scalars(query))


def _original(serverrequestid: int) -> str:
    return f"originalIPaddr_{serverrequestid}"
