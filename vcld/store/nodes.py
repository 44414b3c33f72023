"""Management nodes: their rows, their heartbeat, and which daemon acts for them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from vcld.errors import NotFoundError
from vcld.processes import ProcessId
from vcld.schema.models import (
    ManagementNode,
    Reservation,
    State,
)
from vcld.schema.own import Claim, Daemon
from vcld.schema.sqltime import site_age, site_now, utc_now
from vcld.snapshot import ManagementNode as Node
from vcld.store.resources import mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One run of the daemon."""

    daemon: str
    hostname: str
    kernel_boot: str
    process: ProcessId
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRow:
    """The daemon that last acted for a management node."""

    identity: Identity
    #: Age of the node's heartbeat by the database's clock; None: it never had one.
    silent_seconds: int | None
    stopped: bool


def get_node(connection: Connection, name: str) -> Node:
    """Find the management node by its host name, full or short.

    Raises:
        NotFoundError: there is no such row, or the short name fits several.
    """
    short = name.partition(".")[0]
    rows = connection.execute(
        _nodes().where(
            sa.or_(
                ManagementNode.hostname == name,
                ManagementNode.hostname == short,
                ManagementNode.hostname.like(f"{short}.%"),
            )
        )
    ).all()
    exact = [row for row in rows if row.hostname == name] or list(rows)
    if len(exact) != 1:
        known = connection.scalars(sa.select(ManagementNode.hostname)).all()
        msg = (
            f"management node {name!r} is {'ambiguous' if exact else 'not'} in the"
            f" managementnode table; {_remedy(known)}"
        )
        raise NotFoundError(msg)
    return node_from_row(exact[0])


def _remedy(known: Sequence[str]) -> str:
    if known:
        return f"set fqdn to one of: {', '.join(known)}"
    return "it has no row yet: add this node on the web site's page of management nodes"


def find_node(connection: Connection, managementnodeid: int) -> Node | None:
    """The management node as its row is now; None when it is gone."""
    row = connection.execute(_nodes().where(ManagementNode.id == managementnodeid)).one_or_none()
    return None if row is None else node_from_row(row)


def _nodes() -> sa.Select[*tuple[Any, ...]]:
    keys, state = ManagementNode.keys.label("key_paths"), State.name.label("state")
    return sa.select(ManagementNode, keys, state).join(State, State.id == ManagementNode.stateid)


def is_named(hostname: str, name: str) -> bool:
    """True when a node's host name is meant by ``name``, full or short."""
    return name in {hostname, hostname.partition(".")[0]} or name.partition(".")[0] == hostname


def node_from_row(row: sa.Row[*tuple[Any, ...]]) -> Node:
    """Make the snapshot of a row that has all columns of ``managementnode`` and ``state``."""
    separated = (row.NOT_STANDALONE or "").replace(",", " ").replace(";", " ")
    return Node(
        id=row.id,
        hostname=row.hostname,
        IPaddress=row.IPaddress,
        state=row.state,
        checkininterval_seconds=row.checkininterval or 12,
        installpath=row.installpath,
        imagelibenable=bool(row.imagelibenable),
        imagelibgroupid=row.imagelibgroupid,
        imagelibuser=row.imagelibuser,
        imagelibkey=row.imagelibkey,
        keys=tuple(key.strip() for key in (row.key_paths or "").split(",") if key.strip()),
        sshport=row.sshport,
        publicIPconfiguration=row.publicIPconfiguration,
        publicSubnetMask=row.publicSubnetMask,
        publicDefaultGateway=row.publicDefaultGateway,
        publicDNSserver=row.publicDNSserver,
        sysadminEmailAddress=row.sysadminEmailAddress,
        sharedMailBox=row.sharedMailBox,
        not_standalone=tuple(separated.split()),
    )


def beat(connection: Connection, managementnodeid: int, daemon: str) -> bool:
    """Write the heartbeat. False when another daemon acts for the node: stop at once."""
    ours = sa.exists().where(Daemon.managementnodeid == managementnodeid, Daemon.daemon == daemon)
    done = connection.execute(
        sa.update(ManagementNode)
        .where(ManagementNode.id == managementnodeid, ours)
        .values(lastcheckin=site_now())
    )
    return done.rowcount == 1


def silent_seconds(connection: Connection, managementnodeid: int) -> int:
    """How old the node's heartbeat is, by the database's clock."""
    return connection.scalar(_silent_seconds(), {"of_node": managementnodeid}) or 0


@functools.cache
def _silent_seconds() -> sa.Select[int]:
    return sa.select(site_age(ManagementNode.lastcheckin)).where(
        ManagementNode.id == sa.bindparam("of_node")
    )


