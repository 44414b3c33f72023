"""What becomes of a reservation whose worker died without a word.

It is tried again after a pause, a few times; then it ends by its state's failure row. The
load log says why, and the counter lives in the claim, so that a restart does not forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from vcld.accounting.recorder import Recorder
from vcld.config import Settings
from vcld.errors import Blame
from vcld.schema.engine import Connection
from vcld.states import cluster, competition, failure
from vcld.states.outcome import Outcome
from vcld.states.table import STATES
from vcld.store import grips, requests, reservations, snapshots, transitions
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip


@dataclass(frozen=True, slots=True)
class Death:
    """A claim without a worker, and in a clause how that came."""

    grip: Grip
    manner: str


def recover(
    connection: Connection,
    catalog: Catalog,
    settings: Settings,
    recorder: Recorder,
    death: Death,
    log: Any,
) -> str | None:
    """Put a dead worker's reservation back in order, in one transaction.

    Returns:
        Why the request was ended; None when its work is repeated or not ours any more.
    """
    grip = grips.fence(connection, death.grip)
    if grip is None:
        return None  # it had written its ending
    log = log.bind(request_id=grip.requestid, reservation_id=grip.reservationid, state=grip.state)
    pair = requests.find_pair(connection, grip.requestid)
    expected = {("pending", grip.state), (grip.state, grip.laststate)}
    if pair is None or pair not in expected:
        log.warning("worker died; the request was changed meanwhile", reason=death.manner)
        _hand_back(connection, catalog, grip, death.manner)
        if pair is None:
            recorder.vanish(connection, [grip.reservationid])
        return None
    row, attempts = STATES[grip.state], grip.attempts + 1
    if row.repeatable and attempts < settings.max_attempts:
        pause = failure.retry_pause_seconds(settings, attempts)
        why = f"worker {death.manner}; attempt {attempts + 1} of {settings.max_attempts} follows"
        _hand_back(connection, catalog, grip, why, attempts=attempts, retry_seconds=pause)
        recorder.hand_back(connection, grip)
        log.warning("worker died, its work is repeated", reason=why, pause_seconds=pause)
        return None
    if pair[0] != "pending":
        # A split cluster's parent may die before it marked the request pending.
        transitions.set_pending(connection, catalog, grip)
    outcome = _decide(connection, grip, f"worker {death.manner}, attempt {attempts}")
    _fail(connection, catalog, recorder, grip, outcome)
    log.error("worker died, its request is ended", reason=outcome.reason)
    return outcome.reason


def _hand_back(
    connection: Connection,
    catalog: Catalog,
    grip: Grip,
    why: str,
    *,
    attempts: int = 0,
    retry_seconds: float | None = None,
) -> None:
    transitions.hand_back(
        connection,
        catalog,
        grip,
        computer_state=restored_computer_state(connection, grip),
        entries=(("info", why),),
        retry_seconds=retry_seconds,
        attempts=attempts,
        reason=why,
    )


def restored_computer_state(connection: Connection, grip: Grip) -> str | None:
    """``available`` for a computer left in mid-load; it will be found to need a reload."""
    state = snapshots.find_computer_state(connection, grip.computerid)
    if state != "reloading" or requests.is_computer_held(connection, grip):
        return None
    return "available"


def _decide(connection: Connection, grip: Grip, message: str) -> Outcome:
    situation = failure.Situation(
        state=grip.state,
        requestid=grip.requestid,
        computerid=grip.computerid,
        computer_state=snapshots.find_computer_state(connection, grip.computerid),
        seconds_left=requests.seconds_to_end(connection, grip.requestid) or 0,
        is_taken=competition.is_taken(
            requests.find_rivals(connection, grip.computerid, grip.requestid)
        ),
        held=requests.find_held(connection, grip.requestid, grip.computerid),
    )
    return failure.decide(situation, message, Blame.MANAGEMENT_NODE)


def _fail(
    connection: Connection, catalog: Catalog, recorder: Recorder, grip: Grip, outcome: Outcome
) -> None:
    ids, logid = reservations.of_request(connection, grip.requestid)
    effects = list(outcome.effects)
    if grip.state == "reserved" and grip.is_parent and len(ids) > 1:
        effects.append(partial(cluster.take_back, grip.requestid, grip.computerid))
    transitions.finish(
        connection,
        catalog,
        grip,
        transitions.Ending(
            request_state=outcome.request,
            computer_state=outcome.computer,
            log_ending=outcome.ending,
            entries=outcome.entries,
            effects=tuple(effects),
            reservationids=ids,
            logid=logid,
        ),
    )
    recorder.end(
        connection,
        grip,
        request_state=outcome.request,
        log_ending=outcome.ending,
        failed=outcome.failed,
        reservationids=ids,
    )
