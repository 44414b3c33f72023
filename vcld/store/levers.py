"""What an operator may do to a request by hand; the web site's own rules (§17).

``retry`` asks of each pair of states what the request did last, and lets it do that again
only where nobody is harmed: not a session, not the disk of a capture, not whoever has the
computer now, not a worker that is at it. ``vcld.store.rerun`` holds those rules.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import schedule
from vcld.errors import NotFoundError, VcldError
from vcld.schema.models import Computer, Log, Request, Reservation, State
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now
from vcld.store import loadlog, overview, requests, rerun, reservations
from vcld.store.catalog import Catalog
from vcld.store.rerun import CAPTURES, LIVE
from vcld.store.strangers import ANYWHERE, Here

#: Computers that a reclaim leaves as they are: an administrator's business.
KEPT = frozenset({"maintenance", "vmhostinuse"})


def retry(connection: Connection, catalog: Catalog, requestid: int, here: Here = ANYWHERE) -> str:
    """Let a request be processed again.

    Raises:
        NotFoundError: there is no such request.
        VcldError: it cannot be repeated; the message says why.
    """
    pair = _pair(connection, requestid)
    _check_unclaimed(connection, requestid)
    plan = rerun.plan(connection, requestid, pair, here)
    connection.execute(
        sa.delete(Claim).where(Claim.requestid == requestid, Claim.phase != "running")
    )
    if plan.target is None:
        return plan.sentence
    _move(connection, catalog, requestid, pair, plan.target)
    for old, new in plan.computers:
        _set_computers(connection, catalog, requestid, old, new)
    ids, _ = reservations.of_request(connection, requestid)
    if ids:
        # An old row would count again: one "failed" ends a cluster, one "nodeready" deceives it.
        begins_anew = plan.target[0] in rerun.COMPETING
        loadlog.delete(connection, catalog, ids, None if begins_anew else ("failed",))
    if plan.reopens_log:
        _reopen_log(connection, requestid)
        # The user presses Connect anew: an old address would start the wait for a login at once.
        connection.execute(
            sa.update(Reservation).where(Reservation.requestid == requestid).values(remoteIP=None)
        )
    return plan.sentence


def cancel(connection: Connection, catalog: Catalog, requestid: int) -> str:
    """End a request as the web site does.

    Raises:
        NotFoundError: there is no such request.
        VcldError: it is over already, or a disk would be lost.
    """
    state, last = _pair(connection, requestid)
    if state in {"complete", "failed"}:
        raise VcldError(f"request {requestid} is over already ({state}); it is removed by itself")
    if "deleted" in {state, last}:
        return f"request {requestid} is being deleted already"
    working_on = last if state == "pending" else state
    if working_on in CAPTURES:
        raise VcldError(
            f"request {requestid} captures an image, which would be lost: wait for its end, or"
            " set request.stateid by hand"
        )
    computers = _computers(connection, requestid)
    if not computers:
        _remove(connection, catalog, requestid, (state, last))
        return f"request {requestid} had no reservation; it is removed"
    if working_on == "maintenance" and (last not in LIVE or "maintenance" in computers.values()):
        raise VcldError(_keeps_a_disk(requestid, last))
    if working_on == "new" and _starts_later(connection, requestid):
        return _cancel_early(connection, catalog, requestid, (state, last))
    if working_on in {"new", "reserved"}:
        target = "reserved"
    elif working_on in {"inuse", "imageinuse"} or state == "maintenance":
        target = "inuse"
    else:
        target = working_on
    _move(connection, catalog, requestid, (state, last), ("deleted", target))
    fates = [_fate(connection, requestid, id_, state) for id_, state in computers.items()]
    return f"request {requestid} was {state}/{last}; {', '.join(fates)}"


def _pair(connection: Connection, requestid: int) -> tuple[str, str]:
    pair = requests.find_pair(connection, requestid)
    if pair is not None:
        return pair
    row = connection.execute(
        sa.select(Request.stateid, Request.laststateid).where(Request.id == requestid)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no request {requestid}; it may be over and removed")
    known = set(connection.scalars(sa.select(State.id)))
    column = "laststateid" if row.stateid in known else "stateid"
    raise VcldError(
        f"request {requestid} has the {column} {getattr(row, column)}, which has no row in the"
        f" table state: set request.{column} to one that has"
    )


def _move(
    connection: Connection, catalog: Catalog, requestid: int, old: tuple[str, str],
    new: tuple[str, str],
) -> None:  # fmt: skip
    done = connection.execute(
        sa.update(Request)
        .where(*_is(catalog, requestid, old))
        .values(stateid=catalog.state_id(new[0]), laststateid=catalog.state_id(new[1]))
    )
    if done.rowcount != 1:
        raise _changed(requestid)


def _is(
    catalog: Catalog, requestid: int, pair: tuple[str, str]
) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Request.id == requestid,
        Request.stateid == catalog.state_id(pair[0]),
        Request.laststateid == catalog.state_id(pair[1]),
    )


def _changed(requestid: int) -> VcldError:
    return VcldError(f"request {requestid} changed at this moment; look and try again")


def _check_unclaimed(connection: Connection, requestid: int) -> None:
    """Refuse what a worker of a vcld has; and let none begin until this transaction ends."""
    query = sa.select(Claim.reservationid, Claim.phase).where(Claim.requestid == requestid)
    held = [row for row in connection.execute(query.with_for_update()) if row.phase == "running"]
    if not held:
        return
    lines = overview.load_requests(connection, [requestid])
    line = next(line for line in lines if line.reservationid == held[0].reservationid)
    if line.is_watched:
        who = f"worker {line.last_pid}" if line.last_pid else "a worker"
        raise VcldError(f"request {requestid} is being worked on by {who}; cancel it or wait")
    raise VcldError(
        f"request {requestid}: worker {line.last_pid or '(not yet started)'} has it, but"
        f" {line.unwatched_because}, so nobody knows whether it lives: start vcld there, which"
        " finds out, or wait until another node takes over"
    )


def _computers(connection: Connection, requestid: int) -> dict[int, str]:
    """The states of the request's computers by id; ``?`` for one without a row or state."""
    rows = connection.execute(
        sa.select(Reservation.computerid, sa.func.coalesce(State.name, "?"))
        .join(Computer, Computer.id == Reservation.computerid, isouter=True)
        .join(State, State.id == Computer.stateid, isouter=True)
        .where(Reservation.requestid == requestid)
        .order_by(Reservation.id)
    )
    return {id_: state for id_, state in rows}


