"""Rows that hang on one reservation: password, accounts, addresses, connect methods, log."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld import snapshot
from vcld.schema.models import (
    OS,
    Affiliation,
    Computer,
    ConnectLog,
    ConnectMethod,
    ConnectMethodMap,
    ConnectMethodPort,
    Log,
    OSType,
    Request,
    Reservation,
    ReservationAccount,
    SubLog,
    User,
    UserGroupMember,
)
from vcld.schema.sqltime import site_now
from vcld.store import nat
from vcld.store.reservation_query import user_columns
from vcld.store.snapshots import make_user


def set_password(connection: Connection, reservationid: int, password: str) -> None:
    """Keep the owner's password where the web site shows it."""
    connection.execute(_set_password(), {"of_reservation": reservationid, "to_pw": password})


@functools.cache
def _set_password() -> sa.Update:
    return (
        sa.update(Reservation)
        .where(Reservation.id == sa.bindparam("of_reservation"))
        .values(pw=sa.bindparam("to_pw"))
    )


def set_remote_ip(connection: Connection, reservationid: int, address: str) -> None:
    """Note the address the user really comes from."""
    connection.execute(
        sa.update(Reservation).where(Reservation.id == reservationid).values(remoteIP=address)
    )


def find_remote_ip(connection: Connection, reservationid: int) -> str | None:
    """The address the user connects from; None until Connect was pressed."""
    return connection.scalar(_find_remote_ip(), {"of_reservation": reservationid}) or None


@functools.cache
def _find_remote_ip() -> sa.Select[str | None]:
    return sa.select(Reservation.remoteIP).where(Reservation.id == sa.bindparam("of_reservation"))


def touch(connection: Connection, reservationids: Sequence[int]) -> None:
    """Set ``lastcheck``: work goes on, or the session was looked at (§6.2)."""
    connection.execute(_touch(), {"reservationids": sorted(reservationids)})


@functools.cache
def _touch() -> sa.Update:
    these = Reservation.id.in_(sa.bindparam("reservationids", expanding=True))
    old = sa.or_(Reservation.lastcheck.is_(None), Reservation.lastcheck <= site_now())
    return sa.update(Reservation).where(these, old).values(lastcheck=site_now())


def set_public_ip(connection: Connection, reservation: snapshot.Reservation, address: str) -> None:
    """Store the computer's public address, and in the parent's ``sublog`` row."""
    connection.execute(
        sa.update(Computer).where(Computer.id == reservation.computer.id).values(IPaddress=address)
    )


def log_loaded(connection: Connection, logid: int | None) -> None:
    """Note once when the computer was ready."""
    if logid is not None:
        connection.execute(_log_loaded(), {"of_log": logid})


@functools.cache
def _log_loaded() -> sa.Update:
    mine = Log.id == sa.bindparam("of_log")
    return sa.update(Log).where(mine, Log.loaded.is_(None)).values(loaded=site_now())


def log_address(connection: Connection, logid: int | None, computerid: int, address: str) -> None:
    """Keep the address in the request's ``sublog`` row of this computer."""
    if logid is not None:
        facts = {"of_log": logid, "of_computer": computerid, "to_address": address}
        connection.execute(_log_address(), facts)


@functools.cache
def _log_address() -> sa.Update:
    return (
        sa.update(SubLog)
        .where(
            SubLog.logid == sa.bindparam("of_log"),
            SubLog.computerid == sa.bindparam("of_computer"),
        )
        .values(IPaddress=sa.bindparam("to_address"))
    )


def log_connection(
    connection: Connection, reservation: snapshot.Reservation, address: str, *, verified: bool
) -> None:
    """Keep, once, that the user was connected from an address."""
    userid, logid = reservation.request.user.id, reservation.request.logid
    mine = (
        ConnectLog.reservationid == reservation.id,
        ConnectLog.userid == userid,
        ConnectLog.remoteIP == address,
    )
    if logid is None:
        return
    if connection.scalar(sa.select(ConnectLog.id).where(*mine)) is not None:
        if verified:
            connection.execute(sa.update(ConnectLog).where(*mine).values(verified=1))
        return
    connection.execute(
        sa.insert(ConnectLog).values(
            logid=logid,
            reservationid=reservation.id,
            userid=userid,
            remoteIP=address,
            verified=int(verified),
            timestamp=site_now(),
        )
    )


def of_request(connection: Connection, requestid: int) -> tuple[list[int], int | None]:
    """Ids of the request's reservations, ascending, and the id of its log row."""
    rows = connection.execute(
        sa.select(Reservation.id, Request.logid)
        .join(Request, Request.id == Reservation.requestid)
        .where(Request.id == requestid)
        .order_by(Reservation.id)
    ).all()
    return [row[0] for row in rows], rows[0][1] if rows else None


