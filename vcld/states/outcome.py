"""What a handler returns. It decides; the worker writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vcld.store.transitions import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a run. None leaves a thing as it is.

    ``reason`` is a clause for the log and for people: "the user did not connect in 900 s".
    """

    reason: str
    #: Next state of the request; only a cluster's parent writes it.
    request: str | None = None
    #: Next last state; None is the state that was worked on.
    laststate: str | None = None
    computer: str | None = None
    #: Other columns of the computer that change with it.
    computer_facts: Mapping[str, int | None] = field(default_factory=dict)
    #: ``log.ending`` of the VCL schema.
    ending: str | None = None
    #: Rows for the load log: (loadstatename, text).
    entries: tuple[tuple[str, str], ...] = ()
    #: Further writes of the same transaction.
    effects: tuple[Effect, ...] = ()
    #: What people are told of it once it is written; not of a failure.
    afterwards: tuple[Callable[[], object], ...] = ()
    #: True when this is the failure row of the state table.
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to be done for now: the claim waits without a process.

    The handler is run again, from its start, when the time or the event has come or when
    the request was changed, and finds its memo.
    """

    seconds: float
    reason: str
    #: ``acknowledge``: the user has pressed Connect.
    wake_on: str | None = None
    memo: Mapping[str, Any] = field(default_factory=dict)


Result = Outcome | Wait
