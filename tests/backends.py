"""Tests that run on MariaDB and on the embedded database alike.

A test module says so with ``BACKENDS``. The embedded one is a file, seeded once and copied for
each test.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from vcld.schema.create import create_schema
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator


def make_seeded(path: Path) -> Path:
    """A VCL database with its seed rows and those of the simulator."""
    engine = make_engine(f"sqlite:///{path}")
    create_schema(engine)
    with engine.begin() as connection:
        seed(connection)
        seed_simulator(connection)
    engine.dispose()
    return path


def copy_of(seeded: Path, folder: Path) -> str:
    """URL of a fresh copy in the folder."""
    return f"sqlite:///{shutil.copy(seeded, folder / 'vcl.sqlite')}"


#: What the embedded database takes for now; None: the time.
_now: int | None = None


def open_embedded(url: str) -> Engine:
    """An engine whose clock a test can set."""
    engine = make_engine(url)
    event.listen(engine, "connect", lambda driver, _: driver.create_function("strftime", 2, _tell))
    return engine


def _tell(form: str, when: str | None) -> str | None:
    """The built-in function of the name, but for the time."""
    if when == "now" and _now is not None:
        when = dt.datetime.fromtimestamp(_now, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        told: str | None = plain.execute("SELECT strftime(?, ?)", (form, when)).fetchone()[0]
    return told


@contextmanager
def clock_at(connection: Connection, seconds: float) -> Iterator[None]:
    """Within the block it is so many seconds since 1970, by the database's clock."""
    global _now  # noqa: PLW0603 - one clock, as a server has one
    if connection.dialect.name == "sqlite":
        _now = int(seconds)
        try:
            yield
        finally:
            _now = None
        return
    connection.exec_driver_sql(f"SET TIMESTAMP = {seconds}")
    yield
    connection.exec_driver_sql("SET TIMESTAMP = DEFAULT")


@contextmanager
def session_in_utc(engine: Engine) -> Iterator[Connection]:
    """A transaction in which site times are UTC."""
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":  # it always is
            yield connection
            return
        connection.exec_driver_sql("SET time_zone = '+00:00'")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("SET time_zone = DEFAULT")


@contextmanager
def lax_session(engine: Engine) -> Iterator[Connection]:
    """Likewise, and rows may hold zero dates and refer to nothing, as those of old sites do."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys = OFF")  # counts outside of transactions only
            with connection.begin():
                yield connection
            driver.execute("PRAGMA foreign_keys = ON")
        return
    with session_in_utc(engine) as connection:
        mode = connection.exec_driver_sql("SELECT @@SESSION.sql_mode").scalar()
        connection.exec_driver_sql("SET sql_mode = '', foreign_key_checks = 0")
        try:
            yield connection
        finally:
            connection.exec_driver_sql(f"SET sql_mode = '{mode}', foreign_key_checks = 1")
