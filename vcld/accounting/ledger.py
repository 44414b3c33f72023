"""Writing VMs and stays: each method is one step in the life of a VM, of two statements."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.accounting.codes import ENDED, FIRST_REBUILT, LcmState, Reason, VmState
from vcld.accounting.facts import VmFacts
from vcld.accounting.hosts import add_host
from vcld.accounting.stays import Stays
from vcld.accounting.tables import Tables
from vcld.provisioning.interface import Placement

_ACTIVE = (VmState.ACTIVE,)
_ALIVE = tuple(state for state in VmState if state not in ENDED)


class IdTakenError(Exception):
    """The VM of another request has the id of this reservation, and keeps it."""

    def __init__(self, oid: int) -> None:
        super().__init__(
            f"reservation id {oid} is that of an earlier request's VM: the database gave it a"
            " second time; set AUTO_INCREMENT of table reservation above the largest"
            f" vm_pool.oid below {FIRST_REBUILT}"
        )


class Ledger:
    """The rows of a site's VMs."""

    def __init__(self, tables: Tables, hosts: Collection[int]) -> None:
        self.tables = tables
        self._stays = Stays(tables)
        #: Hosts that are known to have a row.
        self._hosts = frozenset(hosts)

    def add(self, connection: Connection, vm: VmFacts) -> bool:
        """A VM that waits to be made, and its owner. False when it is there already."""
        if not self._insert_vm(connection, vm, VmState.PENDING):
            return False
        self._add_owner(connection, vm)
        return True

    def start(self, connection: Connection, vm: VmFacts, lcm: LcmState = LcmState.PROLOG) -> bool:
        """A VM that waits comes to its host. False when it does not wait."""
        values = _states([vm.oid], VmState.ACTIVE, lcm, (VmState.PENDING,))
        values["of_mark"] = vm.mark
        if not connection.execute(self._stays.start_stay, values).rowcount:
            return False
        self._insert_stay(connection, vm, lcm)
        return True

    def resume(self, connection: Connection, vm: VmFacts, lcm: LcmState) -> None:
        """A stay that begins in mid-life: after a stop, or with the accounting itself.

        Raises:
            IdTakenError: another request's VM has the id.
        """
        values = _states([vm.oid], VmState.ACTIVE, lcm, tuple(VmState))
        values["of_mark"] = vm.mark
        if connection.execute(self._stays.start_stay, values).rowcount:
            # The one before is open still if its load or its end was broken off.
            self._close(connection, [vm.oid], Reason.STOP_RESUME)
        elif self._insert_vm(connection, vm, VmState.ACTIVE, lcm):
            self._add_owner(connection, vm)
        else:
            raise IdTakenError(vm.oid)
        self._insert_stay(connection, vm, lcm)

    def move(self, connection: Connection, oids: Sequence[int], lcm: LcmState) -> bool:
        """To another part of ACTIVE. False when no VM is ACTIVE."""
        values = _states(oids, VmState.ACTIVE, lcm, _ACTIVE)
        return connection.execute(self._stays.move_vm, values).rowcount > 0

    def keep_running(self, connection: Connection, oid: int) -> bool:
        """Its user has it still. False when it did not run, or no more: see ``resume``."""
        values = _states([oid], VmState.ACTIVE, LcmState.RUNNING, _ACTIVE)
        return connection.execute(self._stays.keep_vm, values).rowcount > 0

    def begin_prolog(self, connection: Connection, oid: int) -> None:
        """Its image is being placed."""
        self.move(connection, [oid], LcmState.PROLOG)
        connection.execute(self._stays.begin_prolog, {"of_oids": [oid]})

    def end_prolog(self, connection: Connection, oid: int) -> None:
        """It is switched on."""
        self.move(connection, [oid], LcmState.BOOT)
        connection.execute(self._stays.end_prolog, {"of_oids": [oid]})

    def place(self, connection: Connection, oid: int, placement: Placement) -> None:
        """It was loaded, and runs since its power-on."""
        values = _states([oid], VmState.ACTIVE, LcmState.BOOT, _ACTIVE)
        named = {**values, "to_deploy_id": placement.deploy_id}
        connection.execute(self._stays.place_vm, named)
        where = {"to_vm_dir": placement.folder, "to_tm_mad": placement.transfer}
        connection.execute(self._stays.run_placed, {"of_oids": [oid], **where})

    def run(self, connection: Connection, oid: int) -> None:
        """It is ready for its user."""
        self.move(connection, [oid], LcmState.RUNNING)
        connection.execute(self._stays.run, {"of_oids": [oid]})

    def begin_epilog(self, connection: Connection, oid: int) -> bool:
        """It is captured or taken back. False when it is on no host."""
        if not self.move(connection, [oid], LcmState.EPILOG):
            return False
        connection.execute(self._stays.begin_epilog, {"of_oids": [oid]})
        return True

    def stop(self, connection: Connection, oids: Sequence[int], reason: Reason) -> None:
        """The stay ends, the VM waits for its next one."""
        values = _states(oids, VmState.PENDING, LcmState.LCM_INIT, _ALIVE)
        if connection.execute(self._stays.move_vm, values).rowcount:
            self._close(connection, oids, reason)

    def restart(
        self, connection: Connection, vm: VmFacts, reason: Reason, *, failed_load: bool
    ) -> None:
        """Likewise before it is made anew, also when it had ended; one that is not known is added.

        Raises:
            IdTakenError: another request's VM has the id.
        """
        values = _states([vm.oid], VmState.PENDING, LcmState.LCM_INIT, tuple(VmState))
        values |= {"of_mark": vm.mark, "to_name": vm.name, "to_template": vm.template}
        if connection.execute(self._stays.restart_vm, values).rowcount:
            self._close(connection, [vm.oid], reason, failed_load=failed_load)
        elif not self.add(connection, vm):
            raise IdTakenError(vm.oid)

    def end(
        self,
        connection: Connection,
        oids: Sequence[int],
        state: VmState,
        reason: Reason,
        *,
        failed_load: bool = False,
    ) -> None:
        """The stay ends, and the VM with it if the state is one of its end."""
        statement = self._stays.end_vm if state in ENDED else self._stays.move_vm
        connection.execute(statement, _states(oids, state, LcmState.LCM_INIT, _ALIVE))
        self._close(connection, oids, reason, failed_load=failed_load)

    def mark(self, connection: Connection, oids: Sequence[int], reason: Reason) -> None:
        """Say why the stay will have ended; the first reason counts."""
        values = {"of_oids": list(oids), "to_reason": int(reason)}
        connection.execute(self._stays.mark, values)

    def find_alive(self, connection: Connection, requestids: Collection[int]) -> Sequence[int]:
        """VMs of the requests that have not come to their end."""
        values = {"of_requests": sorted(requestids)}
        return connection.scalars(self._stays.find_alive, values).all()

    def rehearse(self, connection: Connection) -> None:
        """Run every statement for a VM that does not exist; the caller rolls back."""
        self._stays.rehearse(connection)

    def _close(
        self,
        connection: Connection,
        oids: Sequence[int],
        reason: Reason,
        *,
        failed_load: bool = False,
    ) -> None:
        values = {
            "of_oids": list(oids),
            "to_reason": int(reason),
            "is_failed_load": int(failed_load),
        }
        connection.execute(self._stays.close, values)

    def _add_owner(self, connection: Connection, vm: VmFacts) -> None:
        row = {"oid": vm.uid, "user_name": vm.user_name[:256], "password": "", "enabled": 1}
        statement = sa.insert(self.tables.user_pool).values(row)
        prefixes = {"mysql": "IGNORE", "mariadb": "IGNORE", "sqlite": "OR IGNORE"}
        for dialect, prefix in prefixes.items():
            statement = statement.prefix_with(prefix, dialect=dialect)
        connection.execute(statement)

    def _insert_vm(
        self,
        connection: Connection,
        vm: VmFacts,
        state: VmState,
        lcm: LcmState = LcmState.LCM_INIT,
    ) -> bool:
        values = {
            "oid": vm.oid,
            "uid": vm.uid,
            "name": vm.name,
            "state": int(state),
            "lcm_state": int(lcm),
            "deploy_id": vm.placement.deploy_id,
            "memory": vm.memory_kib,
            "cpu": vm.cpu_percent,
            "last_seq": 0 if state is VmState.ACTIVE else -1,
            "template": vm.template,
        }
        try:
            connection.execute(self._stays.insert_vm, values)
        except IntegrityError:  # undoes the one statement, not the transaction
            return False
        return True

    def _insert_stay(self, connection: Connection, vm: VmFacts, lcm: LcmState) -> None:
        if vm.host.oid not in self._hosts:
            add_host(connection, self.tables, vm.host)
        connection.execute(
            self._stays.insert_stay,
            {
                "vid": vm.oid,
                "host_name": vm.host.hostname,
                "vm_dir": vm.placement.folder,
                "hid": vm.host.oid,
                "vm_mad": vm.host.provisioning,
                "tm_mad": vm.placement.transfer,
                "is_running": int(lcm is LcmState.RUNNING),
                "is_epilog": int(lcm is LcmState.EPILOG),
            },
        )


def _states(
    oids: Sequence[int], state: VmState, lcm: LcmState, before: Sequence[VmState]
) -> dict[str, object]:
    return {
        "of_oids": list(oids),
        "from_states": [int(each) for each in before],
        "to_state": int(state),
        "to_lcm": int(lcm),
    }
