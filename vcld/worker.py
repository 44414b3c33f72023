"""A worker's life: a forked child that works on one claimed reservation and ends.

It leaves only through ``os._exit``, so that nothing of the parent runs twice. What it found
out is in the database before it ends; the exit code is for the log.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal as signals
from collections.abc import Sequence
from typing import Any

import setproctitle
import structlog

from vcld import clock, processes
from vcld.errors import (
    BackendUnavailableError,
    ConfigError,
    ExitCode,
    ProvisioningError,
    ReservationChangedError,
    ReservationDataError,
    SchemaError,
    StoreError,
    WorkerStopped,
)
from vcld.messages.notices import Notices
from vcld.schema.engine import Database
from vcld.snapshot import Reservation
from vcld.states import cluster, failure
from vcld.states.assignment import Assignment
from vcld.states.outcome import Outcome, Result, Wait
from vcld.states.table import STATES, find_handler
from vcld.states.work import Work
from vcld.store import grips, nodes, notices, requests, snapshots, transitions
from vcld.store.catalog import Catalog
from vcld.store.grips import ClaimLostError, Grip
from vcld.waiting import Cancellation

#: What SIGTERM means to a worker: hand the reservation back.
DAEMON_STOPS = "the daemon stops"
#: Handlers that mostly wait; the web site lets users connect while they are pending.
WAITING_STATES = failure.LIVE_STATES | {"reserved"}
#: The daemon has not been heard of for so long that another node may take over.
LEASE_LOST = "the daemon has been silent for too long"
#: A worker whose daemon seems well still asks this often whether it may go on.
CHECK_SECONDS = 20.0
#: How often it looks whether there is anything to ask.
ASK_SECONDS = 3.0
#: The request is no longer what the worker was started for.
REQUEST_CHANGED = "the request was changed"


def run(assignment: Assignment) -> ExitCode:
    """Do the work in this process, which was just forked. Never raises."""
    log = structlog.get_logger()
    worker = Worker(assignment, log)
    with structlog.contextvars.bound_contextvars(
        request_id=assignment.grip.requestid,
        reservation_id=assignment.grip.reservationid,
        state=assignment.grip.state,
    ):
        try:
            worker.prepare_process()
            return worker.work()
        except ClaimLostError:
            log.info("claim lost before the work began")
            return ExitCode.HANDED_BACK
        except WorkerStopped as stopped:
            return worker.hand_back(stopped.reason)
        except ReservationChangedError as err:
            return worker.hand_back(str(err))
        except StoreError as err:
            # The claim stays: this process's death tells the supervisor to recover it.
            log.error("the database was away for too long", reason=str(err))
            return ExitCode.UNAVAILABLE
        except Exception:
            log.exception("worker failed by an unexpected error")
            return ExitCode.BUG


class Worker:
    """One run of a handler, from the claim to the ending."""

    def __init__(self, assignment: Assignment, log: Any) -> None:
        self._assignment = assignment
        self._grip = assignment.grip
        self._log = log
        self._database = assignment.database
        self._recorder = assignment.recorder
        self._parent = os.getppid()
        limit = assignment.settings.takeover_after_seconds
        self._check_seconds = min(CHECK_SECONDS, limit / 10) if limit else CHECK_SECONDS
        self._cancellation = Cancellation(
            self._find_reason, ask_interval_seconds=min(ASK_SECONDS, self._check_seconds)
        )
        self._checked_at = clock.monotonic()
        self._told_to_look = False
        self._work: Work | None = None

    def prepare_process(self) -> None:
        """Become a process of its own: group, signals, title, database connection."""
        os.setpgid(0, 0)
        signals.set_wakeup_fd(-1)
        for number in (signals.SIGCHLD, signals.SIGHUP, signals.SIGINT, signals.SIGALRM):
            signals.signal(number, signals.SIG_DFL)
        signals.signal(signals.SIGTERM, lambda *_: self._cancellation.stop(DAEMON_STOPS))
        signals.signal(signals.SIGUSR1, lambda *_: self._be_told_to_look())
        signals.pthread_sigmask(signals.SIG_SETMASK, ())
        faulthandler.register(signals.SIGUSR2, all_threads=True)
        gc.disable()  # short life; a collection would copy the parent's memory
        random.seed()
        self._database.after_fork()
        self._database.cancellation = self._cancellation
        self._database.patience_seconds = self._assignment.settings.database_patience_seconds
        self._set_title()

    def work(self) -> ExitCode:
        """Run the handler and write what it decided."""
        exclusive = STATES[self._grip.state].exclusive
        has_computer, reservation = self._database.run(self._begin)
        if isinstance(reservation, ReservationDataError):
            self._log.error("reservation data is broken", reason=str(reservation))
            return self._fail_broken(str(reservation))
        self._set_title(reservation)
        with structlog.contextvars.bound_contextvars(computer=reservation.computer.shortname):
            self._work = Work(
                settings=self._assignment.settings,
                database=self._database,
                catalog=self._assignment.catalog,
                grip=self._grip,
                reservation=reservation,
                cancellation=self._cancellation,
                notices=Notices(self._assignment.settings, self._database),
                log=self._log,
                has_computer=exclusive and has_computer,
                recorder=self._recorder,
            )
            self._log.info("work began", attempt=self._grip.attempts + 1)
            return self._run_handler(self._work)

    def _begin(self, connection: Any) -> tuple[bool, Reservation | ReservationDataError]:
        exclusive = STATES[self._grip.state].exclusive
        process = processes.own()
        has_computer = grips.register(connection, self._grip, process, exclusive=exclusive)
        reservation = self._load(connection)
        if isinstance(reservation, Reservation):
            self._recorder.begin(connection, self._grip, reservation)
        return has_computer, reservation

    def hand_back(self, reason: str) -> ExitCode:
        """Stop without an outcome: give back what is still ours and end quietly."""
        work = self._work
        grip = work.grip if work is not None else self._grip
        self._cancellation = self._database.cancellation = Cancellation()
        if work is not None and STATES[grip.state].uninterruptible and self._still_ours(grip):
            # A capture that stops half-way is for an administrator to look at.
            return self._write(work, failure.outcome_for(work, f"it was stopped: {reason}"))
        resumes = reason == DAEMON_STOPS
        if work is not None and resumes and grip.state in WAITING_STATES:
            return self._park(work, Wait(seconds=0, reason=reason, memo=work.memo))
        done = self._give_back(
            grip,
            retry_seconds=0 if resumes else None,
            attempts=grip.attempts,
            reason=reason,
        )
        self._log.info("work handed back", reason=reason, claim_was_ours=done)
        return ExitCode.HANDED_BACK

    def _give_back(self, grip: Grip, *, attempts: int, **facts: Any) -> bool:
        def give_back(connection: Any) -> bool:
            done = transitions.hand_back(
                connection,
                self._assignment.catalog,
                grip,
                computer_state=self._restored_state(connection),
                attempts=attempts,
                **facts,
            )
            if done and attempts > grip.attempts:
                self._recorder.hand_back(connection, grip)
            elif done and self._recorder.is_on:
                if requests.find_pair(connection, grip.requestid) is None:
                    self._recorder.vanish(connection, [grip.reservationid])
            return done

        return self._database.run(give_back)

    def _still_ours(self, grip: Grip) -> bool:
        pair = self._database.run(lambda c: requests.find_pair(c, grip.requestid))
        return pair == ("pending", grip.state)

    def _restored_state(self, connection: Any) -> str | None:
        """A half-loaded computer must not stay ``reloading`` without an owner."""
        if self._work is None:
            return None
        state = snapshots.find_computer_state(connection, self._grip.computerid)
        if state != "reloading":
            return None
        before = self._work.reservation.computer.state
        return before if before in {"reload", "maintenance", "vmhostinuse"} else "available"

    def _load(self, connection: Any) -> Reservation | ReservationDataError:
        try:
            return snapshots.load_reservation(
                connection,
                self._grip,
                self._assignment.node,
                preload_only=self._assignment.preload_only,
            )
        except ReservationDataError as err:
            return err

    def _run_handler(self, work: Work) -> ExitCode:
        handler = find_handler(self._grip.state)
        assert handler is not None
        try:
            cluster.begin(work)
            result: Result = handler(work)
        except BackendUnavailableError as err:
            if self._may_retry():
                return self._postpone(work, str(err))
            result = failure.outcome_of(work, err)
        except (ProvisioningError, ReservationDataError, ConfigError, SchemaError) as err:
            result = failure.outcome_of(work, err)
        return self._write(work, result)

    def _may_retry(self) -> bool:
        row = STATES[self._grip.state]
        attempts = self._grip.attempts + 1
        return row.repeatable and attempts < self._assignment.settings.max_attempts

    def _postpone(self, work: Work, reason: str) -> ExitCode:
        settings, attempts = self._assignment.settings, work.grip.attempts + 1
        pause = failure.retry_pause_seconds(settings, attempts)
        self._give_back(
            work.grip,
            entries=(("info", reason),),
            retry_seconds=pause,
            attempts=attempts,
            reason=reason,
        )
        self._log.warning("work postponed", reason=reason, pause_seconds=pause, attempt=attempts)
        return ExitCode.TRY_LATER

    def _write(self, work: Work, result: Result) -> ExitCode:
        if isinstance(result, Wait):
            return self._park(work, result)
        outcome = cluster.settle(work, result)
        account = self._account(work, outcome)
        step, work.current_step = work.current_step, "finish"
        history = work.history() if outcome.failed else []
        if work.reservation.is_cluster and not work.grip.is_parent:
            outcome = _for_child(outcome)
        ending = transitions.Ending(
            request_state=outcome.request,
            request_laststate=outcome.laststate,
            computer_state=outcome.computer,
            computer_facts=outcome.computer_facts,
            log_ending=outcome.ending,
            entries=outcome.entries,
            effects=(*outcome.effects, account),
            reservationids=[sibling.id for sibling in work.reservation.siblings],
            logid=work.reservation.request.logid,
        )
        work.tell(outcome.entries)
        finish_once(self._database, self._assignment.catalog, work.grip, ending)
        level = self._log.error if outcome.failed else self._log.info
        level(
            "work ended",
            reason=outcome.reason,
            next_state=outcome.request,
            computer_state=outcome.computer,
            log_ending=outcome.ending,
        )
        if not outcome.failed:
            return ExitCode.DONE
        self._tell_administrators(work, step, outcome.reason, history)
        return ExitCode.FAILED

    def _tell_administrators(
        self, work: Work, step: str, reason: str, history: Sequence[str]
    ) -> None:
        """By mail, once for a session that goes on and is looked at again and again."""
        requestid = work.grip.requestid
        try:
            if work.grip.state in failure.LIVE_STATES and not self._database.run(
                lambda connection: notices.is_first(connection, requestid, "problem")
            ):
                return
        except StoreError as err:
            self._log.warning("administrators may be told again", reason=str(err))
        work.notices.problem(work.reservation, step, reason, history)

    def _account(self, work: Work, outcome: Outcome) -> transitions.Effect:
        """What the outcome means for the VM; a cluster's child speaks for its own."""
        return lambda connection, _catalog: self._recorder.end(
            connection,
            work.grip,
            request_state=outcome.request,
            log_ending=outcome.ending,
            failed=outcome.failed,
            reservationids=[sibling.id for sibling in work.reservation.siblings],
        )

    def _park(self, work: Work, wait: Wait) -> ExitCode:
        held = self._database.run(
            lambda connection: grips.park(
                connection,
                work.grip,
                seconds=wait.seconds,
                wake_on=wait.wake_on,
                memo=wait.memo,
                reason=wait.reason,
            )
        )
        if not held:
            raise ReservationChangedError(f"reservation {work.grip.reservationid} was taken away")
        self._log.info("work waits", reason=wait.reason, seconds=wait.seconds)
        return ExitCode.DONE

    def _fail_broken(self, reason: str) -> ExitCode:
        """Rows are missing: fail this request only, and touch nothing else."""
        live = self._grip.state in failure.LIVE_STATES
        state = "maintenance" if live or not self._repeatable() else "failed"
        ending = transitions.Ending(
            request_state=state,
            entries=(("failed", reason),),
            effects=(
                lambda connection, _catalog: self._recorder.end(
                    connection, self._grip, request_state=state, log_ending=None, failed=True
                ),
            ),
        )
        finish_once(self._database, self._assignment.catalog, self._grip, ending)
        return ExitCode.FAILED

    def _repeatable(self) -> bool:
        return STATES[self._grip.state].repeatable

    def _be_told_to_look(self) -> None:
        self._told_to_look = True
        self._cancellation.look()

    def _find_reason(self) -> str | None:
        """Ask the database whether to go on.

        When told to, when the parent is dead, and now and then in case that it hangs: another
        node may take over when the heartbeat has been silent for long enough, and by then
        this worker must have stopped.
        """
        is_due = clock.monotonic() - self._checked_at >= self._check_seconds
        if not self._told_to_look and not is_due and os.getppid() == self._parent:
            return None
        self._told_to_look = False
        self._checked_at = clock.monotonic()
        grip = self._work.grip if self._work is not None else self._grip
        quiet = Database(self._database.engine)
        try:
            pair, owned, silent = quiet.run(
                lambda connection: (
                    requests.find_pair(connection, grip.requestid),
                    grips.is_held(connection, grip),
                    nodes.silent_seconds(connection, self._assignment.node.id),
                )
            )
        except StoreError:
            return None  # not known: whoever writes next finds out
        expected = {("pending", grip.state)}
        if not grip.is_pending:
            expected.add((grip.state, grip.laststate))
        if not owned or pair not in expected:
            return REQUEST_CHANGED
        limit = self._assignment.settings.takeover_after_seconds
        if limit and silent > 0.9 * limit and not STATES[grip.state].uninterruptible:
            return LEASE_LOST
        return None

    def _set_title(self, reservation: Reservation | None = None) -> None:
        """The form that VCL's own tools look for (VCL daemon specification §5)."""
        grip = self._grip
        title = (
            f"{self._assignment.settings.processname} "
            f"|{os.getpid()}|{grip.requestid}|{grip.reservationid}|{grip.state}|"
        )
        if reservation is not None:
            title += f" {_describe(reservation)}"
        setproctitle.setproctitle(title)


