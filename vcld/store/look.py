"""The supervisor's look: one query that returns only what must be acted on now.

It costs the same with 50 or 50,000 requests that sleep: every branch starts from an index
on the few rows that can matter. The branches find candidates; ``vcld.schedule.decide``
has the last word on each.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from vcld import schedule
from vcld.schema.models import (
    ChangeLog,
    ManagementNode,
    Request,
    Reservation,
    ServerRequest,
    State,
    Variable,
)
from vcld.schema.own import Claim, Daemon
from vcld.schema.sqltime import after_site_now, site_now, utc_now
from vcld.store import blocks, nodes
from vcld.store.catalog import Catalog
from vcld.store.findings import Finding, Found, Look

#: What a claim holds whose computer has no row.
NO_COMPUTER = 0
#: Silence after which a node counts as dead where the configuration names none.
DEAD_AFTER_SECONDS = 300
#: Below the number of running claims, in the one number that the query returns for both.
FLAGS = 16


class Looker:
    """Builds the query for one management node once and runs it often."""

    def __init__(
        self,
        catalog: Catalog,
        managementnodeid: int,
        daemon: str,
        *,
        silent_after_seconds: float | None = None,
        dead_after_seconds: float = DEAD_AFTER_SECONDS,
    ) -> None:
        """``silent_after_seconds``: when work of other nodes is to be taken over; None: never.

        ``dead_after_seconds``: when what was moved here by hand has no worker there any more.
        """
        self._catalog = catalog
        self._node = managementnodeid
        self._daemon = daemon
        self._silent_after_seconds = silent_after_seconds
        self._dead_after_seconds = dead_after_seconds
        self._query = self._build()

    def look(self, connection: Connection, *, limit: int) -> Look:
        """Look once. ``limit`` bounds the reservations returned, most urgent first."""
        result = connection.execute(self._query, {"row_limit": limit + 1})
        # A union of a sum with plain columns comes back as DECIMAL.
        rows = [(Finding(int(a)), int(b), int(c)) for a, b, c in result]
        if not rows or rows[0][0] is not Finding.NODE:
            return Look(
                checkininterval_seconds=12,
                is_ours=False,
                messages_need_validating=False,
                blocks_due=False,
                nodes_silent=False,
                running_claims=0,
                found=(),
            )
        _, interval_seconds, flags = rows[0]
        return Look(
            checkininterval_seconds=interval_seconds,
            is_ours=bool(flags & 1),
            messages_need_validating=bool(flags & 2),
            blocks_due=bool(flags & 4),
            nodes_silent=bool(flags & 8),
            running_claims=flags // FLAGS,
            found=tuple(Found(*row) for row in rows[1:]),
        )

    def _build(self) -> sa.Select[int, int, int]:
        found = sa.union_all(
            self._node_row(),
            *self._claims(),
            self._moved(),
            self._starting(schedule.LOAD_STATES & {"new"}, Finding.USER),
            self._starting(schedule.BACKGROUND_STATES, Finding.BACKGROUND),
            self._preloading(),
            self._immediate(),
            self._ending(),
            self._polling(),
            *self._finished(),
            self._unknown(),
            self._stray(),
        ).subquery("found")
        return (
            sa.select(found.c.finding, found.c.requestid, found.c.reservationid)
            .order_by(found.c.finding, found.c.requestid, found.c.reservationid)
            .limit(sa.bindparam("row_limit", type_=sa.Integer()))
        )

    def _node_row(self) -> sa.Select[int, int, int]:
        ours = sa.exists().where(
            Daemon.managementnodeid == self._node, Daemon.daemon == self._daemon
        )
        message = sa.exists().where(Variable.name == "usermessage_needs_validating")
        flags = (
            sa.case((ours, 1), else_=0)
            + sa.case((message, 2), else_=0)
            + sa.case((blocks.is_due(self._node), 4), else_=0)
            + FLAGS * self._running_claims()
        )
        if self._silent_after_seconds is not None:
            silent = nodes.silent_nodes_query(self._node, self._silent_after_seconds).exists()
            flags += sa.case((silent, 8), else_=0)
        return sa.select(
            sa.literal_column(str(int(Finding.NODE))).label("finding"),
            ManagementNode.checkininterval.label("requestid"),
            flags.label("reservationid"),
        ).where(ManagementNode.id == self._node)

    def _running_claims(self) -> sa.ScalarSelect[int]:
        return (
            sa.select(sa.func.count())
            .where(Claim.managementnodeid == self._node, Claim.phase == "running")
            .scalar_subquery()
        )

    def _claims(self) -> list[sa.Select[int, int, int]]:
        now, last = aliased(State), aliased(State)
        untouched = sa.and_(
            sa.or_(
                sa.and_(now.name == "pending", last.name == Claim.state),
                sa.and_(now.name == Claim.state, last.name == Claim.laststate),
            ),
            Claim.computerid.in_((Reservation.computerid, NO_COMPUTER)),
        )
        acknowledged = sa.and_(
            Claim.wake_on == "acknowledge",
            Reservation.remoteIP.is_not(None),
            Reservation.remoteIP != "",
        )
        joined = (
            sa.join(Claim, Reservation, Reservation.id == Claim.reservationid, isouter=True)
            .join(Request, Request.id == Reservation.requestid, isouter=True)
            .join(now, now.id == Request.stateid, isouter=True)
            .join(last, last.id == Request.laststateid, isouter=True)
        )
        running, resting = Claim.phase == "running", Claim.phase != "running"
        gone = Request.id.is_(None)  # or the reservation, and with it the request
        ours = Reservation.managementnodeid == self._node  # else another node takes it up
        due = Claim.next_at <= utc_now()
        rules = (
            (Finding.CHANGED, running, sa.or_(gone, sa.not_(untouched), Claim.revoked == 1)),
            (Finding.GONE, resting, gone),
            (
                Finding.WAKE,
                resting,
                sa.and_(sa.not_(gone), ours, sa.or_(due, acknowledged, sa.not_(untouched))),
            ),
        )
        return [
            sa.select(
                sa.literal_column(str(int(finding))).label("finding"),
                Claim.requestid,
                Claim.reservationid,
            )
            .select_from(joined)
            .where(Claim.managementnodeid == self._node, phase, condition)
            for finding, phase, condition in rules
        ]

    def _moved(self) -> sa.Select[int, int, int]:
        """Reservations that were given to this node while another one held a claim on them.

        One that a worker holds is that worker's, unless its node has died.
        """
        dead = nodes.silent_nodes_query(self._node, self._dead_after_seconds).subquery()
        is_dead = Claim.managementnodeid.in_(sa.select(dead.c.id))
        return (
            sa.select(
                sa.literal_column(str(int(Finding.MOVED))).label("finding"),
                Claim.requestid,
                Claim.reservationid,
            )
            .join(Reservation, Reservation.id == Claim.reservationid)
            .where(
                Claim.managementnodeid != self._node,
                Reservation.managementnodeid == self._node,
                sa.or_(Claim.phase != "running", is_dead),
            )
        )

    def _requests(
        self, finding: Finding, *conditions: ColumnElement[bool]
    ) -> sa.Select[int, int, int]:
        """Reservations of this node whose request meets the conditions and nobody holds."""
        return (
            sa.select(
                sa.literal_column(str(int(finding))).label("finding"),
                Request.id.label("requestid"),
                Reservation.id.label("reservationid"),
            )
            .select_from(Request)
            .join(Reservation, Reservation.requestid == Request.id)
            .join(Claim, Claim.reservationid == Reservation.id, isouter=True)
            .where(
                Reservation.managementnodeid == self._node,
                Claim.reservationid.is_(None),
                *conditions,
            )
        )

    def _in(self, names: frozenset[str]) -> ColumnElement[bool]:
        return Request.stateid.in_(self._catalog.states(sorted(names)))

    def _starting(self, names: frozenset[str], finding: Finding) -> sa.Select[int, int, int]:
        due = Request.start < after_site_now(schedule.START_AHEAD_SECONDS)
        return self._requests(finding, self._in(names), due)

    def _preloading(self) -> sa.Select[int, int, int]:
        return self._requests(
            Finding.BACKGROUND,
            self._in(schedule.LOAD_STATES),
            Request.preload == 0,
            Request.start >= after_site_now(schedule.PRELOAD_FROM_SECONDS),
            Request.start < after_site_now(schedule.PRELOAD_TO_SECONDS),
        )

    def _immediate(self) -> sa.Select[int, int, int]:
        return self._requests(Finding.USER, self._in(schedule.IMMEDIATE_STATES))

    def _ending(self) -> sa.Select[int, int, int]:
        soon = Request.end < after_site_now(schedule.END_AHEAD_SECONDS)
        return self._requests(Finding.SESSION, self._in(schedule.SESSION_STATES), soon)

    def _polling(self) -> sa.Select[int, int, int]:
        newest_change = (
            sa.select(sa.func.max(ChangeLog.timestamp))
            .where(ChangeLog.logid == Request.logid, ChangeLog.remoteIP.is_not(None))
            .correlate(Request)
            .scalar_subquery()
        )
        is_server = sa.exists().where(ServerRequest.requestid == Request.id)
        other = aliased(Reservation)
        is_cluster = sa.exists().where(other.requestid == Request.id, other.id != Reservation.id)
        age = sa.case(
            (is_server, self._age("server_inuse_check")),
            (is_cluster, self._age("cluster_inuse_check")),
            else_=self._age("general_inuse_check"),
        )
        return self._requests(
            Finding.SESSION,
            self._in(schedule.SESSION_STATES),
            Request.end >= after_site_now(schedule.END_AHEAD_SECONDS),
            sa.or_(
                Reservation.lastcheck.is_(None),
                Reservation.lastcheck <= after_site_now(-age),
                sa.and_(Reservation.lastcheck < newest_change, newest_change <= site_now()),
            ),
        )

    def _age(self, name: str) -> int:
        return schedule.check_age_seconds(self._catalog.timing(name))

    def _finished(self) -> list[sa.Select[int, int, int]]:
        at_once = self._catalog.states(sorted(schedule.REMOVED_AT_ONCE))
        past = Request.end <= after_site_now(-schedule.REMOVE_AFTER_SECONDS)
        finished = self._in(schedule.FINISHED_STATES)
        return [
            self._requests(Finding.FINISHED, finished, Request.laststateid.in_(at_once)),
            self._requests(Finding.FINISHED, finished, past, Request.laststateid.not_in(at_once)),
        ]

    def _unknown(self) -> sa.Select[int, int, int]:
        names = frozenset(self._catalog.state_ids) - schedule.KNOWN_STATES
        return self._requests(Finding.UNKNOWN, self._in(names))

    def _stray(self) -> sa.Select[int, int, int]:
        """Pending requests of which no node holds a claim and whose parent is ours."""
        other = aliased(Reservation)
        claim = aliased(Claim)
        lower = sa.exists().where(other.requestid == Request.id, other.id < Reservation.id)
        held = sa.exists().where(claim.requestid == Request.id)
        pending = self._in(frozenset({"pending"}))
        return self._requests(Finding.STRAY, pending, sa.not_(lower), sa.not_(held))
