"""The table of request states: who handles each, and what may come of it.

One place for the supervisor, for ``vcld states``, for the documentation and for the tests.
A test holds it against the ``state`` rows of the schema and against the handlers' outcomes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from vcld.states.outcome import Result

if TYPE_CHECKING:
    from vcld.states.work import Work

Handler = Callable[["Work"], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """What becomes of a request in one state. Outcomes are next request states."""

    #: Module of ``vcld.states`` with the handler; None: no worker is started.
    handler: str | None
    summary: str
    success: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()
    #: Outcomes that are neither, such as time-outs.
    other: tuple[str, ...] = ()
    #: True when the worker changes the computer and must have it alone.
    exclusive: bool = False
    #: False when a worker that died may not simply be started again.
    repeatable: bool = True
    #: True when the work must not be cut short by a stop of the daemon.
    uninterruptible: bool = False


def _load(summary: str, success: str, **more: object) -> StateRow:
    return StateRow(
        handler="new",
        summary=summary,
        success=(success,),
        failure=("failed",),
        exclusive=True,
        **more,  # type: ignore[arg-type]
    )


STATES: Mapping[str, StateRow] = MappingProxyType(
    {
        "new": _load(
            "A user wants a computer: load the image if needed and make the account.",
            "reserved",
            other=("new",),
        ),
        "reload": _load(
            "Load an image on a computer; nobody waits for it.", "complete", other=("reload",)
        ),
        "imageprep": _load(
            "Like reload, asked for by the image library.", "complete", other=("imageprep",)
        ),
        "reinstall": _load(
            "The user wants the computer as it was at first.", "reserved", other=("timeout",)
        ),
        "tovmhostinuse": _load(
            "Make the computer a VM host.", "complete", other=("tovmhostinuse",)
        ),
        "tomaintenance": _load("Put the computer into maintenance.", "complete"),
        "reserved": StateRow(
            handler="reserved",
            summary="The computer is ready: wait for its user to connect.",
            success=("inuse",),
            failure=("failed",),
            other=("timeout",),
        ),
        "inuse": StateRow(
            handler="inuse",
            summary="The user has the computer: look after the session until its end.",
            success=("inuse",),
            failure=("inuse", "maintenance"),
            other=("timeout",),
        ),
        "imageinuse": StateRow(
            handler="inuse",
            summary="Like inuse, for somebody who makes an image.",
            success=("inuse",),
            failure=("inuse", "maintenance"),
            other=("timeout",),
        ),
        "rebootsoft": StateRow(
            handler="inuse",
            summary="The user wants a restart.",
            success=("inuse",),
            failure=("inuse",),
            other=("timeout",),
        ),
        "reboothard": StateRow(
            handler="inuse",
            summary="The user wants a power cycle.",
            success=("inuse",),
            failure=("inuse",),
            other=("timeout",),
        ),
        "servermodified": StateRow(
            handler="inuse",
            summary="The users of a server request changed: follow with the accounts.",
            success=("inuse",),
            failure=("inuse",),
            other=("timeout",),
        ),
        "timeout": StateRow(
            handler="reclaim",
            summary="The reservation ran out: take the computer back.",
            success=("complete",),
            failure=("failed",),
        ),
        "deleted": StateRow(
            handler="reclaim",
            summary="The user ended the reservation: take the computer back.",
            success=("complete",),
            failure=("complete",),
        ),
        "image": StateRow(
            handler="image",
            summary="Capture an image of the computer.",
            success=("complete",),
            failure=("maintenance",),
            exclusive=True,
            repeatable=False,
            uninterruptible=True,
        ),
        "checkpoint": StateRow(
            handler="image",
            summary="Capture an image and give the computer back to its user.",
            success=("reserved",),
            failure=("maintenance",),
            exclusive=True,
            repeatable=False,
            uninterruptible=True,
        ),
        "makeproduction": StateRow(
            handler="makeproduction",
            summary="Make the reservation's image revision the production one.",
            success=("deleted",),
            failure=("deleted",),
        ),
        "complete": StateRow(
            handler=None, summary="Over. Removed at once, or at its end when a user may look."
        ),
        "failed": StateRow(handler=None, summary="Ended by a failure. Removed like complete."),
        "maintenance": StateRow(
            handler=None,
            summary="A capture failed or a session was broken off: an administrator has to look.",
        ),
        "pending": StateRow(
            handler=None,
            summary="In work, or between two looks at it; the last state says at what.",
        ),
    }
)


def find_handler(state: str) -> Handler | None:
    """The handler of a state, imported now; None for states without one."""
    row = STATES.get(state)
    if row is None or row.handler is None:
        return None
    return cast("Handler", importlib.import_module(f"vcld.states.{row.handler}").run)
