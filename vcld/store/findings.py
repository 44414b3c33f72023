"""What the supervisor's look finds, in the order of urgency."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Finding(enum.IntEnum):
    """Why a reservation was found; the order is that of urgency."""

    #: The node's own row, always there.
    NODE = 0
    #: A worker's request was changed, deleted or taken over: tell the worker.
    CHANGED = 1
    #: A claim whose reservation is gone.
    GONE = 2
    #: A claim of another node on a reservation that is this node's now.
    MOVED = 3
    #: The time or event has come for a claim that waits or is to be tried again.
    WAKE = 4
    #: A user waits for this.
    USER = 5
    #: A running session is to be looked at.
    SESSION = 6
    #: Loads nobody waits for: reload, maintenance, loads in advance.
    BACKGROUND = 7
    #: A finished request may be removed.
    FINISHED = 8
    #: A state that no management node processes.
    UNKNOWN = 9
    #: Pending, but nobody works on it.
    STRAY = 10


@dataclass(frozen=True, slots=True)
class Found:
    finding: Finding
    requestid: int
    reservationid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look saw."""

    checkininterval_seconds: int
    #: False: another daemon has taken this node's place.
    is_ours: bool
    messages_need_validating: bool
    blocks_due: bool
    #: Other nodes have been silent for so long that their work may be taken over.
    nodes_silent: bool
    #: Claims of this node of which the rows say that a worker has them.
    running_claims: int
    found: tuple[Found, ...]


def order(found: Sequence[Found]) -> list[Found]:
    """One entry per reservation, the most urgent finding of each, most urgent first."""
    best: dict[int, Found] = {}
    for item in sorted(found, key=lambda item: (item.finding, item.requestid)):
        best.setdefault(item.reservationid, item)
    return list(best.values())
