"""Whether a worker may go on: the request, the claim and the node's lease, as the database says."""

from __future__ import annotations

import os
from collections.abc import Callable

from vcld import clock
from vcld.errors import StoreError
from vcld.schema.engine import Database
from vcld.states.assignment import Assignment
from vcld.states.table import STATES
from vcld.store import grips, nodes, requests
from vcld.store.grips import Grip
from vcld.waiting import Cancellation

#: The daemon has not been heard of for so long that another node may take over.
LEASE_LOST = "the daemon has been silent for too long"
#: The request is no longer what the worker was started for.
REQUEST_CHANGED = "the request was changed"
#: A worker whose daemon seems well still asks this often whether it may go on.
CHECK_SECONDS = 20.0
#: How often it looks whether there is anything to ask.
ASK_SECONDS = 3.0


class Leave:
    """Leave to work. Its ``cancellation`` ends every wait of the worker when it is withdrawn."""

    def __init__(self, assignment: Assignment, grip: Callable[[], Grip]) -> None:
        self._assignment = assignment
        self._grip = grip
        self._parent = os.getppid()
        self._limit_seconds = assignment.settings.takeover_after_seconds
        self._check_seconds = CHECK_SECONDS
        if self._limit_seconds:
            self._check_seconds = min(CHECK_SECONDS, self._limit_seconds / 10)
        self.cancellation = Cancellation(
            self._find_reason, ask_interval_seconds=min(ASK_SECONDS, self._check_seconds)
        )
        self._checked_at = self._answered_at = clock.monotonic()
        self._is_told_to_look = False

    def look(self) -> None:
        """Ask the database soon. For a signal handler."""
        self._is_told_to_look = True
        self.cancellation.look()

    def _find_reason(self) -> str | None:
        """Why not to go on.

        The database is asked when the daemon says so, when the daemon is dead, and now and
        then in case that it hangs: another node may take over when the heartbeat has been
        silent for long enough, and by then this worker must have stopped.
        """
        is_due = clock.monotonic() - self._checked_at >= self._check_seconds
        if not self._is_told_to_look and not is_due and os.getppid() == self._parent:
            return None
        self._is_told_to_look = False
        self._checked_at = clock.monotonic()
        grip = self._grip()
        quiet = Database(self._assignment.database.engine)
        try:
            pair, owned, silent = quiet.run(
                lambda connection: (
                    requests.find_pair(connection, grip.requestid),
                    grips.is_held(connection, grip),
                    nodes.silent_seconds(connection, self._assignment.node.id),
                )
            )
        except StoreError:
            # Not known: whoever writes next finds out, but others may take over meanwhile.
            return self._find_loss(clock.monotonic() - self._answered_at)
        self._answered_at = clock.monotonic()
        expected = {("pending", grip.state)}
        if not grip.is_pending:
            expected.add((grip.state, grip.laststate))
        if not owned or pair not in expected:
            return REQUEST_CHANGED
        return self._find_loss(silent)

    def _find_loss(self, silent_seconds: float) -> str | None:
        limit, state = self._limit_seconds, STATES[self._grip().state]
        if limit and silent_seconds > 0.9 * limit and not state.uninterruptible:
            return LEASE_LOST
        return None
