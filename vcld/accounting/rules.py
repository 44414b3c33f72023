"""What must hold in the accounting tables, each rule as a query for the rows that break it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from vcld.accounting.codes import ENDED, FIRST_REBUILT, VmState
from vcld.accounting.rowrules import ROW_RULES, SHARE_RULES
from vcld.accounting.rule import Query, Rule
from vcld.accounting.sqlfacts import latest
from vcld.accounting.tables import HISTORY_TIMES, ORDER_OF_TIMES, Tables
from vcld.schema.models import Request, Reservation

#: Rows that were written this close to a host's update may or may not be counted in it.
SETTLE_SECONDS = 5


def _stays(tables: Tables, *more: sa.ColumnElement[Any]) -> Query:
    return sa.select(tables.history.c.vid, tables.history.c.seq, *more)


def _last_stays(tables: Tables, *more: sa.ColumnElement[Any]) -> Query:
    vm, stay = tables.vm_pool.c, tables.history.c
    return _stays(tables, *more).join(
        tables.vm_pool, sa.and_(vm.oid == stay.vid, vm.last_seq == stay.seq)
    )


def _ownerless(t: Tables) -> Query:
    joined = _stays(t).join(t.vm_pool, t.vm_pool.c.oid == t.history.c.vid, isouter=True)
    return joined.where(t.vm_pool.c.oid.is_(None))


def _open_before_last(t: Tables) -> Query:
    joined = _stays(t, t.vm_pool.c.last_seq).join(t.vm_pool, t.vm_pool.c.oid == t.history.c.vid)
    return joined.where(t.history.c.etime == 0, t.history.c.seq < t.vm_pool.c.last_seq)


def _counts(t: Tables) -> Any:
    stay = t.history.c
    return (
        sa.select(
            stay.vid,
            sa.func.count().label("stays"),
            sa.func.min(stay.seq).label("first"),
            sa.func.max(stay.seq).label("last"),
        )
        .group_by(stay.vid)
        .subquery("counts")
    )


def _gaps(t: Tables) -> Query:
    counts = _counts(t)
    return sa.select(
        counts.c.vid.label("oid"), counts.c.stays, counts.c.first, counts.c.last
    ).where(sa.or_(counts.c.first != 0, counts.c.stays != counts.c.last + 1))


def _wrong_last_seq(t: Tables) -> Query:
    counts = _counts(t)
    found = sa.func.coalesce(counts.c.last, -1)
    return (
        sa.select(t.vm_pool.c.oid, t.vm_pool.c.last_seq, found.label("found"))
        .join(counts, counts.c.vid == t.vm_pool.c.oid, isouter=True)
        .where(t.vm_pool.c.last_seq != found)
    )


def _wrong_vm_end(t: Tables) -> Query:
    vm = t.vm_pool.c
    ended = vm.state.in_(map(int, ENDED))
    wrong = sa.or_(sa.and_(ended, vm.etime <= 0), sa.and_(sa.not_(ended), vm.etime != 0))
    return sa.select(vm.oid, vm.state, vm.etime).where(wrong)


def _done_but_open(t: Tables) -> Query:
    ended = t.vm_pool.c.state.in_(map(int, ENDED))
    return _last_stays(t).where(ended, t.history.c.etime == 0)


def _active_but_stopped(t: Tables) -> Query:
    stopped = sa.or_(t.history.c.retime != 0, t.history.c.etime != 0)
    return _last_stays(t).where(t.vm_pool.c.state == int(VmState.ACTIVE), stopped)


def _active_without_stay(t: Tables) -> Query:
    vm = t.vm_pool.c
    return sa.select(vm.oid).where(vm.state == int(VmState.ACTIVE), vm.last_seq < 0)


def _idle_but_open(t: Tables) -> Query:
    idle = t.vm_pool.c.state.not_in([int(VmState.ACTIVE), *map(int, ENDED)])
    return _last_stays(t, t.vm_pool.c.state).where(idle, t.history.c.etime == 0)


def _never_stopped_running(t: Tables) -> Query:
    stay = t.history.c
    return _stays(t).where(stay.etime > 0, stay.rstime > 0, stay.retime == 0)


def _disordered(t: Tables) -> Query:
    columns = [t.history.c[name] for name in ORDER_OF_TIMES]
    earlier = [columns[0]] + [latest(*columns[:end]) for end in range(2, len(columns))]
    wrong = [
        sa.and_(column > 0, column < before)
        for column, before in zip(columns[1:], earlier, strict=True)
    ]
    return _stays(t, *columns).where(sa.or_(*wrong))


def _ran_unloaded(t: Tables) -> Query:
    stay = t.history.c
    return _stays(t).where(stay.rstime > 0, stay.pstime > 0, stay.petime == 0)


def _impossible_times(t: Tables) -> Query:
    negative = sa.or_(*(t.history.c[name] < 0 for name in HISTORY_TIMES))
    return _stays(t).where(sa.or_(negative, t.history.c.stime == 0))


def _overlapping(t: Tables) -> Query:
    earlier, later = t.history, t.history.alias("later")
    return (
        sa.select(later.c.vid, later.c.seq)
        .join(earlier, sa.and_(earlier.c.vid == later.c.vid, earlier.c.seq == later.c.seq - 1))
        .where(later.c.seq > 0, earlier.c.etime > later.c.stime)
    )


def _hostless(t: Tables) -> Query:
    joined = _stays(t, t.history.c.hid, t.history.c.host_name).join(
        t.host_pool, t.host_pool.c.oid == t.history.c.hid, isouter=True
    )
    return joined.where(t.host_pool.c.oid.is_(None))


def _wrong_share(t: Tables) -> Query:
    stay, at = t.history.c, t.host_pool.c.last_mon_time
    since = sa.or_(stay.etime == 0, stay.etime > at + SETTLE_SECONDS)
    surely = sa.and_(stay.stime < at - SETTLE_SECONDS, since)
    until = sa.or_(stay.etime == 0, stay.etime >= at - SETTLE_SECONDS)
    perhaps = sa.and_(stay.stime <= at + SETTLE_SECONDS, until)
    low = sa.func.sum(sa.case((surely, 1), else_=0))
    high = sa.func.sum(sa.case((perhaps, 1), else_=0))
    running = t.host_shares.c.running_vms
    return (
        sa.select(t.host_shares.c.hid, running, high.label("open"))
        .join(t.host_pool, t.host_pool.c.oid == t.host_shares.c.hid)
        .join(t.history, stay.hid == t.host_shares.c.hid, isouter=True)
        .where(at > 0)
        .group_by(t.host_shares.c.hid, running)
        .having(sa.or_(running < low, running > high))
    )


def _shareless(t: Tables) -> Query:
    joined = sa.select(t.host_pool.c.oid).join(
        t.host_shares, t.host_shares.c.hid == t.host_pool.c.oid, isouter=True
    )
    return joined.where(t.host_shares.c.hid.is_(None))


def _nameless_owner(t: Tables) -> Query:
    joined = sa.select(t.vm_pool.c.oid, t.vm_pool.c.uid).join(
        t.user_pool, t.user_pool.c.oid == t.vm_pool.c.uid, isouter=True
    )
    return joined.where(t.user_pool.c.oid.is_(None))


def _unsafe_name(t: Tables) -> Query:
    name = t.vm_pool.c.name
    # An & is only right at the beginning of an entity; what remains without those is raw.
    rest: sa.ColumnElement[str] = name
    for entity in ("&amp;", "&lt;", "&gt;", "&quot;", "&apos;"):
        rest = sa.func.replace(rest, entity, "")
    return sa.select(t.vm_pool.c.oid, name).where(
        sa.or_(name.contains("<"), rest.contains("&")),
    )


def vanished(t: Tables) -> Query:
    """VMs that have not ended although their reservation is gone."""
    vm, reservation = t.vm_pool.c, aliased(Reservation)
    return (
        sa.select(vm.oid, vm.state)
        .join(reservation, reservation.id == vm.oid, isouter=True)
        .where(vm.state.not_in(map(int, ENDED)), vm.oid < FIRST_REBUILT, reservation.id.is_(None))
    )


def _given_twice(t: Tables) -> Query:
    """Reservations whose id is that of an ended VM of an earlier request."""
    vm = t.vm_pool.c
    of_request = sa.literal("<LOG_ID>") + sa.cast(Request.logid, sa.String(20)) + "</LOG_ID>"
    return (
        sa.select(vm.oid, Reservation.requestid)
        .join(Reservation, Reservation.id == vm.oid)
        .join(Request, Request.id == Reservation.requestid)
        .where(
            vm.state.in_(map(int, ENDED)),
            vm.template.contains("<LOG_ID>"),
            sa.func.instr(vm.template, of_request) == 0,
        )
    )


RULES: tuple[Rule, ...] = (
    # First, because others go by it.
    Rule(
        "last-seq", "last_seq is {last_seq}, its last stay is {found}", "vm_pool", _wrong_last_seq
    ),
    Rule("stay-without-vm", "vm_pool has no VM {vid}", "history", _ownerless),
    Rule(
        "open-before-last",
        "etime is 0 although stay {last_seq} follows",
        "history",
        _open_before_last,
    ),
    Rule(
        "gap-in-stays",
        "it has {stays} stays, numbered {first} to {last}, not from 0 on without a gap",
        "vm_pool",
        _gaps,
    ),
    Rule("vm-etime", "etime is {etime}, but its state is {state}", "vm_pool", _wrong_vm_end),
    Rule("ended-but-open", "the VM has ended, but etime is 0", "history", _done_but_open),
    Rule(
        "active-but-stopped",
        "the VM is ACTIVE, but this last stay has ended",
        "history",
        _active_but_stopped,
    ),
    Rule("active-without-stay", "the VM is ACTIVE without a stay", "vm_pool", _active_without_stay),
    Rule("idle-but-open", "the VM is in state {state}, but etime is 0", "history", _idle_but_open),
    Rule(
        "run-without-end",
        "it has ended and did run, but retime is 0",
        "history",
        _never_stopped_running,
    ),
    Rule("order-of-times", "the times are not in order", "history", _disordered),
    Rule("run-without-load", "it runs although its load did not end", "history", _ran_unloaded),
    Rule("time", "a time is negative, or stime is not set", "history", _impossible_times),
    Rule("overlap", "it begins before the stay before it has ended", "history", _overlapping),
    Rule("host", "host_pool has no host {hid} ({host_name})", "history", _hostless),
    Rule("owner", "user_pool has no user {uid}", "vm_pool", _nameless_owner),
    Rule("name", "the name has a raw & or <: {name}", "vm_pool", _unsafe_name),
    Rule(
        "vanished",
        "its reservation is gone, but the VM is in state {state}",
        "vm_pool",
        vanished,
    ),
    Rule(
        "id-given-twice",
        "the VM of an earlier request has this id, so request {requestid} is not accounted",
        "vm_pool",
        _given_twice,
    ),
    *ROW_RULES,
    # Last, because mending the others changes what is open.
    Rule("share", "the host has no share", "host_pool", _shareless),
    Rule(
        "running-vms",
        "running_vms was {running_vms}, but {open} stays were open",
        "host_shares",
        _wrong_share,
    ),
    *SHARE_RULES,
)
