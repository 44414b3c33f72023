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
from vcld.accounting.tables import SHARES, Tables
from vcld.schema.models import Affiliation, Computer, Reservation, User

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
    """A VM ended with its last stay; one that lives has no end.

    What else does not fit leaves open whether it is the state or the end that is wrong.
    """
    vm, oid = t.vm_pool, row["oid"]
    last, lives = _last_stay(connection, t, oid), _has_reservation(connection, oid)
    if row["state"] in ENDED:
        if last is not None and last.etime == 0 and lives:
            return False
        end = last.etime if last is not None else 0
        end = end or _last_heard(connection, t, oid)
        if end <= 0:
            return False
    else:
        stopped = last is not None and last.etime != 0
        if not lives or (row["state"] == VmState.ACTIVE and stopped):
            return False
        end = 0
    connection.execute(sa.update(vm).where(vm.c.oid == oid).values(etime=end))
    return True


def _last_stay(connection: Connection, t: Tables, oid: int) -> Any:
    stay = t.history.c
    query = sa.select(stay.seq, stay.etime).where(stay.vid == oid)
    return connection.execute(query.order_by(stay.seq.desc()).limit(1)).one_or_none()


def _has_reservation(connection: Connection, oid: int) -> bool:
    query = sa.select(Reservation.id).where(Reservation.id == oid)
    return connection.scalar(query) is not None


def _last_heard(connection: Connection, t: Tables, oid: int) -> int:
    """When the VM was last heard of; not before its last stay ended."""
    vm, stay = t.vm_pool.c, t.history.c
    heard = sa.select(latest(vm.last_poll, vm.stime)).where(vm.oid == oid)
    ended = sa.select(sa.func.max(stay.etime)).where(stay.vid == oid)
    return max(connection.scalar(heard) or 0, connection.scalar(ended) or 0)


def _clear_lcm_state(connection: Connection, t: Tables, row: Row) -> bool:
    """Only an ACTIVE VM has one; with an open stay, it may be the state that is wrong."""
    vm, last = t.vm_pool, _last_stay(connection, t, row["oid"])
    if row["state"] == VmState.ACTIVE or (last is not None and last.etime == 0):
        return False
    connection.execute(sa.update(vm).where(vm.c.oid == row["oid"]).values(lcm_state=0))
    return True


def _end_running(connection: Connection, t: Tables, row: Row) -> bool:
    """It ran until its epilog began, or the stay ended; unless it still runs, or ran later."""
    stay, vm = t.history.c, t.vm_pool.c
    ran = sa.case((stay.estime > 0, stay.estime), else_=stay.etime)
    runs = sa.select(vm.oid).where(
        vm.oid == stay.vid, vm.last_seq == stay.seq, vm.state == int(VmState.ACTIVE)
    )
    done = connection.execute(
        sa.update(t.history)
        .where(stay.vid == row["vid"], stay.seq == row["seq"], ran >= stay.rstime)
        .where(ran <= stay.etime, sa.not_(runs.exists()))
        .values(retime=ran)
    )
    return done.rowcount == 1


def _add_host(connection: Connection, t: Tables, row: Row) -> bool:
    """Unless the id is wrong rather than the host's row missing."""
    host = t.host_pool.c
    known = sa.select(host.oid).where(host.oid == row["hid"])
    if connection.scalar(known) is not None:
        return True  # another stay had it added
    namesake = sa.select(host.oid).where(host.host_name == row["host_name"])
    computer = sa.select(Computer.id).where(Computer.id == row["hid"])
    doubtful = row["hid"] <= 0 or connection.scalar(namesake) is not None
    if doubtful and connection.scalar(computer) is None:
        return False
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


def _count_figures(connection: Connection, t: Tables, row: Row) -> bool:
    """What stays take can be counted; what a probe found, the next one tells."""
    share = t.host_shares.c
    write_share(connection, t, row["hid"])
    measured = [share[name] < 0 for name in SHARES if not name.endswith("_usage")]
    query = sa.select(share.hid).where(share.hid == row["hid"], sa.or_(*measured))
    return connection.scalar(query) is None


def _count_share(connection: Connection, t: Tables, row: Row) -> bool:
    write_share(connection, t, row["hid"])
    return True


def _add_owner(connection: Connection, t: Tables, row: Row) -> bool:
    """VCL knows the name; of a user whose row is gone, the id is all that can be said."""
    if row["uid"] < 0:
        return False
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
    last, end = _last_stay(connection, t, row["oid"]), _last_heard(connection, t, row["oid"])
    if last is not None and last.etime == 0:
        which = {"vid": row["oid"], "seq": last.seq}
        if not _close(connection, t, which, end):
            return False
        connection.execute(
            sa.update(t.history)
            .where(stay.vid == row["oid"], stay.seq == last.seq, stay.reason == 0)
            .values(reason=int(Reason.CANCEL))
        )
    connection.execute(
        sa.update(vm)
        .where(vm.c.oid == row["oid"])
        .values(state=int(VmState.DONE), lcm_state=int(LcmState.LCM_INIT), etime=end)
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
        "lcm-state": _clear_lcm_state,
        "figures": _count_figures,
    }
)
