"""Our own tables, beside VCL's: who works on what, and which daemons there are.

Times are UTC by the database's clock. No foreign keys to VCL's tables: a claim must
outlive the reservation that the web site deletes while a worker still holds it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Table
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class Claim(c.Base):
    """One row per reservation that a vcld works on, waits for, or will try again.

    The primary key is what makes a claim exclusive: two nodes that insert the same row, on
    different members of a Galera cluster even, cannot both commit.
    """

    __tablename__ = "vcld_claim"
    __table_args__ = (
        c.unique_key("exclusive_computerid", "exclusive_computerid"),
        c.key("managementnodeid", "managementnodeid"),
        c.key("requestid", "requestid"),
    )
    reservationid: Mapped[int] = mapped_column(
        c.mediumint(8), primary_key=True, autoincrement=False
    )
    requestid: Mapped[int] = mapped_column(c.mediumint(8))
    managementnodeid: Mapped[int] = mapped_column(c.smallint(5))
    computerid: Mapped[int] = mapped_column(c.smallint(5))
    #: The pair of request states found when it was claimed, by name.
    state: Mapped[str] = mapped_column(c.varchar(20))
    laststate: Mapped[str] = mapped_column(c.varchar(20))
    #: running: a worker has it; waiting: to be woken at ``next_at`` or by the event
    #: ``wake_on``; retry: a worker died or failed for a while, next attempt at ``next_at``.
    phase: Mapped[str] = mapped_column(c.varchar(8))
    #: Identity of the daemon that claimed it (see Daemon.daemon).
    daemon: Mapped[str] = mapped_column(c.varchar(32))
    #: Fencing: drawn anew with each claim; a worker's writes count only while it matches.
    token: Mapped[int] = mapped_column(c.integer(10))
    pid: Mapped[int | None] = mapped_column(c.integer(10))
    #: Start of that process in clock ticks since boot.
    pid_started: Mapped[int | None] = mapped_column(BigInteger())
    #: Set while the worker alone may change the computer.
    exclusive_computerid: Mapped[int | None] = mapped_column(c.smallint(5))
    #: Set by somebody who takes the computer over: stop and let go.
    revoked: Mapped[int] = mapped_column(c.tinyint(1), server_default="0")
    attempts: Mapped[int] = mapped_column(c.tinyint(3), server_default="0")
    claimed_at: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
    next_at: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    wake_on: Mapped[str | None] = mapped_column(c.varchar(20))
    #: JSON that a handler leaves for its next run.
    memo: Mapped[str | None] = mapped_column(c.text())
    #: Why it waits or failed, for ``vcld explain``.
    reason: Mapped[str | None] = mapped_column(c.varchar(255))


class Daemon(c.Base):
    """The daemon that acts for a management node. Its heartbeat is managementnode.lastcheckin."""

    __tablename__ = "vcld_daemon"
    managementnodeid: Mapped[int] = mapped_column(
        c.smallint(5), primary_key=True, autoincrement=False
    )
    #: Random identity of one run of the daemon; whoever does not find its own is fenced off.
    daemon: Mapped[str] = mapped_column(c.varchar(32))
    hostname: Mapped[str] = mapped_column(c.varchar(255))
    kernel_boot: Mapped[str] = mapped_column(c.varchar(36))
    pid: Mapped[int] = mapped_column(c.integer(10))
    pid_started: Mapped[int] = mapped_column(BigInteger())
    started_at: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
    #: Set at a clean stop: nobody needs to take over.
    stopped_at: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    version: Mapped[str] = mapped_column(c.varchar(20))


class LoadDuration(c.Base):
    """How long a load step took here, smoothed over loads of one image on one kind of computer."""

    __tablename__ = "vcld_load_duration"
    imageid: Mapped[int] = mapped_column(c.smallint(5), primary_key=True, autoincrement=False)
    #: provisioning.name
    provisioning: Mapped[str] = mapped_column(c.varchar(30), primary_key=True)
    loadstatename: Mapped[str] = mapped_column(c.varchar(24), primary_key=True)
    samples: Mapped[int] = mapped_column(c.integer(10))
    milliseconds: Mapped[int] = mapped_column(c.integer(10))


class Notice(c.Base):
    """A notice that a request's user has been given, so that it is not given again."""

    __tablename__ = "vcld_notice"
    requestid: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(c.varchar(64), primary_key=True)


class HostKey(c.Base):
    """The SSH host key that a computer was loaded with, or that a NAT host showed first."""

    __tablename__ = "vcld_host_key"
    #: ``computer 12``, or ``nathost 3`` for a NAT host that is a management node.
    holder: Mapped[str] = mapped_column(c.varchar(32), primary_key=True)
    #: Type and base64, as in known_hosts. Not ``key``, which is a word of SQL.
    hostkey: Mapped[str] = mapped_column(c.text())
    learned_at: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)


class Lease(c.Base):
    """A right that a worker holds, or waits for, until it expires; or space that is promised.

    A lease with a ``slot`` is held; the unique key lets each slot have one holder, whatever
    node inserts it. Rows without one wait in line, or promise ``amount`` bytes.
    """

    __tablename__ = "vcld_lease"
    __table_args__ = (
        c.unique_key("name_slot", "name", "slot"),
        c.key("reservationid", "reservationid"),
    )
    #: What it is a right to, such as ``copies:URL of a datastore``.
    name: Mapped[str] = mapped_column(c.varchar(190), primary_key=True)
    #: Random identity of one holder; a renewal counts only while the row holds it.
    token: Mapped[int] = mapped_column(c.integer(10), primary_key=True, autoincrement=False)
    slot: Mapped[int | None] = mapped_column(c.smallint(5))
    amount: Mapped[int] = mapped_column(BigInteger(), server_default="0")
    #: Smaller ones go first.
    urgency: Mapped[int] = mapped_column(c.tinyint(3), server_default="0")
    reservationid: Mapped[int] = mapped_column(c.mediumint(8))
    #: Order of arrival, in microseconds of the holder's clock since 1970.
    since: Mapped[int] = mapped_column(BigInteger())
    expires_at: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)


OWN_TABLES: tuple[Table, ...] = tuple(
    c.Base.metadata.tables[model.__tablename__]
    for model in (Claim, Daemon, LoadDuration, Notice, HostKey, Lease)
)
