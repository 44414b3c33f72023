"""Making the accounting tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.mariadb import Server
from tests.schema_facts import read_schema
from vcld.accounting.codes import LAST_SECOND
from vcld.accounting.install import find_installed, install
from vcld.accounting.tables import tables_in
from vcld.errors import ConfigError, SchemaError
from vcld.schema.engine import Database, make_engine

#: Name → (type, …) as the page of OpenNebula 2.0 has them.
SEED = {
    "history": "vid i seq i host_name t vm_dir t hid i vm_mad t tm_mad t stime i etime i pstime i"
    " petime i rstime i retime i estime i eetime i reason i",
    "host_pool": "oid i host_name v256 state i im_mad v128 vm_mad v128 tm_mad v128"
    " last_mon_time i cluster v128 template t",
    "host_shares": "hid i disk_usage i mem_usage i cpu_usage i max_disk i max_mem i max_cpu i"
    " free_disk i free_mem i free_cpu i used_disk i used_mem i used_cpu i running_vms i",
    "vm_pool": "oid i uid i name t last_poll i state i lcm_state i stime i etime i deploy_id t"
    " memory i cpu i net_tx i net_rx i last_seq i template t",
    "user_pool": "oid i user_name v256 password t enabled i",
}
TYPES = {"i": "int(11)", "t": "text", "v256": "varchar(256)", "v128": "varchar(128)"}
KEYS = {
    "history": [["vid", "seq"]],
    "host_pool": [["host_name"], ["oid"]],
    "host_shares": [["hid"]],
    "vm_pool": [["oid"]],
    "user_pool": [["oid"]],
}

BACKENDS = ("mariadb", "sqlite")


@pytest.fixture
def empty(mariadb: Server) -> Iterator[Engine]:
    engine = make_engine(mariadb.create_database("accounts"))
    yield engine
    engine.dispose()
    mariadb.drop_database("accounts")


def test_tables_have_the_names_columns_types_and_keys_of_opennebula(
    mariadb: Server, empty: Engine
) -> None:
    install(Database(empty), "")

    made = read_schema(mariadb, "accounts")
    assert set(made) == set(SEED)
    for table, columns in SEED.items():
        words = columns.split()
        wanted = dict(zip(words[::2], (TYPES[word] for word in words[1::2]), strict=True))
        found = {c["name"]: c["type"].replace("int", "int(11)").replace("(11)(11)", "(11)")
                 for c in made[table]["columns"]}  # fmt: skip
        assert found == wanted, table
        inspector = sa.inspect(empty)
        keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
        keys += [key["column_names"] for key in inspector.get_indexes(table)]  # type: ignore[misc]
        assert sorted(keys) == KEYS[table]


def test_second_installation_makes_nothing(empty: Engine) -> None:
    assert len(install(Database(empty), "").made) == 5

    again = install(Database(empty), "")

    assert again.made == []
    assert len(again.present) == 5


def test_tables_may_live_in_a_schema_beside_vcls(mariadb: Server, empty: Engine) -> None:
    schema = str(sa.make_url(mariadb.create_database("accounts_other")).database)
    try:
        install(Database(empty), schema)
        with empty.begin() as connection:
            assert find_installed(connection, schema) is not None
            assert find_installed(connection, "") is None
        assert len(read_schema(mariadb, "accounts_other")) == 5
    finally:
        mariadb.drop_database("accounts_other")


def test_somebody_elses_table_of_the_same_name_is_left_alone(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE history (id int, what text)")

    with pytest.raises(SchemaError, match="history is there already with other columns"):
        install(Database(empty), "")

    assert sa.inspect(empty).get_table_names() == ["history"]


def test_table_without_the_key_is_not_taken(empty: Engine) -> None:
    install(Database(empty), "")
    with empty.begin() as c:
        c.exec_driver_sql("ALTER TABLE history DROP PRIMARY KEY")

    with pytest.raises(SchemaError, match=r"history .* primary key \(vid, seq\)"):
        install(Database(empty), "")


def test_after_2038_nothing_is_installed(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcld.clock.epoch", lambda: LAST_SECOND + 1.0)

    with pytest.raises(SchemaError, match="2038-01-19"):
        install(Database(empty), "")

    assert sa.inspect(empty).get_table_names() == []


def test_embedded_database_has_no_schema_beside_it(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'vcl.sqlite'}")

    with pytest.raises(ConfigError, match="leave the key empty"):
        install(Database(engine), "elsewhere")

    assert len(install(Database(engine), "").made) == 5
    with engine.begin() as connection:
        connection.execute(sa.insert(tables_in("").user_pool).values(oid=3_000_000_000,
                           user_name="a", password=""))  # fmt: skip
