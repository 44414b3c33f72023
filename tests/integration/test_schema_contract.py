"""The schema that we create is VCL's, to the letter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from tests.mariadb import MariaDB
from vcld.errors import SchemaError
from vcld.schema.create import create_schema, ensure_own_tables
from vcld.schema.engine import make_engine

CONTRACT = Path(__file__).parents[1] / "data" / "vcl-tables.json"
SHARED = Path(__file__).parents[3] / "shared" / "vcl-schema" / "tables.json"

Facts = dict[str, Any]


@pytest.fixture(
    params=["", "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE"], ids=["lax", "strict"]
)
def empty(request: pytest.FixtureRequest, mariadb: MariaDB) -> Iterator[Engine]:
    mode = mariadb.query("SELECT @@GLOBAL.sql_mode")[0][0]
    mariadb.query(f"SET GLOBAL sql_mode = '{request.param}'")
    engine = make_engine(mariadb.create_database("contract"))
    yield engine
    engine.dispose()
    mariadb.query(f"SET GLOBAL sql_mode = '{mode}'")
    mariadb.query("DROP DATABASE contract")


def read_schema(mariadb: MariaDB, name: str) -> Facts:
    """Read what information_schema says, in the form of the contract."""
    tables: Facts = {}
    columns = mariadb.query(
        "SELECT table_name, column_name, column_type, is_nullable, column_default, extra"
        f" FROM information_schema.columns WHERE table_schema = '{name}'"
        " ORDER BY table_name, ordinal_position"
    )
    for table, column, kind, nullable, default, extra in columns:
        facts = tables.setdefault(str(table), {"columns": [], "keys": {}, "foreign_keys": []})
        facts["columns"].append(
            {
                "name": column,
                "type": kind,
                "nullable": nullable == "YES",
                "default": default,
                "extra": extra,
            }
        )
    keys = mariadb.query(
        "SELECT table_name, index_name, non_unique, column_name FROM"
        f" information_schema.statistics WHERE table_schema = '{name}'"
        " ORDER BY table_name, index_name, seq_in_index"
    )
    for table, index, non_unique, column in keys:
        key = tables[str(table)]["keys"].setdefault(
            index, {"unique": not non_unique, "columns": []}
        )
        key["columns"].append(column)
    foreign = mariadb.query(
        "SELECT k.table_name, k.column_name, k.referenced_table_name, k.referenced_column_name,"
        " r.update_rule, r.delete_rule FROM information_schema.key_column_usage k"
        " JOIN information_schema.referential_constraints r"
        " ON r.constraint_schema = k.constraint_schema AND r.table_name = k.table_name"
        " AND r.constraint_name = k.constraint_name"
        f" WHERE k.constraint_schema = '{name}' ORDER BY k.table_name, k.column_name"
    )
    for table, column, target, target_column, on_update, on_delete in foreign:
        tables[str(table)]["foreign_keys"].append(
            {
                "column": column,
                "references": f"{target}.{target_column}",
                "on_update": on_update.replace("NO ACTION", "RESTRICT"),  # type: ignore[attr-defined]
                "on_delete": on_delete.replace("NO ACTION", "RESTRICT"),  # type: ignore[attr-defined]
            }
        )
    return tables


def normal(tables: Facts) -> Facts:
    """Foreign keys have no order."""
    return {
        name: {**facts, "foreign_keys": sorted(facts["foreign_keys"], key=lambda f: f["column"])}
        for name, facts in tables.items()
    }


def test_created_schema_equals_the_contract(mariadb: MariaDB, empty: Engine) -> None:
    expected = normal(json.loads(CONTRACT.read_text()))

    create_schema(empty)

    made = normal(read_schema(mariadb, "contract"))
    vcl = {name: facts for name, facts in made.items() if not name.startswith("vcld_")}
    assert len(expected) == 85
    assert sorted(vcl) == sorted(expected)
    for name, facts in expected.items():
        assert vcl[name] == facts, name


def test_contract_is_the_shared_one() -> None:
    if SHARED.exists():
        assert json.loads(CONTRACT.read_text()) == json.loads(SHARED.read_text())


def test_schema_is_not_made_in_a_database_that_holds_tables(
    mariadb: MariaDB, empty: Engine
) -> None:
    mariadb.query("CREATE TABLE precious (id INT)", "contract")

    with pytest.raises(SchemaError, match="not empty"):
        create_schema(empty)

    assert mariadb.query("SHOW TABLES", "contract") == (("precious",),)


def test_existing_database_gets_only_our_own_tables(mariadb: MariaDB, empty: Engine) -> None:
    create_schema(empty)
    mariadb.query("DROP TABLE vcld_claim", "contract")
    before = read_schema(mariadb, "contract")

    made = ensure_own_tables(empty)

    after = read_schema(mariadb, "contract")
    assert made == ["vcld_claim"]
    assert {name for name in after if name not in before} == {"vcld_claim"}
