"""The supervisor's loop: one thread that never waits for anything but its own next turn."""

from __future__ import annotations

import enum
import signal as signals
from collections.abc import Callable

import setproctitle
import structlog

from vcld import clock
from vcld.accounting.recorder import OFF, Recorder, find_recorder
from vcld.config import Settings
from vcld.errors import ExitCode, StoreError, StoreRefusedError
from vcld.messages.validation import validate_messages
from vcld.notify import READY, STOPPING, WATCHDOG
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.states.assignment import Assignment
from vcld.store import nodes
from vcld.store.catalog import Catalog, load_catalog
from vcld.store.findings import Finding, Found, Look, order
from vcld.store.look import DEAD_AFTER_SECONDS, Looker
from vcld.supervisor import steps
from vcld.supervisor.children import Children, freeze
from vcld.supervisor.lease import FencedError
from vcld.supervisor.outage import Outage
from vcld.supervisor.parts import Parts
from vcld.supervisor.wakeup import Wakeup
from vcld.supervisor.warming import warm

#: Names, timings and the node's row are read again this often, when there is work.
CATALOG_SECONDS = 60.0
#: Silent nodes whose work is not ours to take are looked at this often.
TAKE_OVER_SECONDS = 5.0
#: Several children that end together cause one look.
COALESCE_SECONDS = 0.02
#: Between attempts at a lost database.
PAUSE_SECONDS = 1.0
#: After a failed fork.
FORK_PAUSE_SECONDS = 5.0


class Turn(enum.Enum):
    """How the daemon is to go on."""

    RUN = "run"
    STOP = "stop"


