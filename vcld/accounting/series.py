"""Running VMs and transfer time over a window, in equal steps, for a plot."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.sqlfacts import latest
from vcld.accounting.tables import Tables
from vcld.accounting.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One value for each step of the window."""

    start: int
    step_seconds: int
    #: VMs that run at the begin of the step.
    running_vms: list[int]
    #: Seconds spent on placing images, told at the step in which a transfer began.
    transfer_seconds: list[int]


def series(connection: Connection, tables: Tables, window: Window, steps: int) -> Series:
    """The series of a window that is cut into so many steps, or into seconds if it is short."""
    step = max(1, -(-(window.end - window.start) // steps))
    count = -(-(window.end - window.start) // step)
    stay = tables.history.c
    runs = window.runs(tables)
    until = sa.case((stay.retime > 0, stay.retime), (stay.etime > 0, stay.etime), else_=window.now)
    # At the begin of a step: who came at or before it has come, who left then is away.
    came = _by_step(connection, window, step, stay.rstime + step - 1, sa.func.count(), runs)
    left = _by_step(connection, window, step, until + step - 1, sa.func.count(), runs)
    spent = sa.func.sum(window.transfer_seconds(tables))
    transfers = window.transfers(tables)
    placed = _by_step(connection, window, step, stay.pstime, spent, transfers)
    changes = [came.get(at, 0) - left.get(at, 0) for at in range(count)]
    return Series(
        start=window.start,
        step_seconds=step,
        running_vms=list(accumulate(changes)),
        transfer_seconds=[placed.get(at, 0) for at in range(count)],
    )


def _by_step(
    connection: Connection,
    window: Window,
    step: int,
    time: sa.ColumnElement[int],
    value: sa.ColumnElement[Any],
    which: sa.ColumnElement[bool],
) -> dict[int, int]:
    """Sum by the step in which the time lies; earlier ones count to the first."""
    since = latest(0, time - window.start)
    at = (since - since % step).label("at")
    query = sa.select(at, value).where(which).group_by(at)
    return {int(row[0]) // step: int(row[1]) for row in connection.execute(query)}
