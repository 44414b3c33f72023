"""What must hold of the columns of a row by themselves, or of a VM's row beside its stays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from vcld.accounting.codes import ENDED, HostState, LcmState, Reason, VmState
from vcld.accounting.rule import Query, Rule
from vcld.accounting.sqlfacts import epoch, latest
from vcld.accounting.tables import HISTORY_TIMES, SHARES, Tables

#: Times may be so far ahead of the clock that tells them: it may have been set back.
AHEAD_SECONDS = 86400
#: Parts of a stay: (begin, end).
PARTS = (("pstime", "petime"), ("rstime", "retime"), ("estime", "eetime"))
#: Parts whose end the end of the stay brings; a run's has a rule of its own.
ENDING = (("pstime", "petime"), ("estime", "eetime"))
#: Codes of ``lcm_state`` while a VM is ACTIVE.
BUSY = tuple(code for code in LcmState if code is not LcmState.LCM_INIT)
USAGE = ("disk_usage", "mem_usage", "cpu_usage")


def _is_no(code: sa.ColumnElement[int], codes: Iterable[int]) -> sa.ColumnElement[bool]:
    return code.not_in([int(each) for each in codes])


def _last_stay(t: Tables) -> sa.ColumnElement[bool]:
    return sa.and_(t.history.c.vid == t.vm_pool.c.oid, t.history.c.seq == t.vm_pool.c.last_seq)


def _unknown_state(t: Tables) -> Query:
    vm = t.vm_pool.c
    return sa.select(vm.oid, vm.state).where(_is_no(vm.state, VmState))


def _wrong_lcm_state(t: Tables) -> Query:
    vm = t.vm_pool.c
    active = vm.state == int(VmState.ACTIVE)
    wrong = sa.or_(
        sa.and_(active, _is_no(vm.lcm_state, BUSY)), sa.and_(sa.not_(active), vm.lcm_state != 0)
    )
    return sa.select(vm.oid, vm.state, vm.lcm_state).where(wrong)


def _runs_unstarted(t: Tables) -> Query:
    vm, stay = t.vm_pool.c, t.history.c
    running = vm.lcm_state.in_([int(LcmState.RUNNING), int(LcmState.UNKNOWN)])
    return (
        sa.select(stay.vid, stay.seq)
        .join(t.vm_pool, _last_stay(t))
        .where(vm.state == int(VmState.ACTIVE), running, stay.rstime == 0)
    )


def _wrong_vm_times(t: Tables) -> Query:
    """The first stay begins with the VM or later, the last one ends with it or earlier."""
    vm = t.vm_pool.c
    first, last = t.history.alias("first"), t.history.alias("last")
    ended = vm.state.in_(map(int, ENDED))
    wrong = sa.or_(
        vm.stime <= 0,
        vm.last_poll < 0,
        sa.and_(
            ended, vm.etime > 0, vm.etime < latest(vm.stime, sa.func.coalesce(last.c.etime, 0))
        ),
        first.c.stime < vm.stime,
    )
    return (
        sa.select(vm.oid, vm.stime, vm.etime, vm.last_poll)
        .join(first, sa.and_(first.c.vid == vm.oid, first.c.seq == 0), isouter=True)
        .join(last, sa.and_(last.c.vid == vm.oid, last.c.seq == vm.last_seq), isouter=True)
        .where(wrong)
    )  # fmt: skip


def _negative_figures(t: Tables) -> Query:
    vm = t.vm_pool.c
    figures = [vm[name] for name in ("memory", "cpu", "net_tx", "net_rx")]
    return sa.select(vm.oid).where(sa.or_(*(figure < 0 for figure in figures)))


def _no_template(t: Tables) -> Query:
    vm = t.vm_pool.c
    whole = vm.template.like("<TEMPLATE>%</TEMPLATE>")
    return sa.select(vm.oid).where(sa.not_(whole))


def _future_vms(t: Tables) -> Query:
    vm = t.vm_pool.c
    return sa.select(vm.oid).where(latest(vm.stime, vm.etime, vm.last_poll) > _tomorrow())


def _future_stays(t: Tables) -> Query:
    stay = t.history.c
    times = [stay[name] for name in HISTORY_TIMES]
    return sa.select(stay.vid, stay.seq).where(latest(*times) > _tomorrow())


def _future_hosts(t: Tables) -> Query:
    host = t.host_pool.c
    return sa.select(host.oid).where(host.last_mon_time > _tomorrow())


def _tomorrow() -> sa.ColumnElement[int]:
    return epoch() + AHEAD_SECONDS


def _unknown_reason(t: Tables) -> Query:
    stay = t.history.c
    return sa.select(stay.vid, stay.seq, stay.reason).where(_is_no(stay.reason, Reason))


def _end_without_begin(t: Tables) -> Query:
    stay = t.history.c
    wrong = (sa.and_(stay[begin] == 0, stay[end] != 0) for begin, end in PARTS)
    return sa.select(stay.vid, stay.seq).where(sa.or_(*wrong))


def _begin_without_end(t: Tables) -> Query:
    stay = t.history.c
    wrong = (sa.and_(stay[begin] > 0, stay[end] == 0) for begin, end in ENDING)
    return sa.select(stay.vid, stay.seq).where(stay.etime > 0, sa.or_(*wrong))


def _nameless_host(t: Tables) -> Query:
    stay = t.history.c
    return sa.select(stay.vid, stay.seq).where(stay.host_name == "")


def _wrong_host(t: Tables) -> Query:
    host = t.host_pool.c
    wrong = sa.or_(_is_no(host.state, HostState), host.host_name == "", host.last_mon_time < 0)
    return sa.select(host.oid, host.state, host.last_mon_time).where(wrong)


def _hostless_share(t: Tables) -> Query:
    share, host = t.host_shares.c, t.host_pool.c
    joined = sa.select(share.hid).join(t.host_pool, host.oid == share.hid, isouter=True)
    return joined.where(host.oid.is_(None))


def _wrong_figures(t: Tables) -> Query:
    share = t.host_shares.c
    negative: list[sa.ColumnElement[Any]] = [
        share[name] < 0 for name in SHARES if name != "running_vms"
    ]
    idle = sa.and_(share.running_vms == 0, sa.or_(*(share[name] != 0 for name in USAGE)))
    return sa.select(share.hid).where(sa.or_(*negative, idle))


def _wrong_user(t: Tables) -> Query:
    user = t.user_pool.c
    wrong = sa.or_(user.user_name == "", user.password != "", user.enabled.not_in([0, 1]))
    return sa.select(user.oid).where(wrong)


ROW_RULES: tuple[Rule, ...] = (
    Rule("state", "there is no state {state}", "vm_pool", _unknown_state),
    Rule(
        "lcm-state", "lcm_state is {lcm_state} in state {state}", "vm_pool", _wrong_lcm_state
    ),
    Rule("vm-times", "stime {stime}, last_poll {last_poll} and etime {etime} do not enclose its"
         " stays", "vm_pool", _wrong_vm_times),
    Rule("vm-figures", "memory, cpu or traffic is negative", "vm_pool", _negative_figures),
    Rule("template", "the template is no TEMPLATE element", "vm_pool", _no_template),
    Rule("vm-in-the-future", "a time is more than a day ahead", "vm_pool", _future_vms),
    Rule("runs-unstarted", "the VM is RUNNING, but rstime is 0", "history", _runs_unstarted),
    Rule("reason", "there is no reason {reason}", "history", _unknown_reason),
    Rule("end-without-begin", "a part of it has an end, but no begin", "history",
         _end_without_begin),
    Rule("begin-without-end", "it has ended, but its prolog or epilog has not", "history",
         _begin_without_end),
    Rule("stay-in-the-future", "a time is more than a day ahead", "history", _future_stays),
    Rule("host-name", "host_name is empty", "history", _nameless_host),
    Rule("host-row", "state {state}, last_mon_time {last_mon_time}, or no name", "host_pool",
         _wrong_host),
    Rule("host-in-the-future", "last_mon_time is more than a day ahead", "host_pool",
         _future_hosts),
    Rule("user-row", "it has no name, a password, or is neither enabled nor disabled",
         "user_pool", _wrong_user),
)  # fmt: skip
#: Of hosts' shares: after whatever changes what is open.
SHARE_RULES: tuple[Rule, ...] = (
    Rule("share-without-host", "host_pool has no such host", "host_shares", _hostless_share),
    Rule("figures", "a figure is negative, or in use although no VM runs", "host_shares",
         _wrong_figures),
)  # fmt: skip