class Supervisor:
    """Claims reservations of one management node and starts a worker for each."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        node: ManagementNode,
        run_worker: Callable[[Assignment], int],
        reload_settings: Callable[[], Settings | None],
        notify: Callable[[str], None] = lambda _state: None,
        in_child: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._node = node
        self._run_worker = run_worker
        self._reload_settings = reload_settings
        self._notify = notify
        self._in_child = in_child
        self._log = structlog.get_logger()
        self._wakeup = Wakeup()
        self._children = Children(self._wakeup.selector)
        self._parts = Parts(
            settings=settings,
            database=database,
            node=node,
            children=self._children,
            leave_parent=self._leave_parent,
            log=self._log,
        )
        self._lease = self._parts.lease
        self._custody = self._parts.custody
        self._dispatcher = self._parts.dispatcher
        self._recorder: Recorder = OFF
        self._turn = Turn.RUN
        self._look_at = 0.0
        self._rest_until = 0.0
        self._fork_again_at = 0.0
        self._catalog_at = 0.0
        self._take_over_at = 0.0
        self._outage = Outage(self._log)

    def run(self) -> ExitCode:
        """Serve until told to stop.

        Raises:
            NodeTakenError: another daemon acts for the node.
            StoreRefusedError: the database refuses a statement of the start.
        """
        self._wakeup.install()
        self._wait_for_database(self._start)
        self._notify(READY)
        try:
            while self._turn is Turn.RUN:
                self._wakeup.wait(self._seconds_to_next_turn())
                self._take_turn()
            return self._stop()
        except FencedError as err:
            self._log.critical("fenced off, everything is stopped", reason=str(err))
            for child in self._children:
                self._children.kill(child)
            return ExitCode.TRY_LATER

    # Every step below may raise StoreError; _take_turn tells it and goes on.

    def _start(self) -> None:
        self._lease.acquire()
        self._refresh_catalog()
        self._custody.inherit()
        warm(self._database, self._catalog, self._node, self._recorder)
        freeze()
        setproctitle.setproctitle(self._settings.processname)
        self._log.info(
            "daemon started",
            management_node=self._node.hostname,
            adopted=len(self._children),
            to_recover=len(self._custody),
        )

    def _refresh_catalog(self) -> None:
        schema = self._settings.accounting_schema
        self._recorder = self._database.run(lambda c: find_recorder(c, schema, self._log))
        self._parts.use_recorder(self._recorder)
        node = self._database.run(lambda c: nodes.find_node(c, self._node.id))
        if node is not None:  # without a row, the next look ends the daemon
            self._node = node
            self._parts.use_node(node)
        self._use_catalog(self._database.run(load_catalog))
        self._catalog_at = clock.monotonic()

    def _refresh_if_old(self) -> None:
        if clock.monotonic() - self._catalog_at > CATALOG_SECONDS:
            try:
                self._refresh_catalog()
            except StoreRefusedError as err:  # what was read last does for another minute
                self._catalog_at = clock.monotonic()
                self._outage.tell(err)

    def _use_catalog(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._looker = Looker(
            catalog,
            self._node.id,
            self._lease.identity.daemon,
            silent_after_seconds=self._lease.silent_after_seconds,
            dead_after_seconds=self._settings.takeover_after_seconds or DEAD_AFTER_SECONDS,
        )
        self._parts.use_catalog(catalog)

    def _take_turn(self) -> None:
        # A database that is away is waited for: the loop lives all the same.
        self._notify(WATCHDOG)
        self._handle_signals()
        self._reap()
        try:
            self._parts.beat()
            self._custody.recover()
            self._parts.problems.tell(self._parts.aside)
            if clock.monotonic() >= self._look_at:
                self._look_at = clock.monotonic() + self._settings.poll_interval_seconds
                self._look()
                self._parts.oddities.look_if_due()
        except StoreError as err:
            self._outage.tell(err)
            self._rest()
            if self._lease.is_lost():
                self._let_go()
            return
        except FencedError:
            raise
        except Exception:  # noqa: BLE001 - one request's trouble must not end the daemon
            self._log.exception("a turn of the loop failed, the next goes on")
            self._rest()
            return
        self._outage.note_answer()

    def _rest(self) -> None:
        """After a failure: a heartbeat that is overdue must not make the loop spin."""
        self._look_at = self._rest_until = clock.monotonic() + PAUSE_SECONDS

    def _take_over(self, look: Look) -> None:
        """Their processes are not here, and are fenced off; only the rows are to be recovered."""
        if not look.nodes_silent or clock.monotonic() < self._take_over_at:
            return
        self._take_over_at = clock.monotonic() + TAKE_OVER_SECONDS
        for id_ in self._lease.take_over_silent():
            self._log.info("recovering the work of a dead node", former_node_id=id_)
            self._custody.take_orphans("was on a management node that died")

    def _look(self) -> None:
        room = self._settings.max_workers - self._children.workers
        look = self._database.run(
            lambda c: self._looker.look(c, limit=max(room, 0) + len(self._children) + 50)
        )
        if not look.is_ours:
            raise FencedError(
                f"another daemon acts for {self._node.hostname} now, or the node's row is gone"
            )
        self._lease.interval_seconds = float(look.checkininterval_seconds or 12)
        found = order(look.found)
        parts = {
            "changed requests": lambda: self._tell_changed(found),
            "gone reservations": lambda: self._dispatcher.forget_gone(found),
            "moved reservations": lambda: self._dispatcher.take_along(found),
            "finished requests": lambda: self._dispatcher.remove_finished(found),
            "unknown states": lambda: self._dispatcher.warn_unknown(found),
            "custody": lambda: self._custody.watch(look, found),
            "silent nodes": lambda: self._take_over(look),
            "messages": lambda: self._validate_messages(look),
            "block allocations": lambda: self._start_blocks(look),
            "due requests": lambda: self._dispatch(found, room),
        }
        steps.take(parts, self._outage, self._log)

    def _dispatch(self, found: list[Found], room: int) -> None:
        due = [f for f in found if Finding.WAKE <= f.finding <= Finding.BACKGROUND]
        if not due or clock.monotonic() < self._fork_again_at:
            return
        self._refresh_if_old()
        for assignment in self._dispatcher.assignments(due, room, self._parts.beat):
            self._spawn(assignment)

    def _spawn(self, assignment: Assignment) -> None:
        grip = assignment.grip
        try:
            self._children.spawn(
                f"reservation {grip.reservationid}",
                grip,
                lambda: self._be_worker(assignment),
            )
        except OSError as err:
            why = f"no worker could be started: {err}"
            self._fork_again_at = clock.monotonic() + FORK_PAUSE_SECONDS
            self._log.error("no worker could be started", reason=str(err))
            self._dispatcher.hand_back(grip, why, retry_seconds=FORK_PAUSE_SECONDS)

    def _be_worker(self, assignment: Assignment) -> int:
        self._leave_parent()
        return self._run_worker(assignment)

    def _leave_parent(self) -> None:
        self._wakeup.leave()
        self._in_child()

    def _tell_changed(self, found: list[Found]) -> None:
        for item in found:
            if item.finding is Finding.CHANGED:
                child = self._children.find(item.reservationid)
                if child is not None:
                    self._children.tell_to_look(child)

    def _validate_messages(self, look: Look) -> None:
        if look.messages_need_validating:
            self._database.run(lambda c: validate_messages(c, self._node.shortname))

    def _start_blocks(self, look: Look) -> None:
        if look.blocks_due:
            self._refresh_if_old()
            self._parts.blocks.start(self._parts.aside)

    def _reap(self) -> None:
        for ended in self._children.reap():
            if self._parts.note_end(ended):
                self._look_at = min(self._look_at, clock.monotonic() + COALESCE_SECONDS)

    def _let_go(self) -> None:
        """Others may take over: nothing of ours may go on acting, but captures (§5.7)."""
        for child in self._children.interruptible():
            if child.grip is not None:
                self._log.error("the lease is lost, worker stopped", worker_pid=child.process.pid)
                self._children.kill(child)

    def _stop(self) -> ExitCode:
        """Let the workers finish, then hand back; captures go on and are adopted later."""
        self._notify(STOPPING)
        self._log.info("stopping", workers=len(self._children))
        self._parts.keeper.stop()
        self._parts.mirror.stop()
        grace = self._settings.shutdown_grace_seconds
        self._drain(grace)
        for child in self._children.interruptible():
            self._children.tell_to_stop(child)
        self._drain(grace)
        for child in self._children.interruptible():
            self._children.kill(child)
        self._drain(2.0)
        try:
            self._lease.resign()
        except StoreError as err:
            self._outage.tell(err)
        self._log.info("stopped", workers_left=len(self._children))
        return ExitCode.DONE

    def _drain(self, limit_seconds: float) -> None:
        deadline = clock.monotonic() + limit_seconds
        while self._children.interruptible() and clock.monotonic() < deadline:
            self._wakeup.wait(min(deadline - clock.monotonic(), 0.5))
            self._handle_signals()
            self._reap()
            try:
                self._parts.beat()
                self._custody.recover()
            except StoreError as err:
                self._outage.tell(err)

    def _wait_for_database(self, work: Callable[[], None]) -> None:
        """Start even when the database is not there yet."""
        while True:
            try:
                work()
            except StoreRefusedError:
                raise
            except StoreError as err:
                self._outage.tell(err)
                self._wakeup.wait(PAUSE_SECONDS)
                self._handle_signals()
                if self._turn is Turn.STOP:
                    return
            else:
                self._outage.note_answer()
                return

    def _seconds_to_next_turn(self) -> float:
        now = clock.monotonic()
        to_deed = min(self._look_at - now, self._lease.seconds_to_beat())
        return max(0.0, to_deed, self._rest_until - now)

    def _handle_signals(self) -> None:
        for number in self._wakeup.signals():
            if number in {signals.SIGTERM, signals.SIGINT}:
                self._turn = Turn.STOP
            elif number == signals.SIGUSR1:
                self._look_at = 0.0
            elif number == signals.SIGHUP:
                self._reload()

    def _reload(self) -> None:
        settings = self._reload_settings()
        if settings is not None:
            self._settings = settings
            self._parts.use_settings(settings)
            self._catalog_at = float("-inf")
            self._use_catalog(self._catalog)
            self._log.info("configuration read again")