def finish_once(database: Database, catalog: Catalog, grip: Grip, ending: Any) -> None:
    """Write an ending; if the connection broke at the commit, find out whether it counted.

    Raises:
        ReservationChangedError: the claim was lost or the request changed.
        StoreError: the database stayed away.
    """
    attempts = 0

    def finish(connection: Any) -> None:
        nonlocal attempts
        attempts += 1
        try:
            transitions.finish(connection, catalog, grip, ending)
        except ReservationChangedError:
            if attempts > 1 and transitions.is_written(connection, grip, ending):
                return
            raise

    database.run(finish)


def _for_child(outcome: Outcome) -> Outcome:
    """A cluster's child leaves the request and its log to the parent."""
    return Outcome(
        reason=outcome.reason,
        computer=outcome.computer,
        computer_facts=outcome.computer_facts,
        entries=outcome.entries,
        effects=outcome.effects,
        failed=outcome.failed,
    )


def _describe(reservation: Reservation) -> str:
    computer, request = reservation.computer, reservation.request
    host = f">{computer.vmhost.hostname.partition('.')[0]}" if computer.vmhost else ""
    parts = [f"{computer.shortname}{host}", reservation.image.name]
    if request.user.unityid != requests.RELOAD_USER:
        parts.append(request.user.unityid)
    if request.forimaging:
        parts.append("(imaging)")
    if reservation.is_cluster:
        parts.append("(cluster=parent)" if reservation.is_parent else "(cluster=child)")
    return " ".join(parts)
