"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.daemon import Daemons, daemons_for
from tests.mariadb import MariaDB
from tests.site import Site
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


@pytest.fixture(scope="session")
def seeded_variables(seeded_engine: Engine) -> list[dict[str, Any]]:
    """The site's variables as they are in a new database."""
    with seeded_engine.begin() as connection:
        rows = connection.execute(sa.select(Base.metadata.tables["variable"]))
        return [dict(row._mapping) for row in rows]


@pytest.fixture
def database(seeded_engine: Engine, seeded_variables: list[dict[str, Any]]) -> Engine:
    """A seeded VCL database without computers, requests or management nodes."""
    reset(seeded_engine, seeded_variables)
    return seeded_engine


def reset(engine: Engine, variables: list[dict[str, Any]]) -> None:
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
        connection.execute(sa.delete(tables["variable"]))
        connection.execute(sa.insert(tables["variable"]), variables)
        connection.exec_driver_sql("SET foreign_key_checks = 1")


@pytest.fixture
def site(database: Engine, tmp_path: Path) -> Site:
    """A site with one management node and ten simulated virtual machines."""
    return Site(database, tmp_path).build()


@pytest.fixture
def daemons(site: Site, database_url: str) -> Iterator[Daemons]:
    """Starts real daemons for the site."""
    with daemons_for(site, database_url) as started:
        yield started