def _fate(connection: Connection, requestid: int, computerid: int, state: str) -> str:
    """What becomes of a computer whose request is deleted."""
    hostname = connection.scalar(sa.select(Computer.hostname).where(Computer.id == computerid))
    name = (hostname or f"computer {computerid}, which has no row,").partition(".")[0]
    if state in KEPT:
        return f"{name} stays in {state}"
    for rival in requests.find_rivals(connection, computerid, requestid):
        working_on = rival.laststate if rival.state == "pending" else rival.state
        if rival.has_computer or working_on in schedule.SERVED_STATES:
            return f"{name} is left to request {rival.requestid}"
    return f"{name} is taken back"


def _keeps_a_disk(requestid: int, last: str) -> str:
    what = "its capture failed" if last in CAPTURES else f"it is maintenance/{last}"
    return (
        f"request {requestid} keeps a disk that may hold the user's work ({what}): 'vcld retry"
        f" {requestid}' tries again; to give the disk up, set request.stateid to deleted by hand,"
        " and then the computer's state from maintenance to reload"
    )


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
    _remove(connection, catalog, requestid, pair)
    return f"request {requestid} was to start later; it is removed"


def _remove(
    connection: Connection, catalog: Catalog, requestid: int, pair: tuple[str, str]
) -> None:
    logid = connection.scalar(sa.select(Request.logid).where(Request.id == requestid))
    removed = connection.execute(sa.delete(Request).where(*_is(catalog, requestid, pair)))
    if removed.rowcount != 1:
        raise _changed(requestid)
    connection.execute(
        sa.update(Log).where(Log.id == logid).values(finalend=site_now(), ending="deleted")
    )


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