def load_connect_methods(
    connection: Connection, reservation: snapshot.Reservation, nat_ranges: str | None = None
) -> tuple[snapshot.ConnectMethod, ...]:
    """The ways in which the image's users connect, by id, with public ports behind a NAT host.

    A method applies by operating system type, operating system or image revision; a row for
    the image revision wins over one for the operating system, that over one for its type.
    """
    rows = connection.execute(
        sa.select(
            ConnectMethod,
            ConnectMethodMap.OSid,
            ConnectMethodMap.imagerevisionid,
            ConnectMethodMap.disabled,
        )
        .join(ConnectMethodMap, ConnectMethodMap.connectmethodid == ConnectMethod.id)
        .join(OS, OS.name == reservation.image.os_name)
        .join(OSType, OSType.name == OS.type)
        .where(
            ConnectMethodMap.autoprovisioned.is_(None),
            sa.or_(
                ConnectMethodMap.OStypeid == OSType.id,
                ConnectMethodMap.OSid == OS.id,
                ConnectMethodMap.imagerevisionid == reservation.imagerevision.id,
            ),
        )
    ).all()
    best: dict[int, tuple[int, Any]] = {}
    for row in rows:
        rank = 2 if row.imagerevisionid is not None else 1 if row.OSid is not None else 0
        if row.id not in best or rank > best[row.id][0]:
            best[row.id] = (rank, row)
    if not best:
        return ()
    ports: dict[int, list[tuple[int, int, str]]] = {}
    for portid, method, port, protocol in connection.execute(
        sa.select(
            ConnectMethodPort.id,
            ConnectMethodPort.connectmethodid,
            ConnectMethodPort.port,
            ConnectMethodPort.protocol,
        )
        .where(ConnectMethodPort.connectmethodid.in_(sorted(best)))
        .order_by(ConnectMethodPort.id)
    ):
        ports.setdefault(method, []).append((portid, port, protocol))
    enabled = [id_ for id_, (_, row) in best.items() if not row.disabled]
    wanted = [portid for id_ in enabled for portid, _, _ in ports.get(id_, ())]
    public = nat.ensure_ports(connection, reservation, wanted, nat_ranges)
    return tuple(
        snapshot.ConnectMethod(
            id=id_,
            name=row.name,
            description=row.description,
            connecttext=row.connecttext,
            servicename=row.servicename or None,
            startupscript=row.startupscript or None,
            disabled=bool(row.disabled),
            ports=tuple((port, protocol) for _, port, protocol in ports.get(id_, ())),
            nat_ports=tuple(
                (public[portid], port, protocol)
                for portid, port, protocol in ports.get(id_, ())
                if portid in public
            ),
        )
        for id_, (_, row) in sorted(best.items())
    )


def load_other_users(
    connection: Connection, reservation: snapshot.Reservation
) -> tuple[tuple[snapshot.User, bool], ...]:
    """Users beside the owner that a server request's groups let in: (user, administers it)."""
    server = reservation.request.server
    if server is None:
        return ()
    found: dict[int, tuple[snapshot.User, bool]] = {}
    for groupid, root in ((server.logingroupid, False), (server.admingroupid, True)):
        if groupid is not None:
            for user in _members(connection, groupid, reservation.managementnode):
                found[user.id] = (user, root)
    found.pop(reservation.request.user.id, None)
    return tuple(found[id_] for id_ in sorted(found))


def _members(
    connection: Connection, groupid: int, node: snapshot.ManagementNode
) -> list[snapshot.User]:
    member = aliased(UserGroupMember)
    rows = connection.execute(
        sa.select(*user_columns())
        .join(member, member.userid == User.id)
        .join(Affiliation, Affiliation.id == User.affiliationid)
        .where(member.usergroupid == groupid)
        .order_by(User.id)
    )
    return [make_user(row._mapping, node) for row in rows]


def load_account_passwords(connection: Connection, reservationid: int) -> dict[int, str]:
    """Passwords of the other users' accounts, by user id."""
    rows = connection.execute(
        sa.select(ReservationAccount.userid, ReservationAccount.password).where(
            ReservationAccount.reservationid == reservationid
        )
    )
    return {userid: password for userid, password in rows if password}


def replace_accounts(
    connection: Connection, reservationid: int, passwords: Mapping[int, str | None]
) -> None:
    """Make ``reservationaccounts`` hold exactly these users."""
    connection.execute(
        sa.delete(ReservationAccount).where(ReservationAccount.reservationid == reservationid)
    )
    if passwords:
        rows = [
            {"reservationid": reservationid, "userid": userid, "password": password}
            for userid, password in sorted(passwords.items())
        ]
        connection.execute(sa.insert(ReservationAccount).values(rows))
