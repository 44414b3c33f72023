"""Fault 20 and invariant 1 on a Galera cluster: one owner each, whichever node is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claimants import ask_for_many, race
from tests.daemon import daemons_for, eventually
from tests.galera import Galera
from tests.mariadb import ServerMissingError
from tests.seeded import SeededDatabase
from tests.site import Site

NODES = ("node1.example.org", "node2.example.org")


@pytest.fixture(scope="module")
def galera() -> Iterator[Galera]:
    try:
        cluster = Galera()
    except ServerMissingError as err:
        if os.environ.get("VCLD_TEST_DATABASE"):
            pytest.skip(f"NOT TESTED: {err}")
        raise
    try:
        yield cluster.start()
    finally:
        cluster.remove()


@pytest.fixture(scope="module")
def replicated(galera: Galera) -> SeededDatabase:
    return SeededDatabase(galera.nodes[0], "vcld")


@pytest.fixture
def site(replicated: SeededDatabase, tmp_path: Path) -> Site:
    replicated.reset()
    return Site(replicated.engine, tmp_path, nodes=NODES).build()


def test_fault_20_claims_of_the_same_rows_on_three_nodes_at_once_have_one_owner_each(
    galera: Galera, site: Site
) -> None:
    numbers = ask_for_many(site, 400)

    won = race([node.url("vcld") for node in galera.nodes], numbers)

    assert sorted(number for each in won for number in each) == numbers
    for node in galera.nodes:
        begins = node.query(
            "SELECT COUNT(*) FROM computerloadlog l JOIN computerloadstate s"
            " ON s.id = l.loadstateid WHERE s.loadstatename = 'begin'",
            "vcld",
        )
        assert begins == ((len(numbers),),)


def test_fault_20_a_database_node_that_dies_during_claims_costs_no_request(
    galera: Galera, site: Site
) -> None:
    # Before the daemons run: the web site would have to ask again after a conflict.
    requests = [site.ask("reload", 1 + n % 10, node=1 + n % 2) for n in range(40)]
    with daemons_for(site, galera.nodes[1].url("vcld")) as daemons:
        first = daemons.start(node=1, name="vcld1", takeover_after=0)
        daemons.url = galera.nodes[2].url("vcld")
        second = daemons.start(node=2, name="vcld2", takeover_after=0)

        def describe() -> str:
            return first.describe() + second.describe()

        eventually(lambda: second.events("work began"), describe)
        galera.nodes[2].kill()
        eventually(lambda: galera.size() == 2, describe)
        galera.nodes[2].revive()

        eventually(lambda: galera.size() == 3, describe, 60)
        eventually(lambda: all(site.pair(r) == "gone" for r in requests), describe, 60)
        assert site.claims() == []
        assert {site.computer(n) for n in range(1, 11)} == {"available"}
        assert (first.stop(), second.stop()) == (0, 0)
