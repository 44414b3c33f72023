"""A new database holds every row that the web site and the daemon count on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.mariadb import Server
from vcld.schema import models as m
from vcld.schema.columns import Base
from vcld.schema.create import create_schema
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator

CONTRACT = Path(__file__).parents[1] / "data" / "vcl-seed-rows.json"
SHARED = Path(__file__).parents[3] / "shared" / "vcl-schema" / "seed-rows.json"
SEED: dict[str, list[dict[str, Any]]] = json.loads(CONTRACT.read_text())
MODULE = ("moduleid", m.Module.name, m.Module.id)
LOAD_STATE = (m.ComputerLoadState.loadstatename, m.ComputerLoadState.id)
#: Columns of the contract that name a row of another table.
REFERENCES: dict[str, dict[str, tuple[str, Any, Any]]] = {
    "provisioning": {"module": MODULE},
    "OS": {"module": MODULE},
    "resourcegroup": {
        "ownergroup": ("ownerusergroupid", m.UserGroup.name, m.UserGroup.id),
        "type": ("resourcetypeid", m.ResourceType.name, m.ResourceType.id),
    },
    "computerloadflow": {
        "state": ("computerloadstateid", *LOAD_STATE),
        "next": ("nextstateid", *LOAD_STATE),
    },
}


@pytest.fixture(scope="module", params=["mariadb", "sqlite"])
def new(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """A database right after ``vcld db init``."""
    server: Server | None = None
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        engine = make_engine(server.create_database("new", sql_mode="strict"))
    else:
        engine = make_engine(f"sqlite:///{tmp_path_factory.mktemp('seed')}/vcl.sqlite")
    create_schema(engine)
    with engine.begin() as connection:
        seed(connection)
    yield engine
    engine.dispose()
    if server is not None:
        server.drop_database("new")


def resolved(connection: sa.Connection, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with names of other rows replaced by their ids."""
    facts = {}
    for key, value in row.items():
        column, name, id_ = REFERENCES.get(table, {}).get(key, (key, None, None))
        named = name is not None and value is not None
        facts[column] = connection.scalar(sa.select(id_).where(name == value)) if named else value
        assert not named or facts[column] is not None, f"{table}: {key} {value!r} does not exist"
    if table == "variable" and facts["value"] is None:
        del facts["value"]  # a message: its text is our own
    return facts


def test_every_seed_row_of_the_contract_is_there(new: Engine) -> None:
    missing = []
    with new.connect() as connection:
        for name, rows in SEED.items():
            table = Base.metadata.tables[name]
            for row in rows:
                facts = resolved(connection, name, row)
                where = [
                    table.c[key].is_(None) if value is None else table.c[key] == value
                    for key, value in facts.items()
                ]
                count = sa.select(sa.func.count()).select_from(table).where(*where)
                if connection.scalar(count) != 1:
                    missing.append((name, row))

    assert missing == []


def test_seed_contract_is_the_shared_one() -> None:
    if SHARED.exists():
        assert CONTRACT.read_bytes() == SHARED.read_bytes()


def test_every_foreign_key_of_a_new_database_leads_to_a_row(new: Engine) -> None:
    with new.begin() as connection:
        seed_simulator(connection)
        for table in Base.metadata.tables.values():
            for key in table.foreign_keys:
                target = key.column.table.alias()
                dangling = sa.select(sa.func.count()).where(
                    key.parent.is_not(None),
                    ~sa.exists().where(target.c[key.column.name] == key.parent),
                )
                assert connection.scalar(dangling.select_from(table)) == 0, key


def test_a_computer_of_a_new_database_holds_no_image(new: Engine) -> None:
    with new.connect() as connection:
        image, revision = Base.metadata.tables["image"], Base.metadata.tables["imagerevision"]
        row = connection.execute(
            sa.select(image.c.id, image.c.name, revision.c.id, revision.c.production).join(
                revision, revision.c.imageid == image.c.id
            )
        ).all()

    assert row == [(1, "noimage", 1, 1)]


def test_every_message_of_the_seed_has_a_text_of_ours(new: Engine) -> None:
    keys = [row["name"] for row in SEED["variable"] if row["value"] is None]

    with new.connect() as connection:
        for key in keys:
            text = connection.scalar(sa.select(m.Variable.value).where(m.Variable.name == key))
            assert "subject:" in str(text), key
            assert "message: |\n" in str(text), f"{key}: the web site cannot read it"


def test_simulated_hardware_can_be_added_once_and_again(new: Engine) -> None:
    query = sa.select(m.Module.name).where(m.Module.name.like("%simulator"))
    for _ in range(2):
        with new.begin() as connection:
            seed_simulator(connection)

            assert set(connection.scalars(query)) == {"provisioning_simulator", "os_simulator"}
            names = list(connection.scalars(sa.select(m.Provisioning.name)))
            assert names.count("simulator") == 1
            assert list(connection.scalars(sa.select(m.OS.name))).count("simulator") == 1
