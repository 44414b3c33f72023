"""The steps of a load in their order, and how long each takes (tables computerloadflow)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld.schema.models import ComputerLoadFlow, ComputerLoadState
from vcld.schema.own import LoadDuration


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """A step of a load, and how long it takes by measurement or by the site's estimate."""

    name: str
    prettyname: str
    seconds: float


def load_flow(
    connection: Connection, computer_type: str, imageid: int, provisioning: str
) -> list[LoadStep]:
    """The steps of ``computerloadflow`` in order, from the one that follows no other."""
    after = aliased(ComputerLoadState)
    rows = connection.execute(
        sa.select(
            ComputerLoadState.loadstatename,
            ComputerLoadState.prettyname,
            ComputerLoadState.est,
            after.loadstatename.label("following"),
            LoadDuration.milliseconds,
        )
        .select_from(ComputerLoadFlow)
        .join(ComputerLoadState, ComputerLoadState.id == ComputerLoadFlow.computerloadstateid)
        .join(after, after.id == ComputerLoadFlow.nextstateid, isouter=True)
        .join(
            LoadDuration,
            sa.and_(
                LoadDuration.loadstatename == ComputerLoadState.loadstatename,
                LoadDuration.imageid == imageid,
                LoadDuration.provisioning == provisioning,
            ),
            isouter=True,
        )
        .where(ComputerLoadFlow.type == computer_type)
    ).all()
    return _in_order({row.loadstatename: row for row in rows})


def _in_order(rows: Mapping[str, Any]) -> list[LoadStep]:
    followers = {row.following for row in rows.values()}
    name = next((name for name in rows if name not in followers), None)
    # Where loads were measured, a step without a measurement is one that they do not have.
    is_measured = any(row.milliseconds is not None for row in rows.values())
    steps: list[LoadStep] = []
    while name is not None and name in rows and len(steps) < len(rows):
        row = rows[name]
        steps.append(
            LoadStep(
                name=name,
                prettyname=(row.prettyname or name).strip(),
                seconds=(row.milliseconds or 0) / 1000 if is_measured else row.est or 0,
            )
        )
        name = row.following
    return steps
