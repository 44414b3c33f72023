"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.mariadb import MariaDB
from vcld.schema.columns import Base
from vcld.schema.create import create_schema
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator

#: Tables that a test may fill; emptied before the next.
MUTABLE = (
    *("vcld_claim", "vcld_daemon", "vcld_notice", "vcld_load_duration"),
    *("computerloadlog", "vcldsemaphore", "reservationaccounts", "serverrequest"),
    *("reservation", "request", "sublog", "changelog", "connectlog", "log"),
    *("blockComputers", "blockTimes", "blockRequest", "resourcemap"),
    *("resourcegroupmembers", "resource", "nathostcomputermap", "computer", "vmhost"),
    *("vmprofile", "managementnode", "usergroupmembers"),
)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A private MariaDB server for the whole run."""
    server = MariaDB.install()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database: of the private server, or what VCLD_TEST_DATABASE names."""
    named = os.environ.get("VCLD_TEST_DATABASE")
    if named:
        return named
    server: MariaDB = request.getfixturevalue("mariadb")
    return server.create_database("vcld_test")


@pytest.fixture(scope="session")
def seeded_engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    create_schema(engine)
    with engine.begin() as connection:
        seed(connection)
        seed_simulator(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def database(seeded_engine: Engine) -> Engine:
    """A seeded VCL database without computers, requests or management nodes."""
    reset(seeded_engine)
    return seeded_engine


def reset(engine: Engine) -> None:
    """Take out what an earlier test put in."""
    tables = Base.metadata.tables
    with engine.begin() as connection:
        connection.exec_driver_sql("SET foreign_key_checks = 0")
        for name in MUTABLE:
            connection.execute(sa.delete(tables[name]))
        connection.execute(sa.delete(tables["image"]).where(tables["image"].c.id != 1))
        revision = tables["imagerevision"]
        connection.execute(sa.delete(revision).where(revision.c.id != 1))
        connection.execute(sa.delete(tables["user"]).where(tables["user"].c.id > 3))
        connection.exec_driver_sql("SET foreign_key_checks = 1")
