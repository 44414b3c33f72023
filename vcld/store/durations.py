"""How long the steps of a load take, remembered for the next time."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Connection

from vcld.schema.own import LoadDuration

#: Weight of the newest load in the remembered duration.
WEIGHT = 0.3


def remember(
    connection: Connection, imageid: int, provisioning: str, seconds: Mapping[str, float]
) -> None:
    """Mix the durations of one load into those of earlier ones; one statement."""
    if not seconds:
        return
    rows = [
        {
            "imageid": imageid,
            "provisioning": provisioning,
            "loadstatename": name,
            "samples": 1,
            "milliseconds": int(value * 1000),
        }
        for name, value in sorted(seconds.items())
    ]
    old = LoadDuration.__table__.c
    if connection.dialect.name == "sqlite":
        lite = sqlite.insert(LoadDuration).values(rows)
        new = lite.excluded
        connection.execute(
            lite.on_conflict_do_update(
                index_elements=["imageid", "provisioning", "loadstatename"],
                set_={
                    "samples": old.samples + 1,
                    "milliseconds": old.milliseconds * (1 - WEIGHT) + new.milliseconds * WEIGHT,
                },
            )
        )
        return
    insert = mysql.insert(LoadDuration).values(rows)
    connection.execute(
        insert.on_duplicate_key_update(
            milliseconds=old.milliseconds * (1 - WEIGHT) + insert.inserted.milliseconds * WEIGHT,
            samples=old.samples + 1,
        )
    )
