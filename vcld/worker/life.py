"""From the claim to the ending: one run of a handler."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal as signals
from typing import Any

import structlog

from vcld import processes
from vcld.errors import (
    BackendUnavailableError,
    ConfigError,
    ExitCode,
    ProvisioningError,
    ReservationChangedError,
    ReservationDataError,
    SchemaError,
    StoreError,
    StoreRefusedError,
    ValueRefusedError,
    WorkerStopped,
)
from vcld.messages.notices import Notices
from vcld.snapshot import Reservation
from vcld.states import cluster, failure
from vcld.states.assignment import Assignment
from vcld.states.outcome import Result, Wait
from vcld.states.table import STATES, find_handler
from vcld.states.work import Work
from vcld.store import grips, requests, snapshots, transitions
from vcld.store.grips import ClaimLostError, Grip
from vcld.waiting import Cancellation
from vcld.worker import ending
from vcld.worker.leave import Leave
from vcld.worker.title import set_title

#: What SIGTERM means to a worker: hand the reservation back.
DAEMON_STOPS = "the daemon stops"
#: Handlers that mostly wait; the web site lets users connect while they are pending.
WAITING_STATES = failure.LIVE_STATES | {"reserved"}


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
            return worker.hand_back("the claim was lost before the work began")
        except WorkerStopped as stopped:
            return worker.hand_back(stopped.reason)
        except ReservationChangedError as err:
            return worker.hand_back(str(err))
        except StoreRefusedError as err:
            log.error("the database refused a statement", reason=str(err))
            return ExitCode.UNAVAILABLE
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
        self._work: Work | None = None
        self._leave = Leave(assignment, self._current_grip)
        self._cancellation = self._leave.cancellation

    def prepare_process(self) -> None:
        """Become a process of its own: group, signals, title, database connection."""
        os.setpgid(0, 0)
        signals.set_wakeup_fd(-1)
        for number in (signals.SIGCHLD, signals.SIGINT, signals.SIGALRM):
            signals.signal(number, signals.SIG_DFL)
        # A HUP to all processes of the service is meant for the daemon. Not SIG_IGN: programs
        # that are started would inherit it.
        signals.signal(signals.SIGHUP, lambda *_: None)
        signals.signal(signals.SIGTERM, lambda *_: self._cancellation.stop(DAEMON_STOPS))
        signals.signal(signals.SIGUSR1, lambda *_: self._leave.look())
        signals.pthread_sigmask(signals.SIG_SETMASK, ())
        faulthandler.register(signals.SIGUSR2, all_threads=True)
        gc.disable()  # short life; a collection would copy the parent's memory
        random.seed()
        self._database.after_fork()
        self._database.cancellation = self._cancellation
        self._database.patience_seconds = self._assignment.settings.database_patience_seconds
        set_title(self._assignment.settings.processname, self._grip)

    def work(self) -> ExitCode:
        """Run the handler and write what it decided."""
        exclusive = STATES[self._grip.state].exclusive
        has_computer, reservation = self._database.run(self._begin)
        if isinstance(reservation, ReservationDataError):
            self._log.error("reservation data is broken", reason=str(reservation))
            return ending.fail_broken(self._assignment, self._recorder, str(reservation))
        set_title(self._assignment.settings.processname, self._grip, reservation)
        with structlog.contextvars.bound_contextvars(computer=reservation.computer.shortname):
            self._work = Work(
                settings=self._assignment.settings,
                database=self._database,
                catalog=self._assignment.catalog,
                grip=self._grip,
                reservation=reservation,
                cancellation=self._cancellation,
                notices=Notices(self._assignment.settings, self._database, beside=True),
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
        work, grip = self._work, self._current_grip()
        self._cancellation = self._database.cancellation = Cancellation()
        if work is not None and STATES[grip.state].uninterruptible and self._still_ours(grip):
            # A capture that stops half-way is for an administrator to look at.
            return ending.write(work, failure.outcome_for(work, f"it was stopped: {reason}"))
        resumes = reason == DAEMON_STOPS
        if work is not None and resumes and grip.state in WAITING_STATES:
            return ending.park(work, Wait(seconds=0, reason=reason, memo=work.memo))
        done = self._give_back(
            grip,
            retry_seconds=0 if resumes else None,
            attempts=grip.attempts,
            reason=reason,
        )
        self._log.info("work handed back", reason=reason, claim_was_ours=done)
        return ExitCode.HANDED_BACK

    def _current_grip(self) -> Grip:
        return self._work.grip if self._work is not None else self._grip

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
        if state != "reloading" or requests.is_computer_held(connection, self._grip):
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
            try:
                cluster.begin(work)
                result: Result = handler(work)
            finally:
                work.close()
        except BackendUnavailableError as err:
            if self._may_retry():
                return self._postpone(work, str(err))
            result = failure.outcome_of(work, err)
        except ValueRefusedError as err:
            work.check_unchanged()  # rows of a reservation that is gone are refused, too
            result = failure.outcome_of(work, err)
        except (ProvisioningError, ReservationDataError, ConfigError, SchemaError) as err:
            result = failure.outcome_of(work, err)
        return ending.write(work, result)

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
