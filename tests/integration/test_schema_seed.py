"""A new database holds every row that the web site and the daemon count on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from vcld.schema import models as m
from vcld.schema.columns import Base

SEED = json.loads((Path(__file__).parents[1] / "data" / "vcl-seed-rows.json").read_text())
#: Columns of the contract that name a row of another table.
REFERENCES: dict[str, dict[str, tuple[str, Any, Any]]] = {
    "provisioning": {"module": ("moduleid", m.Module.name, m.Module.id)},
    "OS": {"module": ("moduleid", m.Module.name, m.Module.id)},
    "resourcegroup": {
        "ownergroup": ("ownerusergroupid", m.UserGroup.name, m.UserGroup.id),
        "type": ("resourcetypeid", m.ResourceType.name, m.ResourceType.id),
    },
    "computerloadflow": {
        "state": ("computerloadstateid", m.ComputerLoadState.loadstatename, m.ComputerLoadState.id),
        "next": ("nextstateid", m.ComputerLoadState.loadstatename, m.ComputerLoadState.id),
    },
}


def resolved(connection: sa.Connection, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with names of other rows replaced by their ids."""
    result = {}
    for key, value in row.items():
        column, name, id_ = REFERENCES.get(table, {}).get(key, (key, None, None))
        named = name is not None and value is not None
        result[column] = connection.scalar(sa.select(id_).where(name == value)) if named else value
    return result


def test_every_seed_row_of_the_contract_is_there(database: Engine) -> None:
    missing = []
    with database.connect() as connection:
        for table, rows in SEED.items():
            columns = Base.metadata.tables[table].c
            for row in rows:
                facts = resolved(connection, table, row)
                if table == "variable" and facts["value"] is None:
                    del facts["value"]  # a message: its text is our own
                where = [
                    columns[k].is_(None) if v is None else columns[k] == v for k, v in facts.items()
                ]
                query = sa.select(sa.func.count()).select_from(Base.metadata.tables[table])
                if not connection.scalar(query.where(*where)):
                    missing.append((table, row))

    assert missing == []


def test_every_message_of_the_seed_has_a_text_of_ours(database: Engine) -> None:
    keys = [row["name"] for row in SEED["variable"] if row["value"] is None]

    with database.connect() as connection:
        for key in keys:
            text = connection.scalar(sa.select(m.Variable.value).where(m.Variable.name == key))
            assert "subject:" in str(text), key
            assert "message:" in str(text), key