def find_daemon(connection: Connection, managementnodeid: int) -> DaemonRow | None:
    """The daemon row of a node, locked until the end of the transaction."""
    row = connection.execute(
        sa.select(
            Daemon,
            site_age(ManagementNode.lastcheckin).label("silent"),
        )
        .join(ManagementNode, ManagementNode.id == Daemon.managementnodeid)
        .where(Daemon.managementnodeid == managementnodeid)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return None
    return DaemonRow(
        identity=Identity(
            daemon=row.daemon,
            hostname=row.hostname,
            kernel_boot=row.kernel_boot,
            process=ProcessId(row.pid, row.pid_started),
            version=row.version,
        ),
        silent_seconds=row.silent,
        stopped=row.stopped_at is not None,
    )


def become_daemon(
    connection: Connection, managementnodeid: int, identity: Identity, old: DaemonRow | None
) -> bool:
    """Take the node's place from ``old``. False when somebody was faster."""
    values: dict[str, object] = {
        "daemon": identity.daemon,
        "hostname": identity.hostname,
        "kernel_boot": identity.kernel_boot,
        "pid": identity.process.pid,
        "pid_started": identity.process.started,
        "started_at": utc_now(),
        "stopped_at": None,
        "version": identity.version,
    }
    if old is None:
        try:
            connection.execute(
                sa.insert(Daemon).values(managementnodeid=managementnodeid, **values)
            )
        except IntegrityError:
            return False
    else:
        done = connection.execute(
            sa.update(Daemon)
            .where(
                Daemon.managementnodeid == managementnodeid,
                Daemon.daemon == old.identity.daemon,
            )
            .values(**values)
        )
        if done.rowcount != 1:
            return False
    return beat(connection, managementnodeid, identity.daemon)


def resign(connection: Connection, managementnodeid: int, daemon: str) -> None:
    """Note a clean stop, so that nobody takes over for a planned restart."""
    connection.execute(
        sa.update(Daemon)
        .where(Daemon.managementnodeid == managementnodeid, Daemon.daemon == daemon)
        .values(stopped_at=utc_now())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentNode:
    """A node whose vcld has been silent for too long without a clean stop."""

    id: int
    hostname: str
    #: Its reservations on computers that this node may manage.
    reservations: int


def silent_nodes(
    connection: Connection, managementnodeid: int, after_seconds: float
) -> list[SilentNode]:
    """What there is to take over, and from whom."""
    silent = silent_nodes_query(managementnodeid, after_seconds).subquery()
    ours = Reservation.computerid.in_(manageable(managementnodeid))
    query = (
        sa.select(silent.c.id, silent.c.hostname, sa.func.count(Reservation.id))
        .join(
            Reservation,
            sa.and_(Reservation.managementnodeid == silent.c.id, ours),
            isouter=True,
        )
        .group_by(silent.c.id, silent.c.hostname)
        .order_by(silent.c.id)
    )
    return [
        SilentNode(id=id_, hostname=hostname, reservations=count)
        for id_, hostname, count in connection.execute(query)
    ]


def silent_nodes_query(managementnodeid: int, after_seconds: float) -> sa.Select[int, str]:
    """Ids and names of nodes that are silent; to be part of a look."""
    other = aliased(ManagementNode)
    return (
        sa.select(other.id, other.hostname)
        .join(Daemon, Daemon.managementnodeid == other.id)
        .where(
            other.id != managementnodeid,
            Daemon.stopped_at.is_(None),
            site_age(other.lastcheckin) > int(after_seconds),
        )
    )


def take_over(connection: Connection, managementnodeid: int, silent: int, daemon: str) -> int:
    """Move a silent node's reservations here, as far as this node may manage the computers.

    The silent daemon is fenced off first: its row gets our identity, so that its next
    heartbeat fails, and the claims it held become ours with new tokens to be drawn. What we
    may not manage stays for other nodes: they find it silent still.

    Returns:
        The number of reservations moved.
    """
    fenced = connection.execute(
        sa.update(Daemon)
        .where(Daemon.managementnodeid == silent, Daemon.stopped_at.is_(None))
        .values(daemon=daemon)
    )
    if fenced.rowcount != 1:
        return 0
    ours = manageable(managementnodeid)
    moved = connection.scalars(
        sa.select(Reservation.id)
        .where(Reservation.managementnodeid == silent, Reservation.computerid.in_(ours))
        .with_for_update()
    ).all()
    if moved:
        connection.execute(
            sa.update(Reservation)
            .where(Reservation.id.in_(moved))
            .values(managementnodeid=managementnodeid)
        )
        connection.execute(
            sa.update(Claim)
            .where(Claim.reservationid.in_(moved))
            .values(managementnodeid=managementnodeid)
        )
    return len(moved)


def manageable(managementnodeid: int) -> sa.Select[int]:
    """Ids of the computers that the site's resource groups let the node manage."""
    mapped = mapping("managementnode", "computer")
    return sa.select(mapped.c.second).where(mapped.c.first == managementnodeid)
