"""Leases of a worker: rights shared with other workers, renewed while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vcld import clock
from vcld.errors import BackendUnavailableError, Blame, VcldError, WorkerStopped
from vcld.guest.interface import Tools
from vcld.snapshot import Reservation
from vcld.store import leases
from vcld.waiting import pauses

RENEW_SECONDS = leases.LEASE_SECONDS / 4
#: How often the first in line looks whether it is its turn.
NEXT_SECONDS = 0.25
#: Requests behind which somebody waits at the screen go before loads in the background.
URGENT_STATES = frozenset({"new", "reinstall", "image", "checkpoint"})
URGENT, BACKGROUND = 0, 1


class Leases:
    """What one worker holds. ``tick`` must be called at least every few seconds."""

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        self._reservation = reservation
        self._tools = tools
        self._held: dict[str, int] = {}
        self._renewed_at = 0.0
        self._has_forgotten = False
        hurried = reservation.request.state in URGENT_STATES and not reservation.preload_only
        self._urgency = URGENT if hurried else BACKGROUND

    @contextmanager
    def hold(
        self,
        name: str,
        what: str,
        *,
        limit: int = 1,
        unless: Callable[[], bool] = lambda: False,
        next_seconds: float = NEXT_SECONDS,
    ) -> Iterator[bool]:
        """Hold one of ``limit`` slots of a lease; wait in line for it, telling the user.

        ``unless`` is asked whenever the lease has gone to another one in line: what it was
        wanted for may be done. Then the wait ends without the lease, and False is yielded.
        The first in line looks every ``next_seconds``.

        Raises:
            WorkerStopped: the wait was cancelled.
            BackendUnavailableError: another lease was lost meanwhile.
        """
        try:
            yield self._wait_for_slot(name, what, limit, unless, next_seconds)
        finally:
            self._give_up(name)

    @contextmanager
    def promise(self, name: str, amount: int) -> Iterator[None]:
        """Promise an amount under a name until the block ends."""
        self._join(name, amount)
        try:
            yield
        finally:
            self._give_up(name)

    def tick(self) -> None:
        """Renew what is held, when it is time.

        Raises:
            BackendUnavailableError: a lease was lost; others may go on with the thing.
        """
        if not self._held or clock.monotonic() - self._renewed_at < RENEW_SECONDS:
            return
        self.confirm()

    def confirm(self) -> None:
        """Renew what is held, now: for the moment before a step that cannot be taken back.

        Raises:
            BackendUnavailableError: a lease was lost.
        """
        if self._held and not self._tools.run(leases.renew, dict(self._held)):
            raise BackendUnavailableError(
                "a lease was lost because this worker was held up; the work is done over",
                blame=Blame.NOBODY,
            )
        self._renewed_at = clock.monotonic()

    def _join(self, name: str, amount: int = 0) -> None:
        run, reservationid = self._tools.run, self._reservation.id
        if not self._has_forgotten:
            run(leases.forget, reservationid)
            self._has_forgotten = True
        facts = {"reservationid": reservationid, "urgency": self._urgency, "amount": amount}
        self._held[name] = run(leases.join, name, **facts)

    def _wait_for_slot(
        self, name: str, what: str, limit: int, unless: Callable[[], bool], next_seconds: float
    ) -> bool:
        told = -1
        holders: frozenset[int] | None = None
        self._join(name)
        for pause in pauses(0.05, 2.0):
            place = self._tools.run(leases.advance, name, self._held[name], limit=limit)
            if place is None:
                self._join(name)
                continue
            if place.slot is not None:
                return True
            if holders not in {None, place.holders} and unless():
                return False
            holders = place.holders
            if place.before != told:
                told = place.before
                line = f", {told} before it" if told else ""
                self._tools.progress("info", f"waiting for {what}{line}")
            # Whoever is next looks often; the others need not.
            self._tools.cancellation.wait(min(pause, next_seconds) if not told else pause)
            self.tick()
        raise AssertionError  # pauses never end

    def _give_up(self, name: str) -> None:
        token = self._held.pop(name, None)
        # A worker that is told to stop, or has lost the database, leaves it to the expiry.
        with suppress(VcldError, WorkerStopped):
            if token is not None:
                self._tools.run(leases.release, name, token)
