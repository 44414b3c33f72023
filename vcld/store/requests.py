"""Requests: made by the daemon, removed by it, and competing for a computer."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld import schedule
from vcld.schema.models import Request, Reservation, State, User, VcldSemaphore
from vcld.schema.own import Claim
from vcld.schema.sqltime import after_site_now, seconds_between, site_now
from vcld.store import notices
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip

#: The user in whose name computers are reloaded.
RELOAD_USER = "vclreload"
#: A reload that follows a reservation has this long.
RELOAD_SECONDS = 30 * 60


def is_deleted(connection: Connection, requestid: int) -> bool:
    """True when the web site has deleted the request or its row is gone (§6.5)."""
    pair = find_pair(connection, requestid)
    return pair is None or "deleted" in pair


def find_pair(connection: Connection, requestid: int) -> tuple[str, str] | None:
    """The names of the request's state and last state; None when it is gone."""
    row = connection.execute(_find_pair(), {"requestid": requestid}).one_or_none()
    return None if row is None else (row[0], row[1])


@functools.cache
def _find_pair() -> sa.Select[str, str]:
    now, last = aliased(State), aliased(State)
    return (
        sa.select(now.name, last.name)
        .select_from(Request)
        .join(now, now.id == Request.stateid)
        .join(last, last.id == Request.laststateid)
        .where(Request.id == sa.bindparam("requestid"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request that the daemon makes, for one computer."""

    state: str
    laststate: str
    computerid: int
    imageid: int
    imagerevisionid: int
    managementnodeid: int
    start_in_seconds: int
    end_in_seconds: int
    unityid: str = RELOAD_USER


def insert(connection: Connection, catalog: Catalog, new: NewRequest) -> tuple[int, int]:
    """Insert a request with one reservation (specification §6.3); return both ids."""
    userid = (
        sa.select(User.id)
        .where(User.unityid == new.unityid)
        .order_by(User.id)
        .limit(1)
        .scalar_subquery()
    )
    requestid = connection.execute(
        sa.insert(Request).values(
            stateid=catalog.state_id(new.state),
            laststateid=catalog.state_id(new.laststate),
            userid=userid,
            forimaging=0,
            test=0,
            preload=0,
            start=after_site_now(new.start_in_seconds),
            end=after_site_now(new.end_in_seconds),
            daterequested=site_now(),
        )
    ).inserted_primary_key
    assert requestid is not None
    reservationid = connection.execute(
        sa.insert(Reservation).values(
            requestid=requestid[0],
            computerid=new.computerid,
            imageid=new.imageid,
            imagerevisionid=new.imagerevisionid,
            managementnodeid=new.managementnodeid,
            lastcheck=None,
        )
    ).inserted_primary_key
    assert reservationid is not None
    return requestid[0], reservationid[0]


def insert_reload(
    connection: Connection,
    catalog: Catalog,
    *,
    computerid: int,
    imageid: int,
    imagerevisionid: int,
    managementnodeid: int,
    end_in_seconds: int = RELOAD_SECONDS,
) -> None:
    """Ask for a computer to be loaded, in the transaction that says so (§6.3)."""
    new = NewRequest(
        state="reload",
        laststate="reload",
        computerid=computerid,
        imageid=imageid,
        imagerevisionid=imagerevisionid,
        managementnodeid=managementnodeid,
        start_in_seconds=0,
        end_in_seconds=end_in_seconds,
    )
    insert(connection, catalog, new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a reservation has on its computer, and who looks after it."""

    imageid: int
    imagerevisionid: int
    managementnodeid: int


def find_held(connection: Connection, requestid: int, computerid: int) -> Held | None:
    """What the request has on the computer; None when it has no reservation for it."""
    row = connection.execute(
        sa.select(
            Reservation.imageid, Reservation.imagerevisionid, Reservation.managementnodeid
        ).where(Reservation.requestid == requestid, Reservation.computerid == computerid)
    ).first()
    return None if row is None else Held(**row._mapping)


def insert_same_again(
    connection: Connection, catalog: Catalog, computerid: int, held: Held | None
) -> None:
    """Have the computer of a reservation loaded anew, with the same image."""
    if held is not None:
        insert_reload(
            connection,
            catalog,
            computerid=computerid,
            imageid=held.imageid,
            imagerevisionid=held.imagerevisionid,
            managementnodeid=held.managementnodeid,
        )


def delete_finished(connection: Connection, catalog: Catalog, requestids: Collection[int]) -> int:
    """Remove finished requests; reservations and load log go with them by foreign key."""
    finished = catalog.states(sorted(schedule.FINISHED_STATES))
    ids = sorted(requestids)
    gone = connection.execute(
        sa.delete(Request).where(Request.id.in_(ids), Request.stateid.in_(finished))
    )
    notices.forget(connection, ids)
    return gone.rowcount


def forget_claims(connection: Connection, reservationids: Collection[int]) -> None:
    """Drop claims nobody works on: their reservations are gone or need no work."""
    connection.execute(
        sa.delete(Claim).where(
            Claim.reservationid.in_(sorted(reservationids)), Claim.phase != "running"
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another reservation on the computer, as the competition sees it (§8.1 B)."""

    requestid: int
    reservationid: int
    state: str
    laststate: str
    start_in_seconds: int
    end_in_seconds: int
    imagerevisionid: int
    managementnodeid: int
    #: Phase of the claim that somebody holds on it, None without.
    claim_phase: str | None
    claim_revoked: bool
    #: Its worker alone may change the computer.
    has_computer: bool
    #: A worker of it transfers an image or the like: it must not be stopped.
    holds_semaphore: bool
    #: The request has other computers, too.
    is_cluster: bool = False
    #: At its end an image is made of the computer.
    forimaging: bool = False


def find_rivals(connection: Connection, computerid: int, requestid: int) -> list[Rival]:
    """All other requests that have a reservation on the computer, by request id."""
    rows = connection.execute(
        _find_rivals(), {"rival_computerid": computerid, "own_requestid": requestid}
    )
    return [
        Rival(
            requestid=row.requestid,
            reservationid=row.reservationid,
            state=row.state,
            laststate=row.laststate,
            start_in_seconds=row.start_in if row.start_in is not None else 0,
            end_in_seconds=row.end_in if row.end_in is not None else 0,
            imagerevisionid=row.imagerevisionid,
            managementnodeid=row.managementnodeid,
            claim_phase=row.phase,
            claim_revoked=bool(row.revoked),
            has_computer=row.exclusive_computerid is not None,
            holds_semaphore=bool(row.semaphore),
            is_cluster=bool(row.elsewhere),
            forimaging=bool(row.forimaging),
        )
        for row in rows
    ]


@functools.cache
def _find_rivals() -> sa.Select[*tuple[Any, ...]]:
    now, last = aliased(State), aliased(State)
    semaphore = sa.exists().where(
        VcldSemaphore.reservationid == Reservation.id, VcldSemaphore.expires > site_now()
    )
    other = aliased(Reservation)
    elsewhere = sa.exists().where(
        other.requestid == Request.id, other.computerid != Reservation.computerid
    )
    return (
        sa.select(
            Request.id.label("requestid"),
            Reservation.id.label("reservationid"),
            elsewhere.label("elsewhere"),
            Request.forimaging,
            now.name.label("state"),
            last.name.label("laststate"),
            seconds_between(site_now(), Request.start).label("start_in"),
            seconds_between(site_now(), Request.end).label("end_in"),
            Reservation.imagerevisionid,
            Reservation.managementnodeid,
            Claim.phase,
            Claim.revoked,
            Claim.exclusive_computerid,
            semaphore.label("semaphore"),
        )
        .select_from(Reservation)
        .join(Request, Request.id == Reservation.requestid)
        .join(now, now.id == Request.stateid)
        .join(last, last.id == Request.laststateid)
        .join(Claim, Claim.reservationid == Reservation.id, isouter=True)
        .where(
            Reservation.computerid == sa.bindparam("rival_computerid"),
            Request.id != sa.bindparam("own_requestid"),
        )
        .order_by(Request.id, Reservation.id)
    )


def is_computer_held(connection: Connection, grip: Grip) -> bool:
    """True when a worker of another reservation may change the grip's computer."""
    query = sa.select(Claim.reservationid).where(
        Claim.exclusive_computerid == grip.computerid, Claim.reservationid != grip.reservationid
    )
    return connection.execute(query).first() is not None


def set_preload(connection: Connection, requestid: int) -> None:
    """Note that the computer was loaded in advance."""
    connection.execute(sa.update(Request).where(Request.id == requestid).values(preload=1))


def set_checkuser(connection: Connection, requestid: int, *, check: bool) -> None:
    connection.execute(
        sa.update(Request).where(Request.id == requestid).values(checkuser=int(check))
    )


def seconds_to_end(connection: Connection, requestid: int) -> int | None:
    """Seconds until the request's end as it is now; None without one, or when it is gone."""
    query = sa.select(seconds_between(site_now(), Request.end)).where(Request.id == requestid)
    return connection.scalar(query)
