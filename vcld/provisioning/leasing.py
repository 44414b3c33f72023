"""Leases of a worker: rights shared with other workers, renewed while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vcld import clock
from vcld.errors import BackendUnavailableError, Blame, VcldError, WorkerStopped
from vcld.guest.interface import Tools
from vcld.snapshot import Reservation
from vcld.store import leases
from vcld.waiting import Cancellation, pauses

RENEW_SECONDS = leases.LEASE_SECONDS / 4
#: How often the first in line looks whether it is its turn.
NEXT_SECONDS = 0.25
#: Somebody who watches, a cluster's parent too, hears of a wait this often.
TELL_SECONDS = 300.0
#: Requests behind which somebody waits at the screen go before loads in the background.
URGENT_STATES = frozenset({"new", "reinstall", "image", "checkpoint"})
URGENT, BACKGROUND = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How to wait for one of the slots of a lease, and what its loss means."""

    limit: int = 1
    #: Asked whenever the lease has gone to another one in line: is what it was wanted for done?
    unless: Callable[[], bool] = lambda: False
    #: How often the first in line looks.
    next_seconds: float = NEXT_SECONDS
    #: Longest wait; None: no limit.
    wait_seconds: float | None = None
    #: False: the work goes on when the lease is lost. It only kept too many from working at once.
    is_vital: bool = True


class Leases:
    """What one worker holds. ``tick`` must be called at least every few seconds."""

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        self._reservation = reservation
        self._tools = tools
        self._held: dict[str, int] = {}
        #: Those of the held that the work does not depend on, with their limits.
        self._courtesies: dict[str, int] = {}
        self._renewed_at = 0.0
        self._has_forgotten = False
        #: One was lost, and it was said; what tidies up after that is not held up again.
        self._is_lost = False
        self._claim: int | None = None
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
        turn = Turn(limit=limit, unless=unless, next_seconds=next_seconds)
        with self.take(name, what, turn) as is_ours:
            yield is_ours

    @contextmanager
    def take(self, name: str, what: str, turn: Turn) -> Iterator[bool]:
        """``hold``, by the terms of a turn.

        Raises:
            BackendUnavailableError: as ``hold``; or no slot was free within ``wait_seconds``.
        """
        try:
            is_ours = self._wait_for_slot(name, what, turn)
            if is_ours and not turn.is_vital:
                self._courtesies[name] = turn.limit
            yield is_ours
        finally:
            self._courtesies.pop(name, None)
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
            BackendUnavailableError: a lease was lost; others may go on with the thing. It is
                said once, unlike by ``confirm``.
        """
        if not self._held or self._is_lost or clock.monotonic() - self._renewed_at < RENEW_SECONDS:
            return
        self.confirm()

    def confirm(self) -> None:
        """Renew what is held, now: for the moment before a step that cannot be taken back.

        Raises:
            BackendUnavailableError: a lease was lost.
        """
        vital = {n: token for n, token in self._held.items() if n not in self._courtesies}
        if vital and not self._tools.run(leases.renew, vital):
            self._is_lost = True
            raise BackendUnavailableError(
                "a lease was lost because this worker was held up; the work is done over",
                blame=Blame.NOBODY,
            )
        for name, limit in self._courtesies.items():
            self._keep(name, limit)
        self._renewed_at = clock.monotonic()

    def is_claimed(self) -> bool:
        """True while the reservation is this worker's, as at the first lease it asked for."""
        if self._claim is None:
            return False
        found: bool = self._tools.run(leases.is_claim, self._reservation.id, self._claim)
        return found

    def _keep(self, name: str, limit: int) -> None:
        """Renew a lease that may be lost; one that was is asked for again, without a wait."""
        if self._tools.run(leases.renew, {name: self._held[name]}):
            return
        if not self.is_claimed():
            return  # what is in line now is our successor's
        self._tools.log.warning("a lease was lost; the work goes on", lease=name)
        self._join(name)
        self._tools.run(leases.advance, name, self._held[name], limit=limit)

    def _join(self, name: str, amount: int = 0) -> None:
        run, reservationid = self._tools.run, self._reservation.id
        if not self._has_forgotten:
            self._claim = run(leases.find_claim, reservationid)
            run(leases.forget, reservationid)
            self._has_forgotten = True
        self._is_lost = self._is_lost and bool(self._held)
        facts = {"reservationid": reservationid, "urgency": self._urgency, "amount": amount}
        self._held[name] = run(leases.join, name, **facts)

    def _wait_for_slot(self, name: str, what: str, turn: Turn) -> bool:
        told, told_at = -1, clock.monotonic()
        deadline = None if turn.wait_seconds is None else told_at + turn.wait_seconds
        holders: frozenset[int] | None = None
        self._join(name)
        for pause in pauses(0.05, 2.0):
            place = self._tools.run(leases.advance, name, self._held[name], limit=turn.limit)
            if place is None:
                self._join(name)
                continue
            if place.slot is not None:
                return True
            if holders not in {None, place.holders} and turn.unless():
                return False
            holders = place.holders
            now = clock.monotonic()
            if deadline is not None and now > deadline:
                raise BackendUnavailableError(
                    f"{what} could not be had within {turn.wait_seconds:g} s,"
                    f" {len(place.holders)} of {turn.limit} are taken",
                    blame=Blame.NOBODY,
                )
            if place.before != told or now - told_at > TELL_SECONDS:
                told, told_at = place.before, now
                line = f", {told} before it" if told else ""
                self._tools.progress("info", f"waiting for {what}{line}")
            # Whoever is next looks often; the others need not.
            self._tools.cancellation.wait(min(pause, turn.next_seconds) if not told else pause)
            self.tick()
        raise AssertionError  # pauses never end

    def _give_up(self, name: str) -> None:
        token = self._held.pop(name, None)
        # A worker that is told to stop, or has lost the database, leaves it to the expiry.
        with suppress(VcldError, WorkerStopped):
            if token is not None:
                self._tools.run(leases.release, name, token)


class Renewing(Cancellation):
    """A worker's cancellation whose waits renew its leases, however long they are.

    So what waits by it, such as the end of a command, needs to know nothing of leases.
    """

    def __init__(self, inner: Cancellation, tick: Callable[[], None]) -> None:
        # Everything but the waits is the other's, and so is the descriptor.
        self._inner = inner
        self._tick = tick

    def fileno(self) -> int:
        """See ``Cancellation``."""
        return self._inner.fileno()

    def stop(self, reason: str) -> None:
        """See ``Cancellation``."""
        self._inner.stop(reason)

    def look(self) -> None:
        """See ``Cancellation``."""
        self._inner.look()

    def reason(self) -> str | None:
        """See ``Cancellation``."""
        return self._inner.reason()

    def wait(self, seconds: float, *fds: int) -> list[int]:
        """Wait as ``Cancellation`` does, and renew meanwhile.

        Raises:
            WorkerStopped: when the work must stop, at once.
            BackendUnavailableError: a lease was lost.
        """
        deadline = clock.monotonic() + seconds
        while True:
            self._tick()
            left = deadline - clock.monotonic()
            ready = self._inner.wait(min(max(0.0, left), RENEW_SECONDS / 2), *fds)
            if ready or deadline <= clock.monotonic():
                return ready
