"""Everything a handler may know and touch: one reservation, its plugins, its rows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar

from vcld import clock, guest, provisioning
from vcld.accounting.recorder import OFF, Milestone, Recorder
from vcld.config import Settings
from vcld.errors import ReservationChangedError, StoreError, UnknownModuleError
from vcld.guest.interface import Guest, Tools
from vcld.messages.notices import Notices
from vcld.provisioning.interface import Placement, PowerAction, Provisioner
from vcld.schema.engine import Connection, Database
from vcld.snapshot import Computer, ConnectMethod, Reservation
from vcld.store import computers, grips, loadlog, requests, reservations
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip
from vcld.store.host_keys import StoredHostKeys
from vcld.waiting import Cancellation

P = ParamSpec("P")
T = TypeVar("T")

#: How often a sign of life is written to ``reservation.lastcheck`` during a long load.
TOUCH_SECONDS = 60


class Work:
    """The context of one run of a handler in a worker.

    Rows are read and written through ``run``, which gives a store function a connection in
    a transaction of its own and tries again when the database was away.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        catalog: Catalog,
        grip: Grip,
        reservation: Reservation,
        cancellation: Cancellation,
        notices: Notices,
        log: Any,
        has_computer: bool = True,
        recorder: Recorder = OFF,
    ) -> None:
        self.settings = settings
        self.database = database
        self.catalog = catalog
        self.grip = grip
        #: May be replaced by a handler before it uses a plugin.
        self.reservation = reservation
        self.cancellation = cancellation
        self.notices = notices
        self.log = log
        #: True while no other worker may change the computer.
        self.has_computer = has_computer
        self.recorder = recorder
        #: Where a load put the system, once that is known.
        self.placement: Placement | None = None
        #: The named step that runs now, for logs and reports of a death.
        self.current_step = "start"
        self.memo: dict[str, Any] = dict(grip.memo)
        self._touched_at = clock.monotonic()
        #: When each load state was entered, on the monotonic clock, in order.
        self._entered: list[tuple[str, float]] = []

    @cached_property
    def guest(self) -> Guest:
        return guest.make_guest(self.reservation, self._tools)

    @cached_property
    def provisioner(self) -> Provisioner:
        return provisioning.make_provisioner(self.reservation, self.guest, self._tools)

    @cached_property
    def connect_methods(self) -> tuple[ConnectMethod, ...]:
        ranges = self.catalog.variables.get("natport_ranges")
        return self.run(reservations.load_connect_methods, self.reservation, ranges)

    @cached_property
    def _tools(self) -> Tools:
        return Tools(
            settings=self.settings,
            cancellation=self.cancellation,
            progress=self.progress,
            variables=self.catalog.variables.get,
            log=self.log,
            run=self.run,
            host_keys=lambda holder: StoredHostKeys(self.run, holder),
            power=lambda action: self.provisioner.power(PowerAction(action)),
            power_status=lambda: self.provisioner.power_status().value,
        )

    def correct_computer(self, computer: Computer) -> None:
        """Others have changed the computer's row since it was read; nothing was done on it yet."""
        self.reservation = dataclasses.replace(self.reservation, computer=computer)
        # Plugins were told of it as it was.
        for name in ("guest", "provisioner"):
            self.__dict__.pop(name, None)

    def close(self) -> None:
        """Let the provisioner, if there is one, close what it holds open."""
        made = self.__dict__.get("provisioner")
        if made is not None:
            made.close()

    def run(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a store function in a transaction of its own."""
        return self.database.run(lambda connection: work(connection, *args, **kwargs))

    def step(self, name: str) -> None:
        """Enter a named step of the handler.

        Every step is a point at which a worker may stop, or die, and the next run goes on.

        Raises:
            WorkerStopped: the request was changed or the daemon ends.
        """
        self.current_step = name
        self.cancellation.check()
        self.log.debug("step reached", step=name)
        with contextlib.suppress(UnknownModuleError):  # told of by a step that needs the guest
            self.guest.on_step(name)

    def progress(self, name: str, text: str) -> None:
        """Write one row of the load log. See ``report``."""
        self.report((name, text))

    def report(
        self,
        *entries: tuple[str, str],
        alongside: Callable[[Connection], None] = lambda _connection: None,
    ) -> None:
        """Write rows of the load log while the claim is held: (loadstatename, text).

        ``alongside`` writes more in the same transaction.

        Raises:
            ReservationChangedError: the claim was taken away, or the reservation is gone.
        """
        self.cancellation.check()
        grip = self.grip
        passed = self._milestones(entries)
        self.tell(entries)

        def write(connection: Connection) -> bool:
            held = loadlog.add(
                connection,
                self.catalog,
                grip.reservationid,
                self.reservation.computer.id,
                entries,
                token=grip.token,
            )
            if held:
                alongside(connection)
                self._record(connection, passed)
            return held

        self.keep_going(self.run(write))
        if clock.monotonic() - self._touched_at >= TOUCH_SECONDS:
            self._touched_at = clock.monotonic()
            self.run(reservations.touch, [grip.reservationid])

    def set_computer(self, state: str, *entries: tuple[str, str]) -> None:
        """Set the computer's state during the work, with load-log rows in one transaction.

        Raises:
            ReservationChangedError: the claim was taken away.
        """
        passed = self._milestones(entries)
        self.tell(entries)

        def write(connection: Connection) -> bool:
            grip = self.grip
            if not computers.set_own_state(connection, self.catalog, grip, state):
                return False
            held = not entries or loadlog.add(
                connection,
                self.catalog,
                grip.reservationid,
                self.reservation.computer.id,
                entries,
                token=grip.token,
            )
            if held:
                self._record(connection, passed)
            return held

        self.keep_going(self.run(write))
        self.log.info("computer state set", computer_state=state)

    def remember(self, **facts: Any) -> None:
        """Keep facts for a later run of the handler, whatever happens to this one.

        Raises:
            ReservationChangedError: the claim was taken away.
        """
        self.memo.update(facts)
        self.keep_going(self.run(grips.save_memo, self.grip, self.memo))

    def check_unchanged(self) -> None:
        """Go on only while the request is what this worker was started for (§6.5).

        Raises:
            ReservationChangedError: it was deleted, changed or taken over.
        """
        pair = self.run(requests.find_pair, self.grip.requestid)
        if pair not in {("pending", self.grip.state), (self.grip.state, self.grip.laststate)}:
            raise ReservationChangedError(
                f"request {self.grip.requestid} is {'/'.join(pair) if pair else 'gone'} now"
            )
        self.keep_going(self.run(grips.is_held, self.grip))

    def timing(self, name: str) -> int:
        """A time limit of the site for this user's affiliation, as configured."""
        return self.catalog.timing(name, self.reservation.request.user.affiliation.name)

    def log_rows(self, names: Sequence[str] = ()) -> list[loadlog.Entry]:
        """Load-log rows of all reservations of the request, oldest first."""
        ids = [sibling.id for sibling in self.reservation.siblings] or [self.reservation.id]
        rows = self.run(loadlog.read, ids)
        return [row for row in rows if not names or row.name in names]

    def history(self) -> list[str]:
        """The load log of the request for people, a line each; empty when it is out of reach."""
        try:
            rows = self.log_rows()
        except StoreError as err:
            return [f"cannot be read: {err}"]
        return [f"{row.age_seconds} s ago  {row.name}: {row.text}" for row in rows]

    def load_durations(self) -> dict[str, float]:
        """Seconds spent in each load state so far, the present one included."""
        ends = [at for _, at in self._entered[1:]] + [clock.monotonic()]
        spent: dict[str, float] = {}
        for (name, began), ended in zip(self._entered, ends, strict=True):
            spent[name] = spent.get(name, 0.0) + ended - began
        return spent

    def _record(self, connection: Connection, passed: Sequence[Milestone]) -> None:
        for milestone in passed:
            self.recorder.pass_milestone(connection, milestone, self.reservation, self.placement)

    def _milestones(self, entries: Sequence[tuple[str, str]]) -> list[Milestone]:
        """Those that these entries are the first to pass."""
        before, names = {name for name, _ in self._entered}, {name for name, _ in entries}
        return [
            milestone
            for milestone in Milestone
            if names & set(milestone.value) and not before & set(milestone.value)
        ]

    def tell(self, entries: Sequence[tuple[str, str]]) -> None:
        """Say in the log what a row of the load log says, so that both tell the same story."""
        now = clock.monotonic()
        for name, text in entries:
            self._entered.append((name, now))
            self.log.info("load state", loadstate=name, text=text)

    def keep_going(self, held: bool) -> None:
        """Go on only if a guarded write was taken.

        Raises:
            ReservationChangedError: the claim was taken away.
        """
        if not held:
            raise ReservationChangedError(
                f"reservation {self.grip.reservationid} was taken away from this worker"
            )
