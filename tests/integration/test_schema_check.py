"""``vcld db check`` names what keeps vcld from running on a site's database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url

from tests.mariadb import Server
from tests.seeded import SeededDatabase
from vcld.schema import check
from vcld.schema.columns import Base
from vcld.schema.create import create_schema
from vcld.schema.engine import Database, make_engine
from vcld.schema.own import OWN_TABLES
from vcld.schema.seed import seed

NAME = "site"
USER = "vcld_limited"


@pytest.fixture
def site_url(mariadb: Server) -> Iterator[str]:
    """A site's own database, with an account of few rights."""
    url = mariadb.create_database(NAME)
    engine = make_engine(url)
    create_schema(engine)
    with engine.begin() as connection:
        seed(connection)
    engine.dispose()
    mariadb.query(f"CREATE USER {USER}@'%' IDENTIFIED BY 'secret'")
    yield url
    mariadb.query(f"DROP USER {USER}@'%'")
    mariadb.drop_database(NAME)


@pytest.fixture
def problems(site_url: str) -> Callable[..., list[str]]:
    """Check the site's database, as its owner or as another user."""

    def ask(username: str | None = None) -> list[str]:
        password = "secret" if username else None
        engine = make_engine(make_url(site_url).set(username=username, password=password))
        try:
            return Database(engine).run(check.find_problems)
        finally:
            engine.dispose()

    return ask


def grant(server: Server, rights: str, table: str = "*") -> None:
    server.query(f"GRANT {rights} ON `{server.prefix}{NAME}`.{table} TO {USER}@'%'")


def test_new_database_has_no_problem(database: Engine) -> None:
    assert Database(database).run(check.find_problems) == []


def test_site_without_our_tables_needs_no_change(
    mariadb: Server, problems: Callable[..., list[str]]
) -> None:
    for table in OWN_TABLES:
        mariadb.query(f"DROP TABLE {table.name}", NAME)
    grant(mariadb, "SELECT, INSERT, UPDATE, DELETE, CREATE")

    assert problems(USER) == []
    assert mariadb.query("SHOW TABLES LIKE 'vcld\\_%'", NAME) == ()


def test_missing_columns_and_tables_of_an_old_vcl_are_named(
    mariadb: Server, problems: Callable[..., list[str]]
) -> None:
    mariadb.query("ALTER TABLE image DROP COLUMN architecture", NAME)
    mariadb.query("DROP TABLE vcldsemaphore", NAME)

    found = "\n".join(problems())

    assert "column image.architecture is missing" in found
    assert "table vcldsemaphore is missing" in found
    assert len(problems()) == 2


def test_database_that_is_not_vcl_s_is_told_in_one_sentence(mariadb: Server) -> None:
    engine = make_engine(mariadb.create_database("other"))
    try:
        (problem,) = Database(engine).run(check.find_problems)
    finally:
        engine.dispose()
        mariadb.drop_database("other")

    assert f"all tables of VCL are missing in database '{mariadb.prefix}other'" in problem
    assert "'vcld db init'" in problem


def test_tables_that_vcld_never_uses_may_be_missing(
    mariadb: Server, problems: Callable[..., list[str]]
) -> None:
    mariadb.query("DROP TABLE xmlrpcLog", NAME)

    assert problems() == []


@pytest.mark.parametrize(
    ("table", "column", "name"),
    [
        ("state", "name", "servermodified"),
        ("computerloadstate", "loadstatename", "postreserve"),
        ("resourcetype", "name", "managementnode"),
        ("user", "unityid", "vclreload"),
        ("image", "name", "noimage"),
    ],
)
def test_missing_row_is_named(database: Engine, table: str, column: str, name: str) -> None:
    rows = Base.metadata.tables[table]
    with database.connect() as connection:
        renamed = sa.update(rows).where(rows.c[column] == name).values({column: "other"})
        assert connection.execute(renamed).rowcount == 1
        found = check.find_problems(connection)
        connection.rollback()

    assert found == [f"table {table} has no row {name!r}: add it"]


def test_table_without_transactions_is_named(
    mariadb: Server, problems: Callable[..., list[str]]
) -> None:
    mariadb.query("ALTER TABLE variable ENGINE = MyISAM", NAME)

    assert problems() == [
        "table variable is of engine MyISAM, which has no transactions:"
        " ALTER TABLE variable ENGINE = InnoDB"
    ]


def test_right_that_the_user_lacks_is_named(
    mariadb: Server, problems: Callable[..., list[str]]
) -> None:
    grant(mariadb, "SELECT, INSERT, UPDATE")
    grant(mariadb, "DELETE", "request")

    found = problems(USER)

    assert len(found) == 1
    assert "may not DELETE in" in found[0]
    assert "reservation" in found[0]
    assert " request," not in found[0]


def test_user_who_may_not_make_our_missing_tables_is_told_so(
    mariadb: Server, problems: Callable[..., list[str]]
) -> None:
    mariadb.query("DROP TABLE vcld_claim", NAME)
    grant(mariadb, "SELECT, INSERT, UPDATE, DELETE")

    assert problems(USER) == [
        "tables vcld_claim are missing and this user may not make them: GRANT CREATE"
    ]


def test_checking_changes_no_row(seeded: SeededDatabase, database: Engine) -> None:
    Database(database).run(check.find_problems)

    assert seeded.changed() == []


def test_time_zone_other_than_this_machines_is_named(database: Engine) -> None:
    here = dt.datetime.now().astimezone().utcoffset() or dt.timedelta()
    there = "-07:00" if here != dt.timedelta(hours=-7) else "+07:00"
    with database.connect() as connection:
        connection.execute(sa.text("SET SESSION time_zone = :zone"), {"zone": there})
        found = check.find_problems(connection)
        connection.invalidate()  # it has another time zone now

    assert len(found) == 1
    assert f"the database's time zone is UTC{there}" in found[0]
