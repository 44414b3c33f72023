"""A worker's last write: what its handler decided, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vcld.accounting.recorder import Recorder
from vcld.errors import ExitCode, ReservationChangedError, StoreError
from vcld.messages.notices import Notices
from vcld.schema.engine import Database
from vcld.states import cluster, failure
from vcld.states.assignment import Assignment
from vcld.states.outcome import Outcome, Result, Wait
from vcld.states.table import STATES
from vcld.states.work import Work
from vcld.store import grips, reservations, transitions
from vcld.store import notices as given_notices
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip


def write(work: Work, result: Result) -> ExitCode:
    """Put what a handler decided into the database, in one transaction.

    Raises:
        ReservationChangedError: the claim was lost or the request changed.
        StoreError: the database stayed away.
    """
    if isinstance(result, Wait):
        return park(work, result)
    outcome = cluster.settle(work, result)
    account = _account(work, outcome)
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
        serverrequestid=_server_of(work) if work.grip.state == "new" else None,
    )
    work.tell(outcome.entries)
    finish_once(work.database, work.catalog, work.grip, ending)
    level = work.log.error if outcome.failed else work.log.info
    level(
        "work ended",
        reason=outcome.reason,
        next_state=outcome.request,
        computer_state=outcome.computer,
        log_ending=outcome.ending,
    )
    if not outcome.failed:
        _tell_people(work, outcome)
        return ExitCode.DONE
    _tell_administrators(work, step, outcome.reason, history)
    return ExitCode.FAILED


def _server_of(work: Work) -> int:
    """Of a request that may have been written in part only when it was claimed; 0: none."""
    server = work.reservation.request.server
    return 0 if server is None else server.id


def _tell_people(work: Work, outcome: Outcome) -> None:
    try:
        for tell in outcome.afterwards:
            tell()
    except StoreError as err:
        work.log.warning("people were not told of the outcome", reason=str(err))


def _tell_administrators(work: Work, step: str, reason: str, history: Sequence[str]) -> None:
    """By mail, once for a session that goes on and is looked at again and again."""
    requestid = work.grip.requestid
    try:
        if work.grip.state in failure.LIVE_STATES and not work.database.run(
            lambda connection: given_notices.is_first(connection, requestid, "problem")
        ):
            return
    except StoreError as err:
        work.log.warning("administrators may be told again", reason=str(err))
    work.notices.problem(work.reservation, step, reason, history)


def _account(work: Work, outcome: Outcome) -> transitions.Effect:
    """What the outcome means for the VM; a cluster's child speaks for its own."""
    return lambda connection, _catalog: work.recorder.end(
        connection,
        work.grip,
        request_state=outcome.request,
        log_ending=outcome.ending,
        failed=outcome.failed,
        reservationids=[sibling.id for sibling in work.reservation.siblings],
    )


def park(work: Work, wait: Wait) -> ExitCode:
    """Let the reservation wait without a process.

    Raises:
        ReservationChangedError: the claim was lost.
    """
    held = work.database.run(
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
    work.log.info("work waits", reason=wait.reason, seconds=wait.seconds)
    return ExitCode.DONE


def fail_broken(assignment: Assignment, recorder: Recorder, reason: str) -> ExitCode:
    """Rows are missing: fail this request only, and touch nothing else."""
    grip = assignment.grip
    live = grip.state in failure.LIVE_STATES
    state = "maintenance" if live or not STATES[grip.state].repeatable else "failed"
    log_ending = "failed" if grip.state in failure.UNUSED_STATES else None
    _, logid = assignment.database.run(
        lambda connection: reservations.of_request(connection, grip.requestid)
    )
    ending = transitions.Ending(
        request_state=state,
        log_ending=log_ending,
        logid=logid,
        entries=(("failed", reason),),
        effects=(
            lambda connection, _catalog: recorder.end(
                connection, grip, request_state=state, log_ending=log_ending, failed=True
            ),
        ),
    )
    finish_once(assignment.database, assignment.catalog, grip, ending)
    notices = Notices(assignment.settings, assignment.database, beside=True)
    notices.broken(assignment.node, grip.requestid, grip.state, reason)
    return ExitCode.FAILED


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
