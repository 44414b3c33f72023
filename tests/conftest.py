"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from tests.accounts import Accounts, installed
from tests.backends import copy_of, make_seeded, open_embedded
from tests.daemon import Daemon, Daemons, daemons_for
from tests.mariadb import Server, ServerMissingError
from tests.seeded import SeededDatabase
from tests.servers import open_server
from tests.site import Site
from tests.ssh_hosts import HostsMissingError, Network, network_for
from tests.starter import Starter

# Thousands of daemons and commands are started: compiling vcld anew for each would take longer
# than the tests do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
from tests.ssh_stays import LinuxSite


@pytest.fixture(scope="session", autouse=True)
def quick_starts() -> Iterator[None]:
    """Daemons and commands start quickly."""
    Daemon.launcher = starter = Starter()
    yield
    starter.end()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """The database server of the whole run; which one, tests/servers.py decides."""
    try:
        server = open_server(os.environ)
    except ServerMissingError as err:
        pytest.exit(str(err), returncode=3)
    yield server
    server.remove()


@pytest.fixture
def restartable(mariadb: Server) -> Iterator[Server]:
    """The same server, for tests that kill or stop it; it runs again afterwards."""
    if not mariadb.restartable:
        pytest.skip("NOT TESTED: the server that VCLD_TEST_DATABASE names is not ours to kill")
    yield mariadb
    mariadb.revive()


@pytest.fixture(scope="session")
def seeded(mariadb: Server) -> Iterator[SeededDatabase]:
    database = SeededDatabase(mariadb, "vcld_test")
    yield database
    database.remove()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    backends = getattr(metafunc.module, "BACKENDS", ())
    if backends and "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", backends)


@pytest.fixture
def backend() -> str:
    """The database that a test runs on; a module with ``BACKENDS`` runs on each of those."""
    return "mariadb"


@pytest.fixture(scope="session")
def seeded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded embedded database, to be copied."""
    return make_seeded(tmp_path_factory.mktemp("embedded") / "seeded.sqlite")


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of the seeded database, for processes of their own."""
    if backend == "sqlite":
        return copy_of(request.getfixturevalue("seeded_file"), tmp_path)
    seeded: SeededDatabase = request.getfixturevalue("seeded")
    return seeded.url


@pytest.fixture
def database(backend: str, database_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A seeded VCL database without computers, requests or management nodes."""
    if backend == "sqlite":
        engine = open_embedded(database_url)
        yield engine
        engine.dispose()
        return
    seeded: SeededDatabase = request.getfixturevalue("seeded")
    seeded.reset()
    yield seeded.engine


@pytest.fixture
def site(database: Engine, tmp_path: Path) -> Site:
    """A site with one management node and ten simulated virtual machines."""
    return Site(database, tmp_path).build()


@pytest.fixture
def two_nodes(database: Engine, tmp_path: Path) -> Site:
    """A site with two management nodes, each of which may manage every computer."""
    nodes = ("node1.example.org", "node2.example.org")
    site = Site(database, tmp_path, nodes=nodes).build()
    site.let_every_node_manage_all()
    return site


@pytest.fixture
def daemons(site: Site, database_url: str) -> Iterator[Daemons]:
    """Starts real daemons for the site."""
    with daemons_for(site, database_url) as started:
        yield started


@pytest.fixture
def accounts(site: Site) -> Iterator[Accounts]:
    """Accounting, installed in the site's database."""
    with installed(site.engine) as made:
        yield made


@pytest.fixture
def ssh_network(tmp_path: Path) -> Iterator[Network]:
    """Networks for real hosts with real SSH servers; tests add the hosts they need."""
    folder = tmp_path / "hosts"
    folder.mkdir()
    try:
        with network_for(folder) as network:
            yield network
    except HostsMissingError as err:
        pytest.fail(f"NOT TESTED: {err}", pytrace=False)


@pytest.fixture
def linux(site: Site, daemons: Daemons, ssh_network: Network) -> LinuxSite:
    """A site whose first computer is a real Linux host, once a test has it installed."""
    return LinuxSite(site, daemons, ssh_network)
