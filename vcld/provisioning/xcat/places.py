"""Waiting for a place among those who do the same heavy thing at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from vcld import clock
from vcld.errors import BackendUnavailableError, Blame, ReservationChangedError
from vcld.guest.interface import Tools
from vcld.snapshot import Reservation
from vcld.store import slots
from vcld.waiting import pauses

#: Somebody who watches must hear of us now and then.
TELL_SECONDS = 300.0


@contextlib.contextmanager
def place(
    tools: Tools, reservation: Reservation, name: str, limit: int, *, wait_seconds: float, what: str
) -> Iterator[Callable[[], bool]]:
    """Hold one of ``limit`` places, in the order of asking.

    Yields:
        Whether it is still held: not when the reservation was taken away from this worker.

    Raises:
        BackendUnavailableError: none was free within ``wait_seconds``.
        ReservationChangedError: the claim was taken away.
    """
    ticket = tools.run(slots.draw, name, reservation.id)
    if ticket is None:
        raise ReservationChangedError(f"reservation {reservation.id} is no longer ours")
    try:
        _await(tools, name, ticket, limit, wait_seconds, what)
        yield lambda: tools.run(slots.ask, name, ticket, limit) is not None
    finally:
        tools.run(slots.leave, name, reservation.id)


def _await(
    tools: Tools, name: str, ticket: int, limit: int, wait_seconds: float, what: str
) -> None:
    deadline = clock.monotonic() + wait_seconds
    told: object = None
    told_at = clock.monotonic()
    for pause in pauses(0.1, 2.0):
        found = tools.run(slots.ask, name, ticket, limit)
        if found is None:
            raise ReservationChangedError("the reservation was taken away from this worker")
        if found.granted:
            return
        now = clock.monotonic()
        if now > deadline:
            raise BackendUnavailableError(
                f"{what}: no place within {wait_seconds:g} s, {found.taken} of {limit} are taken",
                blame=Blame.NOBODY,
            )
        if found.ahead != told or now - told_at > TELL_SECONDS:
            told, told_at = found.ahead, now
            text = f"waiting for a place: {what}, {found.taken} of {limit} taken"
            tools.progress("info", f"{text}, {found.ahead} before this one")
        tools.cancellation.wait(pause)
