"""Mending what has one right answer; everything else is for a person to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.codes import ENDED, LcmState, Reason, VmState
from vcld.accounting.facts import HostFacts, full_name, plain_name, safe
from vcld.accounting.hosts import add_host
from vcld.accounting.shares import write_share
from vcld.accounting.sqlfacts import latest
from vcld.accounting.tables import Tables
from vcld.schema.models import Affiliation, User

Row = Any  # a RowMapping of the rule's query
#: Mends a row; False when it cannot after all.
Repair = Callable[[Connection, Tables, Row], bool]


def _close_before_next(connection: Connection, t: Tables, row: Row) -> bool:
    """A stay ends at the latest when the next one begins."""
    following = sa.select(t.history.c.stime).where(
        t.history.c.vid == row["vid"], t.history.c.seq == row["seq"] + 1
    )
    return _close(connection, t, row, connection.scalar(following))


def _close_with_vm(connection: Connection, t: Tables, row: Row) -> bool:
    end = sa.select(t.vm_pool.c.etime).where(t.vm_pool.c.oid == row["vid"])
    return _close(connection, t, row, connection.scalar(end))


def _close(connection: Connection, t: Tables, row: Row, end: int | None) -> bool:
    stay = t.history.c
    if not end:
        return False
    ran = sa.case((stay.estime > 0, stay.estime), else_=end)
    retime = sa.case((stay.rstime == 0, 0), (stay.retime > 0, stay.retime), else_=ran)
    petime = sa.case((stay.pstime == 0, 0), (stay.petime > 0, stay.petime), else_=ran)
    eetime = sa.case((stay.estime == 0, 0), (stay.eetime > 0, stay.eetime), else_=end)
    values = {"petime": petime, "retime": retime, "eetime": eetime, "etime": end}
    times = latest(stay.stime, stay.pstime, stay.petime, stay.rstime, stay.retime, stay.estime)
    done = connection.execute(
        sa.update(t.history)
        .where(stay.vid == row["vid"], stay.seq == row["seq"], stay.etime == 0, times <= end)
        .ordered_values(*((stay[name], value) for name, value in values.items()))
    )
    return done.rowcount == 1


def _set_last_seq(connection: Connection, t: Tables, row: Row) -> bool:
    vm = t.vm_pool
    connection.execute(sa.update(vm).where(vm.c.oid == row["oid"]).values(last_seq=row["found"]))
    return True


def _set_vm_end(connection: Connection, t: Tables, row: Row) -> bool:
    """A VM ended with its last stay, or when it was last heard of; one that lives has no end."""
    vm, stay = t.vm_pool, t.history.c
    end = 0
    if row["state"] in ENDED:
        last = sa.select(sa.func.max(stay.etime)).where(stay.vid == row["oid"])
        last_poll = sa.select(vm.c.last_poll).where(vm.c.oid == row["oid"])
        end = connection.scalar(last) or connection.scalar(last_poll) or 0
        if end <= 0:
            return False
    connection.execute(sa.update(vm).where(vm.c.oid == row["oid"]).values(etime=end))
    return True


def _end_running(connection: Connection, t: Tables, row: Row) -> bool:
    stay = t.history.c
    ran = sa.case((stay.estime > 0, stay.estime), else_=stay.etime)
    connection.execute(
        sa.update(t.history)
        .where(stay.vid == row["vid"], stay.seq == row["seq"])
        .values(retime=ran)
    )
    return True


def _add_host(connection: Connection, t: Tables, row: Row) -> bool:
    query = sa.select(t.history.c.vm_mad).where(
        t.history.c.vid == row["vid"], t.history.c.seq == row["seq"]
    )
    mad = connection.scalar(query) or ""
    add_host(connection, t, HostFacts(oid=row["hid"], hostname=row["host_name"], provisioning=mad))
    return True


def _add_share(connection: Connection, t: Tables, row: Row) -> bool:
    connection.execute(sa.insert(t.host_shares).values(hid=row["oid"]))
    write_share(connection, t, row["oid"])
    return True


def _count_share(connection: Connection, t: Tables, row: Row) -> bool:
    write_share(connection, t, row["hid"])
    return True


def _add_owner(connection: Connection, t: Tables, row: Row) -> bool:
    """VCL knows the name; of a user whose row is gone, the id is all that can be said."""
    known = sa.select(t.user_pool.c.oid).where(t.user_pool.c.oid == row["uid"])
    if connection.scalar(known) is not None:
        return True
    found = connection.execute(
        sa.select(User.unityid, Affiliation.name)
        .join(Affiliation, Affiliation.id == User.affiliationid, isouter=True)
        .where(User.id == row["uid"])
    ).one_or_none()
    name = full_name(found[0], found[1] or "") if found else f"user {row['uid']}"
    connection.execute(
        sa.insert(t.user_pool).values(
            oid=row["uid"], user_name=name[:256], password="", enabled=int(found is not None)
        )
    )
    return True


def _escape_name(connection: Connection, t: Tables, row: Row) -> bool:
    vm = t.vm_pool
    # What is escaped already is not escaped again.
    name = safe(plain_name(row["name"]))
    connection.execute(sa.update(vm).where(vm.c.oid == row["oid"]).values(name=name))
    return True


def _end_vanished(connection: Connection, t: Tables, row: Row) -> bool:
    """It was there when it was last heard of, and is not now: that is its end."""
    vm, stay = t.vm_pool, t.history.c
    heard = sa.select(latest(vm.c.last_poll, vm.c.stime)).where(vm.c.oid == row["oid"])
    last_poll = connection.scalar(heard) or 0
    open_stay = connection.execute(
        sa.select(stay.vid, stay.seq).where(stay.vid == row["oid"], stay.etime == 0)
    ).one_or_none()
    if open_stay is not None:
        if not _close(connection, t, open_stay._mapping, last_poll):
            return False
        connection.execute(
            sa.update(t.history)
            .where(stay.vid == row["oid"], stay.seq == open_stay.seq)
            .values(reason=int(Reason.CANCEL))
        )
    connection.execute(
        sa.update(vm)
        .where(vm.c.oid == row["oid"])
        .values(state=int(VmState.DONE), lcm_state=int(LcmState.LCM_INIT), etime=last_poll)
    )
    return True


#: By the rule's name. A rule that is not here has more than one right answer, or none.
REPAIRS: Mapping[str, Repair] = MappingProxyType(
    {
        "open-before-last": _close_before_next,
        "last-seq": _set_last_seq,
        "vm-etime": _set_vm_end,
        "ended-but-open": _close_with_vm,
        "run-without-end": _end_running,
        "host": _add_host,
        "share": _add_share,
        "running-vms": _count_share,
        "owner": _add_owner,
        "name": _escape_name,
        "vanished": _end_vanished,
    }
)
