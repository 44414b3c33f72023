"""Checking messages after somebody edited them on the web site, on both kinds of database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
import yaml
from sqlalchemy.engine import Engine

from vcld.messages.validation import FLAG, SETTLE_SECONDS, validate_messages
from vcld.schema.columns import Base
from vcld.schema.engine import make_engine
from vcld.schema.models import Variable
from vcld.schema.sqltime import after_site_now, seconds_between, site_now

GOOD = (
    "---\nsubject: '[image_prettyname]'\nmessage: |\n  Hello [USER_FIRSTNAME]\nshort_message: x\n"
)
BAD = (
    "---\nsubject: 'About [image_colour]'\nmessage: |\n  [if x] [user_id] [one_x] [two_x] [one_x]\n"
    "  Zoë\nshort_message: '[user_id]'\n"
)


@pytest.fixture
def mariadb_variables(database: Engine) -> Iterator[Engine]:
    """MariaDB with an empty ``variable`` table; its rows come back afterwards."""
    table = Base.metadata.tables["variable"]
    with database.begin() as connection:
        kept = connection.execute(sa.select(table)).mappings().all()
        connection.execute(sa.delete(table))
    yield database
    with database.begin() as connection:
        connection.execute(sa.delete(table))
        for row in kept:
            connection.execute(sa.insert(table).values(**row))


@pytest.fixture(params=["sqlite", "mariadb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A ``variable`` table without messages and without the flag."""
    if request.param == "mariadb":
        yield request.getfixturevalue("mariadb_variables")
        return
    engine = make_engine(f"sqlite:///{tmp_path / 'vcl.db'}")
    Base.metadata.create_all(engine, tables=[Base.metadata.tables["variable"]])
    yield engine
    engine.dispose()


def save(
    engine: Engine, name: str, value: str, *, age_seconds: int = 60, setby: str = "webcode"
) -> None:
    """Write a variable as the web site does."""
    with engine.begin() as connection:
        connection.execute(
            sa.insert(Variable).values(
                name=name,
                serialization="none" if name == FLAG else "yaml",
                value=value,
                setby=setby,
                timestamp=after_site_now(-age_seconds),
            )
        )


def read(engine: Engine, name: str) -> Any:
    with engine.begin() as connection:
        return connection.execute(
            sa.select(
                Variable.value,
                Variable.setby,
                Variable.serialization,
                seconds_between(Variable.timestamp, site_now()).label("age_seconds"),
            ).where(Variable.name == name)
        ).one_or_none()


def validate(engine: Engine, node: str = "mn1") -> int | None:
    with engine.begin() as connection:
        return validate_messages(connection, node)


def test_without_the_flag_nothing_is_checked(engine: Engine) -> None:
    save(engine, "usermessage|reserved|Global", BAD)

    assert validate(engine) is None
    assert read(engine, "usermessage|reserved|Global").value == BAD


def test_unknown_identifiers_are_recorded_where_the_web_site_looks_for_them(
    engine: Engine,
) -> None:
    save(engine, FLAG, "1")
    save(engine, "usermessage|reserved|Physics", BAD)
    save(engine, "adminmessage|image_creation_started", GOOD.replace("USER_FIRSTNAME", "nobody_x"))

    assert validate(engine) == 2

    row = read(engine, "usermessage|reserved|Physics")
    fields = yaml.safe_load(row.value)
    assert fields["invalidfields"] == {"subject": ["image_colour"], "message": ["one_x", "two_x"]}
    assert fields["message"] == "[if x] [user_id] [one_x] [two_x] [one_x]\nZoë\n"
    assert row.setby == "mn1:vcld"
    assert row.serialization == "yaml"
    assert -5 <= row.age_seconds < 30
    admin = yaml.safe_load(read(engine, "adminmessage|image_creation_started").value)
    assert admin["invalidfields"] == {"message": ["nobody_x"]}
    assert read(engine, FLAG) is None


def test_a_clean_message_is_not_touched(engine: Engine) -> None:
    save(engine, FLAG, "1")
    save(engine, "usermessage|reserved|Global", GOOD)

    assert validate(engine) == 0

    row = read(engine, "usermessage|reserved|Global")
    assert (row.value, row.setby) == (GOOD, "webcode")


