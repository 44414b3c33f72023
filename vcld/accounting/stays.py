"""The statements that write VMs and their stays on hosts.

A VM is ACTIVE exactly while its last stay is open (``etime`` 0). ``vm_pool.last_poll`` never
goes back, whatever the clock does, and every other time is taken from it; so the times of a
stay are in order, and a stay never begins before the last one ended. The VM is therefore
written first. Each statement does nothing when it is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from vcld.accounting.codes import ENDED, LcmState
from vcld.accounting.sqlfacts import epoch, latest
from vcld.accounting.tables import Tables
from vcld.schema.models import Reservation

Value = sa.ColumnElement[int]


class Stays:
    """Statements on ``vm_pool`` and ``history``, each built once."""

    def __init__(self, tables: Tables) -> None:
        self._vm = tables.vm_pool
        self._stay = tables.history

    # vm_pool. Parameters: of_oids, from_states, to_state, to_lcm.

    @cached_property
    def insert_vm(self) -> sa.Insert:
        """A new VM. Parameters: the columns that no clock gives."""
        given = ("oid", "uid", "name", "state", "lcm_state", "deploy_id", "memory", "cpu",
                 "last_seq", "template")  # fmt: skip
        values = {name: bindparam(name, type_=self._vm.c[name].type) for name in given}
        return sa.insert(self._vm).values({**values, "last_poll": epoch(), "stime": epoch()})

    @cached_property
    def move_vm(self) -> sa.Update:
        """To another state."""
        return self._update_vm({"etime": 0})

    @cached_property
    def keep_vm(self) -> sa.Update:
        """Likewise, if it was running."""
        running = [int(LcmState.RUNNING), int(LcmState.UNKNOWN)]
        return self.move_vm.where(self._vm.c.lcm_state.in_(running))

    @cached_property
    def start_stay(self) -> sa.Update:
        """To another state, on a next stay that ``insert_stay`` writes. Parameter: of_mark."""
        return self._if_same(self._update_vm({"last_seq": self._vm.c.last_seq + 1, "etime": 0}))

    @cached_property
    def restart_vm(self) -> sa.Update:
        """To another state, from its end too, as what it is now.

        A reservation may be given another revision or computer. Parameters: of_mark, to_name,
        to_template.
        """
        described = {
            "name": bindparam("to_name", type_=sa.Text()),
            "template": bindparam("to_template", type_=sa.Text()),
        }
        return self._if_same(self._update_vm({"etime": 0, **described}))

    def _if_same(self, update: sa.Update) -> sa.Update:
        """A VM that has ended lives again for its own request alone: ids may be given twice."""
        mark = bindparam("of_mark", type_=sa.Text())
        same = sa.func.instr(self._vm.c.template, mark) > 0
        return update.where(sa.or_(self._vm.c.state.not_in(map(int, ENDED)), same))

    @cached_property
    def place_vm(self) -> sa.Update:
        """With what the hypervisor calls it. Parameter: to_deploy_id."""
        return self._update_vm({"deploy_id": bindparam("to_deploy_id", type_=sa.Text())})

    @cached_property
    def end_vm(self) -> sa.Update:
        """To its end."""
        return self._update_vm({"etime": latest(self._vm.c.last_poll, epoch())})

    def _update_vm(self, more: dict[str, Any]) -> sa.Update:
        return (
            sa.update(self._vm)
            .where(
                self._vm.c.oid.in_(bindparam("of_oids", expanding=True)),
                self._vm.c.state.in_(bindparam("from_states", expanding=True)),
            )
            .values(
                {
                    "last_poll": latest(self._vm.c.last_poll, epoch()),
                    "state": bindparam("to_state", type_=sa.Integer()),
                    "lcm_state": bindparam("to_lcm", type_=sa.Integer()),
                    **more,
                }
            )
        )

    @cached_property
    def find_alive(self) -> sa.Select[int]:
        """VMs of requests that have not ended. Parameter: of_requests."""
        requestids: sa.BindParameter[int] = bindparam("of_requests", expanding=True)
        return (
            sa.select(self._vm.c.oid)
            .join(Reservation, Reservation.id == self._vm.c.oid)
            .where(Reservation.requestid.in_(requestids), self._vm.c.state.not_in(map(int, ENDED)))
        )

    # history. Parameter: of_oids; only open stays are written.

    @cached_property
    def insert_stay(self) -> sa.Insert:
        """Open the VM's last stay. Parameters: its columns, is_running and is_epilog (0 or 1)."""
        oid = bindparam("vid", type_=sa.Integer())
        of_vm = sa.select(self._vm.c.last_seq).where(self._vm.c.oid == oid).scalar_subquery()
        now = sa.select(self._vm.c.last_poll).where(self._vm.c.oid == oid).scalar_subquery()
        given = ("host_name", "vm_dir", "hid", "vm_mad", "tm_mad")
        values = {name: bindparam(name, type_=self._stay.c[name].type) for name in given}
        return sa.insert(self._stay).values(
            {
                **values,
                "vid": oid,
                "seq": of_vm,
                "stime": now,
                "rstime": now * bindparam("is_running", type_=sa.Integer()),
                "estime": now * bindparam("is_epilog", type_=sa.Integer()),
            }
        )

    @cached_property
    def begin_prolog(self) -> sa.Update:
        return self._update_stay({"pstime": self._first("pstime", self._now)})

    @cached_property
    def end_prolog(self) -> sa.Update:
        return self._update_stay({"petime": self._prolog_end(self._now)})

    @cached_property
    def run(self) -> sa.Update:
        """The VM runs, since its power-on if that was seen."""
        return self._update_stay(self._running())

    @cached_property
    def run_placed(self) -> sa.Update:
        """Likewise, with where it was put. Parameters: to_vm_dir, to_tm_mad."""
        placed = {
            "vm_dir": bindparam("to_vm_dir", type_=sa.Text()),
            "tm_mad": bindparam("to_tm_mad", type_=sa.Text()),
        }
        return self._update_stay({**self._running(), **placed})

    @cached_property
    def begin_epilog(self) -> sa.Update:
        return self._update_stay({"estime": self._first("estime", self._now)})

    @cached_property
    def close(self) -> sa.Update:
        """End the stay. Parameters: to_reason, if it has none yet; is_failed_load (0 or 1).

        Until the end of the epilog the VM counts as running; then it has run until the epilog
        began. A load that failed has no running time, however far it came.
        """
        column = self._stay.c
        failed = bindparam("is_failed_load", type_=sa.Integer()) == 1
        left = sa.case((column.estime > 0, column.estime), else_=self._now)
        ran = sa.case((sa.or_(column.rstime == 0, failed), 0), else_=self._first("retime", left))
        return self._update_stay(
            {
                "petime": self._prolog_end(left),
                "retime": ran,
                "rstime": sa.case((failed, 0), else_=column.rstime),
                "eetime": sa.case((column.estime == 0, 0), else_=self._first("eetime", self._now)),
                "etime": self._now,
                "reason": self._first("reason", self._reason),
            }
        )

    @cached_property
    def mark(self) -> sa.Update:
        """Say why the stay will have ended. Parameter: to_reason."""
        return self._update_stay({"reason": self._first("reason", self._reason)})

    @property
    def _reason(self) -> Value:
        return bindparam("to_reason", type_=sa.Integer())

    @property
    def _now(self) -> Value:
        query = sa.select(self._vm.c.last_poll).where(self._vm.c.oid == self._stay.c.vid)
        return query.scalar_subquery()

    def _first(self, name: str, value: Value) -> Value:
        """What the column holds already, else the value."""
        column = self._stay.c[name]
        return sa.case((column > 0, column), else_=value)

    def _prolog_end(self, value: Value) -> Value:
        column = self._stay.c
        return sa.case((column.pstime == 0, 0), else_=self._first("petime", value))

    def _running(self) -> dict[str, Value]:
        since = sa.case((self._stay.c.petime > 0, self._stay.c.petime), else_=self._now)
        return {
            "petime": self._prolog_end(self._now),
            "rstime": self._first("rstime", since),
        }

    def _update_stay(self, values: Mapping[str, Any]) -> sa.Update:
        # MySQL sees the new values of columns further left; every value here is the same then.
        ordered = [(self._stay.c[name], value) for name, value in values.items()]
        return (
            sa.update(self._stay)
            .where(
                self._stay.c.vid.in_(bindparam("of_oids", expanding=True)),
                self._stay.c.etime == 0,
            )
            .ordered_values(*ordered)
        )

    def rehearse(self, connection: sa.Connection) -> None:
        """Have every statement compiled. It writes a VM 0; roll back."""
        of_vm = {"of_oids": [0], "from_states": [0], "to_state": 0, "to_lcm": 0}
        vm = {"oid": 0, "uid": 0, "name": "", "state": 0, "lcm_state": 0, "deploy_id": "",
              "memory": 0, "cpu": 0, "last_seq": 0, "template": ""}  # fmt: skip
        stay = {"vid": 0, "host_name": "", "vm_dir": "", "hid": 0, "vm_mad": "", "tm_mad": "",
                "is_running": 0, "is_epilog": 0}  # fmt: skip
        connection.execute(self.insert_vm, vm)
        connection.execute(self.insert_stay, stay)
        for statement in (self.move_vm, self.keep_vm, self.end_vm):
            connection.execute(statement, of_vm)
        marked = {**of_vm, "of_mark": ""}
        connection.execute(self.start_stay, marked)
        connection.execute(self.restart_vm, {**marked, "to_name": "", "to_template": ""})
        connection.execute(self.place_vm, {**of_vm, "to_deploy_id": ""})
        for statement in (self.begin_prolog, self.end_prolog, self.run, self.begin_epilog):
            connection.execute(statement, {"of_oids": [0]})
        connection.execute(self.run_placed, {"of_oids": [0], "to_vm_dir": "", "to_tm_mad": ""})
        ending = {"of_oids": [0], "to_reason": 0}
        connection.execute(self.mark, ending)
        connection.execute(self.close, {**ending, "is_failed_load": 0})
        connection.execute(self.find_alive, {"of_requests": [0]})
