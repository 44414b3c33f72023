"""Workers that keep no claim, a Perl daemon's: by what signs they are known to be at work.

A vcld says with a claim who works on a reservation. A Perl daemon says it with the title of a
process, which only its own machine shows, and with rows of the load log (VCL daemon
specification §2.4). Everybody who would start a second worker asks here first.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import processes
from vcld.schema.models import ManagementNode, Reservation
from vcld.schema.own import Claim, Daemon
from vcld.schema.sqltime import seconds_between, site_now
from vcld.store import loadlog

#: A load log that was silent for so long does not move any more; likewise a heartbeat.
SILENT_SECONDS = 60
#: Work that may go on for hours without a row in the load log.
_CAPTURES = frozenset({"image", "checkpoint"})


#: The name of the Perl daemon's processes when no configuration says otherwise.
PERL = "vcld"


@dataclass(frozen=True, slots=True)
class Here:
    """Where the question is asked."""

    #: The management node whose processes this machine shows; None: not known.
    node: str | None = None
    #: Key ``processname``, with which the titles of its workers begin.
    processname: str = PERL


ANYWHERE = Here()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A worker without a claim that has a reservation, or of which nobody here can know."""

    reservationid: int
    #: On this machine; None: somewhere else.
    pid: int | None
    #: A sentence without its full stop: by what it is known.
    sign: str
    #: What to do before the request may be worked on by anybody else.
    remedy: str


def is_worked_on(connection: Connection, requestid: int, reservationid: int, here: Here) -> bool:
    """True while a worker without a claim is at it, here or where only its log is seen."""
    found = _process(requestid, reservationid, here) or _moving(connection, reservationid)
    return found is not None


def find(connection: Connection, requestid: int, working_on: str, here: Here) -> Stranger | None:
    """The first worker without a claim that has, or may have, a reservation of the request.

    ``working_on`` is the state that such a worker would be at.
    """
    for row in connection.execute(_unclaimed(), {"of_request": requestid}):
        stranger = (
            _process(requestid, row.id, here)
            or _moving(connection, row.id)
            or _unseen(requestid, row, working_on, here)
        )
        if stranger is not None:
            return stranger
    return None


def _process(requestid: int, reservationid: int, here: Here) -> Stranger | None:
    starts = tuple(f"{name} '|" for name in {here.processname, PERL})
    part = f"|{requestid}|{reservationid}|"
    for pid, title in processes.titles():
        if title.startswith(starts) and part in title:
            return Stranger(
                reservationid=reservationid,
                pid=pid,
                sign=f"process {pid} on this machine has it, by its title, without a claim of vcld",
                remedy=f"wait for its end, or kill {pid}",
            )
    return None


def _moving(connection: Connection, reservationid: int) -> Stranger | None:
    entries = loadlog.read(connection, [reservationid])
    if not entries or entries[-1].name == "exited":  # the last word of every worker
        return None
    newest = entries[-1]
    if newest.age_seconds >= SILENT_SECONDS:
        return None
    return Stranger(
        reservationid=reservationid,
        pid=None,
        sign=f"a worker without a claim of vcld has it: its load log moved"
        f" {newest.age_seconds} s ago ({newest.name})",
        remedy=f"wait until the log has been silent for {SILENT_SECONDS} s",
    )


def _unseen(
    requestid: int, row: sa.Row[int, str, int | None, bool], working_on: str, here: Here
) -> Stranger | None:
    """Silence proves nothing where somebody waits for a user, or captures a disk."""
    if row.hostname is None or here.node is None or row.hostname == here.node:
        return None
    served_by_other = not row.has_vcld and (row.silent is not None and row.silent < SILENT_SECONDS)
    if not served_by_other and working_on not in _CAPTURES:
        return None
    whose = "by a daemon that is no vcld" if served_by_other else "elsewhere"
    return Stranger(
        reservationid=row.id,
        pid=None,
        sign=f"{row.hostname} is served {whose}; whether a worker there has it cannot be seen"
        " from here",
        remedy=f"on {row.hostname} look for a process whose title holds"
        f" |{requestid}|{row.id}|; if there is none, set request.stateid by hand",
    )


def _unclaimed() -> sa.Select[int, str, int | None, bool]:
    """Reservations of a request without a claim, and who serves their nodes."""
    return (
        sa.select(
            Reservation.id,
            ManagementNode.hostname,
            seconds_between(ManagementNode.lastcheckin, site_now()).label("silent"),
            sa.and_(Daemon.daemon.is_not(None), Daemon.stopped_at.is_(None)).label("has_vcld"),
        )
        .join(ManagementNode, ManagementNode.id == Reservation.managementnodeid, isouter=True)
        .join(Daemon, Daemon.managementnodeid == Reservation.managementnodeid, isouter=True)
        .join(Claim, Claim.reservationid == Reservation.id, isouter=True)
        .where(Reservation.requestid == sa.bindparam("of_request"), Claim.reservationid.is_(None))
        .order_by(Reservation.id)
    )