def test_the_record_is_removed_when_the_message_was_mended(engine: Engine) -> None:
    save(engine, FLAG, "1")
    save(engine, "usermessage|reserved|Global", f"{GOOD}invalidfields:\n  message:\n    - old_x\n")

    assert validate(engine) == 0

    fields = yaml.safe_load(read(engine, "usermessage|reserved|Global").value)
    assert fields["message"] == "Hello [USER_FIRSTNAME]"
    assert "invalidfields" not in fields


def test_a_second_check_finds_the_same_and_writes_nothing(engine: Engine) -> None:
    save(engine, "usermessage|reserved|Global", BAD)
    save(engine, FLAG, "1")
    assert validate(engine, "mn1") == 1
    save(engine, FLAG, "1")

    assert validate(engine, "mn2") == 1

    assert read(engine, "usermessage|reserved|Global").setby == "mn1:vcld"


def test_what_another_node_has_claimed_is_left_to_it(engine: Engine) -> None:
    save(engine, FLAG, "mn2")
    save(engine, "usermessage|reserved|Global", BAD)

    assert validate(engine, "mn1") is None
    assert read(engine, FLAG).value == "mn2"
    assert validate(engine, "mn2") == 1


def test_the_message_that_the_web_site_is_about_to_save_is_waited_for(engine: Engine) -> None:
    save(engine, FLAG, "1", age_seconds=0)

    assert validate(engine) is None
    assert read(engine, FLAG).value == "1"


def test_a_flag_with_a_time_of_another_zone_is_not_waited_for(engine: Engine) -> None:
    save(engine, FLAG, "1", age_seconds=-3600)
    assert SETTLE_SECONDS < 3600

    assert validate(engine) == 0


def test_a_message_that_cannot_be_read_is_told_of_and_the_others_are_checked(
    engine: Engine,
) -> None:
    save(engine, FLAG, "1")
    save(engine, "usermessage|a|Global", "subject: [")
    save(engine, "usermessage|b|Global", BAD)

    with structlog.testing.capture_logs() as logs:
        assert validate(engine) == 1

    assert read(engine, "usermessage|a|Global").value == "subject: ["
    assert [line["variable"] for line in logs if "cannot be used" in line["event"]] == [
        "usermessage|a|Global"
    ]


def test_when_the_check_breaks_off_the_flag_stays_for_the_next(engine: Engine) -> None:
    save(engine, FLAG, "1")
    save(engine, "usermessage|reserved|Global", BAD)

    with engine.connect() as connection:
        assert validate_messages(connection, "mn1") == 1
        connection.rollback()

    assert read(engine, FLAG).value == "1"
    assert read(engine, "usermessage|reserved|Global").value == BAD
    assert validate(engine, "mn2") == 1


def test_of_two_nodes_at_once_exactly_one_checks(mariadb_variables: Engine) -> None:
    engine = mariadb_variables
    save(engine, FLAG, "1")
    save(engine, "usermessage|reserved|Global", BAD)
    other = make_engine(engine.url)

    with ThreadPoolExecutor() as pool:
        found = [task.result(60) for task in [
            pool.submit(validate, engine, "mn1"), pool.submit(validate, other, "mn2")
        ]]  # fmt: skip

    other.dispose()
    assert sorted(found, key=str) == [1, None]


def test_a_message_that_is_saved_during_the_check_is_not_overwritten(
    mariadb_variables: Engine,
) -> None:
    engine = mariadb_variables
    save(engine, FLAG, "1")
    save(engine, "usermessage|reserved|Global", BAD)
    web = make_engine(engine.url)

    def save_meanwhile(_connection: object, _cursor: object, sql: str, *_rest: object) -> None:
        if sql.startswith("UPDATE") and "serialization" in sql:
            with web.begin() as connection:
                connection.execute(
                    sa.update(Variable)
                    .where(Variable.name == "usermessage|reserved|Global")
                    .values(value=GOOD, setby="webcode")
                )

    sa.event.listen(engine, "before_cursor_execute", save_meanwhile)
    try:
        assert validate(engine) == 1
    finally:
        sa.event.remove(engine, "before_cursor_execute", save_meanwhile)
        web.dispose()

    row = read(engine, "usermessage|reserved|Global")
    assert (row.value, row.setby) == (GOOD, "webcode")
