"""Compare-and-swap of a request's pair of states: state and last state."""

from __future__ import annotations

import functools

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import Request, Reservation, ServerRequest
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip

Pair = tuple[str, str]


def move(
    connection: Connection,
    catalog: Catalog,
    grip: Grip,
    target: Pair,
    known: tuple[int, int] | None = None,
) -> bool:
    """Move the request that the grip was taken for. False when it was changed.

    ``known``: the highest id of its reservations and the id of its server request (0: none) as
    they were read; if others were added since, it counts as changed. The web site writes the
    rows of a request one after another.
    """
    values = {**_expected(catalog, grip), **_target(catalog, target)}
    if known is None:
        return connection.execute(_move(), values).rowcount == 1
    values |= {"last_known": known[0], "known_server": known[1]}
    return connection.execute(_move_whole(), values).rowcount == 1


def remove(connection: Connection, catalog: Catalog, grip: Grip) -> bool:
    """Remove it; reservations and load log go by foreign key. False when it was changed."""
    return connection.execute(_remove(), _expected(catalog, grip)).rowcount == 1


def swap(connection: Connection, catalog: Catalog, requestid: int, old: Pair, new: Pair) -> bool:
    """Change a request's pair of states if it is still the old one."""
    expected = {
        "of_request": requestid,
        "of_states": [catalog.state_id(old[0])],
        "of_laststates": [catalog.state_id(old[1])],
    }
    return connection.execute(_move(), {**expected, **_target(catalog, new)}).rowcount == 1


def _target(catalog: Catalog, pair: Pair) -> dict[str, object]:
    return {"to_state": catalog.state_id(pair[0]), "to_laststate": catalog.state_id(pair[1])}


def _expected(catalog: Catalog, grip: Grip) -> dict[str, object]:
    """The pair that the claim has set; more when the web site may repeat what it asked for."""
    pending, state = catalog.state_id("pending"), catalog.state_id(grip.state)
    if grip.state == "deleted":
        # The web site may mark a request deleted again while its deletion is under way, and
        # then the last state is what it was before.
        return {
            "of_request": grip.requestid,
            "of_states": [pending, state],
            "of_laststates": list(catalog.state_ids.values()),
        }
    if not grip.is_pending:
        # A cluster that did not begin everywhere is as the web site wrote it.
        laststate = catalog.state_id(grip.laststate)
        return {"of_request": grip.requestid, "of_states": [state], "of_laststates": [laststate]}
    return {"of_request": grip.requestid, "of_states": [pending], "of_laststates": [state]}


def _is_expected() -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Request.id == sa.bindparam("of_request"),
        Request.stateid.in_(sa.bindparam("of_states", expanding=True)),
        Request.laststateid.in_(sa.bindparam("of_laststates", expanding=True)),
    )


@functools.cache
def _move() -> sa.Update:
    return (
        sa.update(Request)
        .where(*_is_expected())
        .values(stateid=sa.bindparam("to_state"), laststateid=sa.bindparam("to_laststate"))
    )


@functools.cache
def _move_whole() -> sa.Update:
    later = sa.exists().where(
        Reservation.requestid == Request.id, Reservation.id > sa.bindparam("last_known")
    )
    server = sa.exists().where(
        ServerRequest.requestid == Request.id, ServerRequest.id != sa.bindparam("known_server")
    )
    return _move().where(sa.not_(later), sa.not_(server))


@functools.cache
def _remove() -> sa.Delete:
    return sa.delete(Request).where(*_is_expected())
