"""The embedded database of the demonstration has the same tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from vcld.errors import SchemaError
from vcld.schema import check, rights
from vcld.schema import models as m
from vcld.schema.columns import Base
from vcld.schema.create import create_schema, ensure_own_tables, vcl_tables
from vcld.schema.engine import Database, make_engine
from vcld.schema.own import OWN_TABLES
from vcld.schema.seed import seed, seed_simulator
from vcld.states.table import STATES

STORE = Path(check.__file__).parents[1] / "store"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{tmp_path}/vcl.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture
def new(empty: Engine) -> Engine:
    create_schema(empty)
    with empty.begin() as connection:
        seed(connection)
        seed_simulator(connection)
    return empty


def test_embedded_database_has_every_table_column_and_foreign_key(new: Engine) -> None:
    inspector = sa.inspect(new)

    assert len(vcl_tables()) == 85
    for table in Base.metadata.tables.values():
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        assert list(columns) == [column.name for column in table.columns], table.name
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, column
        keys = {
            (key["constrained_columns"][0], key["referred_table"], key["referred_columns"][0])
            for key in inspector.get_foreign_keys(table.name)
        }
        assert keys == {
            (key.parent.name, key.column.table.name, key.column.name) for key in table.foreign_keys
        }


def test_embedded_database_passes_the_check(new: Engine) -> None:
    assert Database(new).run(check.find_problems) == []


def test_embedded_database_holds_foreign_keys(new: Engine) -> None:
    orphan = sa.insert(m.Reservation).values(
        requestid=1, computerid=1, imageid=1, imagerevisionid=1, managementnodeid=1
    )
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), new.begin() as connection:
        connection.execute(orphan)


def test_ids_of_removed_rows_do_not_come_again(new: Engine) -> None:
    with new.begin() as connection:
        ids = []
        for _ in range(2):
            made = connection.execute(sa.insert(m.State).values(name="passing"))
            assert made.inserted_primary_key is not None
            ids.append(made.inserted_primary_key[0])
            connection.execute(sa.delete(m.State).where(m.State.id == ids[-1]))

    assert ids[1] > ids[0]


def test_schema_is_not_made_twice(new: Engine) -> None:
    with pytest.raises(SchemaError, match="is not empty"):
        create_schema(new)


def test_only_missing_tables_of_ours_are_made(new: Engine) -> None:
    with new.begin() as connection:
        OWN_TABLES[0].drop(connection)

    assert ensure_own_tables(new) == [OWN_TABLES[0].name]
    assert ensure_own_tables(new) == []


def test_check_asks_for_every_state_that_requests_are_handled_in_or_end_in() -> None:
    needed = dict(check.NEEDED_ROWS)[m.State.name]
    outcomes = {
        name for row in STATES.values() for name in (*row.success, *row.failure, *row.other)
    }

    assert set(STATES) | outcomes <= needed


def test_check_asks_for_the_right_to_write_each_table_that_the_store_writes() -> None:
    written = set()
    for path in STORE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        written |= set(re.findall(r"\b(?:insert|update|delete)\(\s*(?:m\.)?([A-Z]\w+)", text))
    ours = {"Claim", "Daemon", "LoadDuration", "Notice", "HostKey", "Lease"}

    assert written - ours == {model.__name__ for model in rights.WRITTEN}
