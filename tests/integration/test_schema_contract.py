"""The schema that we create is VCL's, to the letter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.mariadb import Server
from tests.schema_facts import comparable, engines, read_schema
from vcld.errors import ExitCode, SchemaError, StoreError
from vcld.schema.create import create_schema, ensure_own_tables, missing_own_tables
from vcld.schema.engine import make_engine
from vcld.schema.own import OWN_TABLES

CONTRACT = Path(__file__).parents[1] / "data" / "vcl-tables.json"
SHARED = Path(__file__).parents[3] / "shared" / "vcl-schema" / "tables.json"
NAME = "contract"


@pytest.fixture(params=["lax", "strict"])
def empty(request: pytest.FixtureRequest, mariadb: Server) -> Iterator[Engine]:
    engine = make_engine(mariadb.create_database(NAME, sql_mode=request.param))
    yield engine
    engine.dispose()
    mariadb.drop_database(NAME)


def test_created_schema_equals_the_contract(mariadb: Server, empty: Engine) -> None:
    create_schema(empty)

    expected = comparable(json.loads(CONTRACT.read_text()), mariadb)
    made = comparable(read_schema(mariadb, NAME), mariadb)
    vcl = {name: facts for name, facts in made.items() if not name.startswith("vcld_")}
    assert len(expected) == 85
    assert sorted(vcl) == sorted(expected)
    for name, facts in expected.items():
        assert vcl[name] == facts, name
    assert set(made) - set(vcl) == {table.name for table in OWN_TABLES}
    assert engines(mariadb, NAME) == {"InnoDB"}


def test_contract_is_the_shared_one() -> None:
    if SHARED.exists():
        assert CONTRACT.read_bytes() == SHARED.read_bytes()


def test_creating_the_schema_leaves_the_session_as_it_was(empty: Engine) -> None:
    query = sa.text("SELECT @@SESSION.sql_mode, @@SESSION.foreign_key_checks")
    with empty.connect() as connection:
        before = connection.execute(query).one()

    create_schema(empty)

    with empty.connect() as connection:
        assert connection.execute(query).one() == before


def test_schema_is_not_made_in_a_database_that_holds_tables(mariadb: Server, empty: Engine) -> None:
    mariadb.query("CREATE TABLE precious (id INT)", NAME)

    with pytest.raises(SchemaError, match=r"contract' is not empty \(1 table"):
        create_schema(empty)

    assert mariadb.query("SHOW TABLES", NAME) == (("precious",),)


def test_existing_database_gets_only_our_own_tables(mariadb: Server, empty: Engine) -> None:
    create_schema(empty)
    for table in OWN_TABLES:
        mariadb.query(f"DROP TABLE {table.name}", NAME)
    before = read_schema(mariadb, NAME)

    made = ensure_own_tables(empty)

    after = read_schema(mariadb, NAME)
    assert set(made) == {table.name for table in OWN_TABLES}
    assert {name: facts for name, facts in after.items() if name not in made} == before
    assert ensure_own_tables(empty) == []


def test_own_tables_are_made_once_by_daemons_that_start_together(
    mariadb: Server, empty: Engine
) -> None:
    engines = [make_engine(empty.url) for _ in range(8)]
    together = Barrier(len(engines))

    def start(engine: Engine) -> None:
        together.wait(10)
        ensure_own_tables(engine)

    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(start, engines))

    for engine in engines:
        engine.dispose()
    assert set(read_schema(mariadb, NAME)) == {table.name for table in OWN_TABLES}
    assert ensure_own_tables(empty) == []


def test_own_table_that_was_left_half_made_is_completed(mariadb: Server, empty: Engine) -> None:
    ensure_own_tables(empty)
    before = read_schema(mariadb, NAME)
    mariadb.query("DROP INDEX managementnodeid ON vcld_claim", NAME)

    assert ensure_own_tables(empty) == ["vcld_claim"]
    assert read_schema(mariadb, NAME) == before


def test_user_who_may_not_create_tables_gets_a_sentence(mariadb: Server, empty: Engine) -> None:
    mariadb.query("CREATE USER vcld_reader@'%' IDENTIFIED BY 'secret'")
    mariadb.query(f"GRANT SELECT ON `{mariadb.prefix}{NAME}`.* TO vcld_reader@'%'")
    engine = make_engine(empty.url.set(username="vcld_reader", password="secret"))
    try:
        with pytest.raises(StoreError, match=r"CREATE command denied.*GRANT") as refused:
            ensure_own_tables(engine)
        assert refused.value.exit_code == ExitCode.CONFIG
    finally:
        engine.dispose()
        mariadb.query("DROP USER vcld_reader@'%'")


def test_own_tables_need_no_other_right_than_create(mariadb: Server, empty: Engine) -> None:
    mariadb.query("CREATE USER vcld_maker@'%' IDENTIFIED BY 'secret'")
    mariadb.query(f"GRANT SELECT, CREATE ON `{mariadb.prefix}{NAME}`.* TO vcld_maker@'%'")
    maker = make_engine(empty.url.set(username="vcld_maker", password="secret"))
    try:
        made = ensure_own_tables(maker)
        assert made == [table.name for table in OWN_TABLES]
        with maker.connect() as connection:
            assert missing_own_tables(connection) == []
    finally:
        maker.dispose()
        mariadb.query("DROP USER vcld_maker@'%'")


def test_own_tables_refer_to_no_table_of_vcl(mariadb: Server, empty: Engine) -> None:
    create_schema(empty)

    made = read_schema(mariadb, NAME)

    assert all(made[table.name]["foreign_keys"] == [] for table in OWN_TABLES)
