"""Pure: is a reservation due, and why (not)? The rules of VCL daemon specification §3.

Knows no database. ``vcld.store.look`` asks the same in SQL to find candidates; a test
holds the two together. A question is answered with a reason that an operator can read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: States that put something on a computer, at a set time.
LOAD_STATES = frozenset({"new", "imageprep", "reload", "tovmhostinuse"})
#: Of requests that no user waits for.
BACKGROUND_STATES = (LOAD_STATES - {"new"}) | {"tomaintenance"}
#: States of a running session that is looked at now and then.
SESSION_STATES = frozenset({"inuse", "imageinuse"})
#: States in which a request waits for its removal.
FINISHED_STATES = frozenset({"complete", "failed"})
#: States that are processed whenever they are seen.
IMMEDIATE_STATES = frozenset(
    {"reserved", "deleted", "timeout", "image", "checkpoint", "makeproduction", "reinstall"}
    | {"rebootsoft", "reboothard", "servermodified"}
)
#: States of a request that has its computer: a user, or what a user made, is on it.
SERVED_STATES = (IMMEDIATE_STATES - {"deleted", "timeout"}) | SESSION_STATES | {"maintenance"}
#: States that nobody processes: one waits for its worker, one for an administrator.
QUIET_STATES = frozenset({"pending", "maintenance"})
#: All states a request may have without a warning.
KNOWN_STATES = (
    LOAD_STATES
    | SESSION_STATES
    | FINISHED_STATES
    | IMMEDIATE_STATES
    | QUIET_STATES
    | {"tomaintenance"}
)
#: A finished request with one of these last states is removed at once; the others stay
#: until their end, because the web site shows them to the user.
REMOVED_AT_ONCE = frozenset(
    {"image", "imageprep", "deleted", "makeproduction", "reload", "tomaintenance"}
    | {"tovmhostinuse"}
)

#: "Now" begins half a minute early, because VCL rounds to minutes.
START_AHEAD_SECONDS = 30
#: A start this far away is loaded in advance: [from, to) in seconds.
PRELOAD_FROM_SECONDS = 24 * 60 + 30
PRELOAD_TO_SECONDS = 35 * 60 + 30
#: The end of a session is attended to this long before.
END_AHEAD_SECONDS = 10 * 60 + 30
#: A finished request is removed this long after its end.
REMOVE_AFTER_SECONDS = 30


class Action(enum.Enum):
    """What to do with a reservation now."""

    START = "start"
    PRELOAD = "preload"
    POLL = "poll"
    END = "end"
    REMOVE = "remove"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Verdict:
    action: Action
    #: A clause for people: why now, or why not and what is awaited.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What the decision depends on; seconds relative to the database's now, past negative."""

    state: str
    laststate: str
    start_in_seconds: int
    end_in_seconds: int
    #: None: never checked.
    checked_in_seconds: int | None
    #: Newest change of the user's address in ``changelog``; None without one.
    address_changed_in_seconds: int | None
    preload_done: bool
    #: Seconds between two looks at a session of this kind.
    check_interval_seconds: int


def check_age_seconds(interval_seconds: int) -> int:
    """How old a check must be for the next, in VCL's rounding to minutes (§3)."""
    minutes = max(1, int(interval_seconds / 60 + 0.5))
    return minutes * 60 - 30


def decide(timing: Timing) -> Verdict:
    """Say what is to be done with a reservation now."""
    state = timing.state
    if state in LOAD_STATES or state == "tomaintenance":
        return _decide_start(timing)
    if state in SESSION_STATES:
        return _decide_session(timing)
    if state in FINISHED_STATES:
        return _decide_removal(timing)
    if state in IMMEDIATE_STATES:
        return Verdict(Action.START, f"state {state} is always processed")
    if state == "pending":
        return Verdict(Action.NOTHING, f"pending: {timing.laststate} is being worked on")
    if state == "maintenance":
        return Verdict(Action.NOTHING, "maintenance: waits for an administrator")
    return Verdict(Action.NOTHING, f"state {state!r} is none that a management node processes")


def _decide_start(timing: Timing) -> Verdict:
    ahead = timing.start_in_seconds
    if ahead < START_AHEAD_SECONDS:
        return Verdict(Action.START, "its start has come")
    near = PRELOAD_FROM_SECONDS <= ahead < PRELOAD_TO_SECONDS
    if near and timing.state != "tomaintenance":
        if timing.preload_done:
            return Verdict(Action.NOTHING, f"loaded in advance; starts in {ahead} s")
        return Verdict(Action.PRELOAD, f"starts in {ahead} s: the computer is loaded in advance")
    return Verdict(Action.NOTHING, f"starts in {ahead} s")


def _decide_session(timing: Timing) -> Verdict:
    if timing.end_in_seconds < END_AHEAD_SECONDS:
        return Verdict(Action.END, f"its end is {timing.end_in_seconds} s away")
    checked, changed = timing.checked_in_seconds, timing.address_changed_in_seconds
    if checked is None:
        return Verdict(Action.POLL, "it was never checked")
    if changed is not None and checked < changed <= 0:
        return Verdict(Action.POLL, "the user's address changed since the last check")
    age = check_age_seconds(timing.check_interval_seconds)
    if -checked >= age:
        return Verdict(Action.POLL, f"the last check is {-checked} s old")
    return Verdict(Action.NOTHING, f"next check in {age + checked} s")


def _decide_removal(timing: Timing) -> Verdict:
    if timing.laststate in REMOVED_AT_ONCE:
        return Verdict(Action.REMOVE, f"{timing.state} after {timing.laststate}")
    if timing.end_in_seconds <= -REMOVE_AFTER_SECONDS:
        return Verdict(Action.REMOVE, "its end has passed")
    return Verdict(
        Action.NOTHING,
        f"{timing.state}: stays visible to the user until its end in {timing.end_in_seconds} s",
    )
