"""Fixtures of the tests on vcsim. A test module takes those that it needs by assignment.

``site`` replaces the site of tests/conftest.py, so that ``daemons`` and ``accounts`` are those
of a site with VM hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from tests.daemon import Daemon, Daemons, daemons_for
from tests.esxi_site import MODES, EsxiSite, daemon_keys, make_site


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """Stand-alone hosts, unless a test asks for a vCenter."""
    return str(getattr(request, "param", "esx"))


@pytest.fixture(params=MODES)
def each_mode(request: pytest.FixtureRequest) -> str:
    """To be taken as ``mode``: every test of the module runs on both."""
    return str(request.param)


@pytest.fixture
def vcenter() -> str:
    """To be taken as ``mode``: tests of what only a vCenter can do."""
    return "vc"


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> int:
    return int(getattr(request, "param", 1))


@pytest.fixture
def two_hosts() -> int:
    """To be taken as ``hosts``: two stand-alone hosts with one datastore."""
    return 2


@pytest.fixture
def site(mode: str, hosts: int, database: Engine, tmp_path: Path) -> Iterator[EsxiSite]:
    made = make_site(database, tmp_path, mode, hosts=hosts)
    yield made
    made.stop()


@pytest.fixture
def daemons(site: EsxiSite, database_url: str) -> Iterator[Daemons]:
    """Starts real daemons; in the end none of their workers may have met a surprise."""
    with daemons_for(site, database_url) as started:
        yield started
        for daemon in started:
            assert not daemon.events("worker failed by an unexpected error"), daemon.describe()


@pytest.fixture
def daemon(site: EsxiSite, daemons: Daemons) -> Daemon:
    """A daemon that runs."""
    return daemons.start(**daemon_keys(site))


both_modes = pytest.mark.parametrize("mode", list(MODES), indirect=True)
