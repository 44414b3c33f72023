"""From a request's transitions to rows, in the transaction of each transition.

The mapping is that of the accounting specification. At most two statements a transition, but
for what accounting sees for the first time in the middle of its life, and for a new host.
Accounting never stops the work: what the database refuses is told in the log and left out.
Conflicts and outages are raised, like those of any other statement of the transaction.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from vcld import clock, schedule
from vcld.accounting.codes import LAST_SECOND, LcmState, Reason, VmState
from vcld.accounting.facts import facts_of
from vcld.accounting.hosts import load_host_ids
from vcld.accounting.install import find_installed
from vcld.accounting.keeping import Kept, keep
from vcld.accounting.ledger import IdTakenError, Ledger
from vcld.accounting.managed import ProbeFinder
from vcld.accounting.probes import probe_hosts
from vcld.config import Settings
from vcld.provisioning.interface import Placement
from vcld.schema.engine import Database, is_conflict, is_outage
from vcld.snapshot import Reservation
from vcld.store.grips import Grip

#: Request states whose work puts something on a computer.
LOADS = schedule.LOAD_STATES | {"reinstall"}
#: Those whose work makes or moves no VM until it is over, and those above.
WAITS = LOADS | {"tomaintenance"}
#: Those whose work ends what the user had.
EPILOGS = frozenset({"deleted", "timeout", "image", "checkpoint"})
#: Those during which the user has the computer.
RUNS = schedule.SESSION_STATES | {"reserved", "rebootsoft", "reboothard", "servermodified"}
#: ``log.ending`` of a user who was not there: the site's time limits decided.
CANCELLED = frozenset({"noack", "nologin", "timeout"})
#: Next request state → what becomes of the VM.
ENDS = {
    "complete": VmState.DONE,
    "failed": VmState.FAILED,
    "maintenance": VmState.SUSPENDED,
}


class Milestone(enum.Enum):
    """A point of a load, known by the first of some load states."""

    OPENED = ("statuscheck",)
    PROLOG = ("doesimageexists",)
    POWERED_ON = ("startvm", "bootstate", "machinebooted")
    LOADED = ("loadimagecomplete",)


class Recorder:
    """Writes what happens to VMs. Without a ledger it does nothing, and asks for nothing."""

    def __init__(self, ledger: Ledger | None, log: Any = None) -> None:
        self._ledger = ledger
        self._log = log

    @property
    def is_on(self) -> bool:
        """False where accounting is not installed, and after the last second it can hold."""
        return self._ledger is not None and clock.epoch() <= LAST_SECOND

    def begin(self, connection: Connection, grip: Grip, reservation: Reservation) -> None:
        """A worker begins its work."""

        def write(ledger: Ledger) -> None:
            if grip.state in WAITS:
                _wait(connection, ledger, grip, reservation)
            elif grip.state in EPILOGS:
                if not ledger.begin_epilog(connection, grip.reservationid):
                    ledger.resume(connection, facts_of(reservation), LcmState.EPILOG)
            elif grip.state in RUNS:
                vm = facts_of(reservation)
                # Which of them is to be expected is tried first: it costs the least.
                resumes = grip.laststate == "checkpoint" and ledger.start(
                    connection, vm, LcmState.RUNNING
                )
                if not resumes and not ledger.keep_running(connection, vm.oid):
                    ledger.resume(connection, vm, LcmState.RUNNING)

        self._record(write)

    def pass_milestone(
        self,
        connection: Connection,
        milestone: Milestone,
        reservation: Reservation,
        placement: Placement | None = None,
    ) -> None:
        """A load has come so far."""

        def write(ledger: Ledger) -> None:
            if milestone is Milestone.OPENED:
                ledger.start(connection, facts_of(reservation))
            elif milestone is Milestone.PROLOG:
                ledger.begin_prolog(connection, reservation.id)
            elif milestone is Milestone.POWERED_ON:
                ledger.end_prolog(connection, reservation.id)
            else:
                found = placement or facts_of(reservation).placement
                ledger.place(connection, reservation.id, found)

        self._record(write)

    def end(
        self,
        connection: Connection,
        grip: Grip,
        *,
        request_state: str | None,
        log_ending: str | None,
        failed: bool,
        reservationids: Sequence[int] = (),
    ) -> None:
        """A worker's outcome is written. A cluster's parent speaks for all its reservations."""
        own = [grip.reservationid]
        ids = sorted(reservationids) if grip.is_parent and reservationids else own

        def write(ledger: Ledger) -> None:
            if request_state in ENDS:
                state, reason = ENDS[request_state], _reason(grip.state, failed=failed)
                failed_load = state is VmState.FAILED and grip.state in schedule.LOAD_STATES
                ledger.end(connection, ids, state, reason, failed_load=failed_load)
            elif request_state == "reserved" and grip.state == "checkpoint":
                # Switched off for its capture, and on again: the next worker opens a stay.
                ledger.stop(connection, own, Reason.STOP_RESUME)
            elif request_state == "reserved" and grip.state in LOADS:
                ledger.run(connection, own[0])
            elif request_state in LOADS:  # loaded in advance
                ledger.stop(connection, own, Reason.NONE)
            elif request_state == "timeout" and log_ending in CANCELLED:
                ledger.mark(connection, ids, Reason.CANCEL)

        self._record(write)

    def hand_back(self, connection: Connection, grip: Grip) -> None:
        """A worker died, or failed for now; what it did on the computer is done again."""
        if grip.state in LOADS:
            own = [grip.reservationid]
            self._record(lambda ledger: ledger.move(connection, own, LcmState.FAILURE))

    def vanish(self, connection: Connection, reservationids: Collection[int]) -> None:
        """Reservations are gone, or over without a worker's doing."""
        ids = sorted(reservationids)
        self._record(lambda ledger: ledger.end(connection, ids, VmState.DONE, Reason.CANCEL))

    def remove(self, connection: Connection, requestids: Collection[int]) -> None:
        """Requests are about to be removed; what is left of their VMs ends."""

        def write(ledger: Ledger) -> None:
            ids = ledger.find_alive(connection, requestids)
            if ids:
                ledger.end(connection, ids, VmState.DONE, Reason.CANCEL)

        self._record(write)

    def cancel(self, connection: Connection, reservationids: Collection[int]) -> None:
        """An operator ends the request; the end of its VM is to say so."""
        ids = sorted(reservationids)
        self._record(lambda ledger: ledger.mark(connection, ids, Reason.CANCEL))

    def keep(self, connection: Connection, managementnodeid: int, **facts: Any) -> Kept | None:
        """Bring hosts and VMs up to date; parameters and result are those of ``keeping.keep``.

        What was refused leaves the result of the last call.
        """
        kept: Kept | None = facts["last"]

        def write(ledger: Ledger) -> None:
            nonlocal kept
            kept = keep(connection, ledger.tables, managementnodeid, **facts)

        self._record(write)
        return kept

    def probe(
        self,
        database: Database,
        settings: Settings,
        hostids: Collection[int],
        find_probe: ProbeFinder,
    ) -> None:
        """Have hosts measured, and keep what they say; takes as long as the slowest.

        Raises:
            StoreError: the database is away or refuses.
        """
        if self._ledger is not None and self.is_on:
            probe_hosts(database, self._ledger.tables, settings, hostids, find_probe, self._log)

    def rehearse(self, connection: Connection) -> None:
        """Run every statement for a VM that does not exist; the caller rolls back."""
        self._record(lambda ledger: ledger.rehearse(connection))

    def _record(self, write: Callable[[Ledger], object]) -> None:
        if self._ledger is None or not self.is_on:
            return
        try:
            write(self._ledger)
        except IdTakenError as err:
            self._log.error("a VM is not accounted", reason=str(err))
        except SQLAlchemyError as err:
            if is_conflict(err) or is_outage(err):
                raise
            cause = getattr(err, "orig", None) or err
            self._log.error(
                "accounting was refused; 'vcld accounting check' tells what is amiss",
                reason=str(cause.args[-1] if cause.args else cause),
            )


#: Of a site without accounting.
OFF = Recorder(None)


def find_recorder(connection: Connection, schema: str, log: Any) -> Recorder:
    """The recorder of a site: one that does nothing where accounting is not installed."""
    tables = find_installed(connection, schema)
    if tables is None:
        return OFF
    return Recorder(Ledger(tables, load_host_ids(connection, tables)), log)


def _wait(connection: Connection, ledger: Ledger, grip: Grip, reservation: Reservation) -> None:
    """The VM is about to be made, for the first time or anew."""
    vm = facts_of(reservation)
    is_first = grip.attempts == 0 and grip.laststate == grip.state and not grip.memo
    if is_first and ledger.add(connection, vm):
        return
    reason = Reason.STOP_RESUME if grip.attempts == 0 else Reason.ERROR
    # What a reinstall finds may be the user's session, if its first worker died at once.
    failed_load = reason is Reason.ERROR and grip.state in schedule.LOAD_STATES
    ledger.restart(connection, vm, reason, failed_load=failed_load)


def _reason(state: str, *, failed: bool) -> Reason:
    if state == "deleted":
        return Reason.USER
    return Reason.ERROR if failed else Reason.NONE
