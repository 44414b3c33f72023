"""Writes to computers that guard what others do with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import Computer, Reservation
from vcld.schema.own import Claim
from vcld.store.catalog import Catalog
from vcld.store.grips import HELD, Grip


def set_state(connection: Connection, catalog: Catalog, computerid: int, state: str) -> None:
    """Set a computer's state unless an administrator or the web site has removed it."""
    write(connection, catalog, computerid, {"stateid": catalog.state_id(state)})


def write(
    connection: Connection, catalog: Catalog, computerid: int, facts: Mapping[str, int | None]
) -> None:
    """Set columns of a computer unless an administrator or the web site has removed it."""
    values = {f"to_{name}": value for name, value in facts.items()}
    key = {"of_computer": computerid, "state_deleted": catalog.state_id("deleted")}
    connection.execute(_write(*facts), {**key, **values})


@functools.cache
def _write(*names: str) -> sa.Update:
    columns = Computer.__table__.c
    return (
        sa.update(Computer)
        .where(
            Computer.id == sa.bindparam("of_computer", type_=sa.Integer()),
            Computer.stateid != sa.bindparam("state_deleted", type_=sa.Integer()),
        )
        .values({name: sa.bindparam(f"to_{name}", type_=columns[name].type) for name in names})
    )


def free_reloading(connection: Connection, catalog: Catalog, computerids: Sequence[int]) -> None:
    """Make those of the computers available that are still marked as reloading (§7.3).

    Not one that another request's worker is loading.
    """
    is_being_loaded = sa.exists().where(Claim.exclusive_computerid == Computer.id)
    connection.execute(
        sa.update(Computer)
        .where(
            Computer.id.in_(sorted(computerids)),
            Computer.stateid == catalog.state_id("reloading"),
            sa.not_(is_being_loaded),
        )
        .values(stateid=catalog.state_id("available"))
    )


def mark_for_reload(
    connection: Connection, catalog: Catalog, requestid: int, computerid: int
) -> list[int]:
    """Set a request's other computers that were handed out to ``reload``; return their ids."""
    found = list(
        connection.scalars(
            sa.select(Computer.id)
            .join(Reservation, Reservation.computerid == Computer.id)
            .where(
                Reservation.requestid == requestid,
                Computer.id != computerid,
                Computer.stateid.in_(catalog.states(("reserved", "inuse"))),
            )
        )
    )
    values = {"stateid": catalog.state_id("reload")}
    connection.execute(sa.update(Computer).where(Computer.id.in_(found)).values(values))
    return found


def set_own_state(connection: Connection, catalog: Catalog, grip: Grip, state: str) -> bool:
    """Set the computer's state while the claim is held. False when it is lost."""
    values = {"of_computer": grip.computerid, "to_state": catalog.state_id(state)}
    return connection.execute(_set_own_state(), {**grip.key, **values}).rowcount == 1


@functools.cache
def _set_own_state() -> sa.Update:
    return (
        sa.update(Computer)
        .where(Computer.id == sa.bindparam("of_computer"), sa.exists().where(*HELD))
        .values(stateid=sa.bindparam("to_state"))
    )
