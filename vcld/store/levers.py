"""What an operator may do to a request by hand; the web site's own rules (§17)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.errors import NotFoundError, VcldError
from vcld.schema.models import Computer, Log, Request, Reservation
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now
from vcld.store import requests
from vcld.store.catalog import Catalog


def _pair(connection: Connection, requestid: int) -> tuple[str, str]:
    pair = requests.find_pair(connection, requestid)
    if pair is None:
        raise NotFoundError(f"there is no request {requestid}; it may be over and removed")
    return pair


def _move(
    connection: Connection, catalog: Catalog, requestid: int, old: tuple[str, str],
    new: tuple[str, str],
) -> None:  # fmt: skip
    done = connection.execute(
        sa.update(Request)
        .where(
            Request.id == requestid,
            Request.stateid == catalog.state_id(old[0]),
            Request.laststateid == catalog.state_id(old[1]),
        )
        .values(stateid=catalog.state_id(new[0]), laststateid=catalog.state_id(new[1]))
    )
    if done.rowcount != 1:
        raise _changed(requestid)


def _changed(requestid: int) -> VcldError:
    return VcldError(f"request {requestid} changed at this moment; look and try again")


def _is_held(connection: Connection, requestid: int) -> bool:
    query = sa.select(Claim.reservationid).where(
        Claim.requestid == requestid, Claim.phase == "running"
    )
    return connection.execute(query).first() is not None


def retry(connection: Connection, catalog: Catalog, requestid: int) -> str:
    """Let a request be processed again.

    Raises:
        NotFoundError: there is no such request.
        VcldError: it cannot be repeated; the message says why.
    """
    state, last = _pair(connection, requestid)
    if _is_held(connection, requestid):
        raise VcldError(f"request {requestid} is being worked on; cancel it or wait")
    connection.execute(sa.delete(Claim).where(Claim.requestid == requestid))
    if state == "pending":
        _move(connection, catalog, requestid, (state, last), (last, last))
        return f"request {requestid} was pending without a worker; {last} is processed again"
    if state == "maintenance":
        target = last if last in {"image", "checkpoint"} else "image"
        _move(connection, catalog, requestid, (state, last), (target, "maintenance"))
        _set_computers(connection, catalog, requestid, "maintenance", "inuse")
        return f"the capture of request {requestid} is tried again"
    if state == "failed":
        _move(connection, catalog, requestid, (state, last), (last, last))
        _set_computers(connection, catalog, requestid, "failed", "available")
        _reopen_log(connection, requestid)
        return f"request {requestid} had failed; {last} is tried again"
    if state == "complete":
        raise VcldError(f"request {requestid} is complete: there is nothing to repeat")
    return f"request {requestid} is {state}; its attempts start anew"


def cancel(connection: Connection, catalog: Catalog, requestid: int) -> str:
    """End a request as the web site does.

    Raises:
        NotFoundError: there is no such request.
        VcldError: it is over already.
    """
    state, last = _pair(connection, requestid)
    if state in {"complete", "failed"}:
        raise VcldError(f"request {requestid} is over already ({state}); it is removed by itself")
    if "deleted" in {state, last}:
        return f"request {requestid} is being deleted already"
    working_on = last if state == "pending" else state
    if working_on in {"image", "checkpoint"}:
        raise VcldError(
            f"request {requestid} captures an image, which would be lost: wait for its end, or"
            " set request.stateid by hand"
        )
    if working_on == "new" and _starts_later(connection, requestid):
        return _cancel_early(connection, catalog, requestid, (state, last))
    if working_on in {"new", "reserved"}:
        target = "reserved"
    elif working_on in {"inuse", "imageinuse"}:
        target = "inuse"
    else:
        target = working_on
    _move(connection, catalog, requestid, (state, last), ("deleted", target))
    return f"request {requestid} was {state}/{last}; its computer is taken back"


def _starts_later(connection: Connection, requestid: int) -> bool:
    query = sa.select(Request.id).where(Request.id == requestid, Request.start > site_now())
    return connection.execute(query).first() is not None


def _cancel_early(
    connection: Connection, catalog: Catalog, requestid: int, pair: tuple[str, str]
) -> str:
    """Before its start a request has no claim on its computer, which may serve another."""
    if pair[0] == "pending":
        # A worker loads in advance; it sees the deletion and lets the computer go.
        _move(connection, catalog, requestid, pair, ("deleted", "new"))
        return f"request {requestid} was {'/'.join(pair)}; its load in advance is stopped"
    logid = connection.scalar(sa.select(Request.logid).where(Request.id == requestid))
    removed = connection.execute(
        sa.delete(Request).where(
            Request.id == requestid,
            Request.stateid == catalog.state_id(pair[0]),
            Request.laststateid == catalog.state_id(pair[1]),
        )
    )
    if removed.rowcount != 1:
        raise _changed(requestid)
    connection.execute(
        sa.update(Log).where(Log.id == logid).values(finalend=site_now(), ending="deleted")
    )
    return f"request {requestid} was to start later; it is removed"


def _reopen_log(connection: Connection, requestid: int) -> None:
    row = connection.execute(
        sa.select(Request.logid, Request.end).where(Request.id == requestid)
    ).one()
    connection.execute(
        sa.update(Log).where(Log.id == row.logid).values(finalend=row.end, ending="none")
    )


def _set_computers(
    connection: Connection, catalog: Catalog, requestid: int, old: str, new: str
) -> None:
    computers = sa.select(Reservation.computerid).where(Reservation.requestid == requestid)
    connection.execute(
        sa.update(Computer)
        .where(
            Computer.id.in_(computers.scalar_subquery()),
            Computer.stateid == catalog.state_id(old),
        )
        .values(stateid=catalog.state_id(new))
    )
