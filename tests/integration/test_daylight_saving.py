"""Fault 10: the database's clock jumps by an hour, as on two nights of the year.

The server runs in central European time, and its clock is set for each transaction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy.engine import Connection, Engine

from tests.accounts import installed, stay
from tests.mariadb import MariaDB
from tests.seeded import SeededDatabase
from vcld.accounting.codes import LcmState, VmState
from vcld.accounting.keeping import keep
from vcld.processes import ProcessId
from vcld.store import loadlog, nodes
from vcld.store.catalog import load_catalog
from vcld.store.nodes import Identity

SPRING = int(datetime(2027, 3, 28, 1, tzinfo=UTC).timestamp())
AUTUMN = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
#: A node counts as dead after so long.
LIMIT_SECONDS = 300


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    server = MariaDB.install(fast=True)
    server.environ = {**os.environ, "TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}
    server.start()
    try:
        yield SeededDatabase(server, "vcld_summer").engine
    finally:
        server.remove()


def at(connection: Connection, epoch: int) -> None:
    """Set the clock of this connection."""
    connection.exec_driver_sql(f"SET timestamp = {epoch}")


@pytest.mark.parametrize(
    ("change", "noticed_after"),
    # In autumn a time of the repeated hour may stand for either: nobody is taken for dead.
    [(SPRING, LIMIT_SECONDS), (AUTUMN, LIMIT_SECONDS + 3600)],
    ids=["spring", "autumn"],
)
def test_fault_10_daylight_saving_makes_nobody_old_or_dead(
    engine: Engine, change: int, noticed_after: int
) -> None:
    node = 2
    with engine.connect() as c:
        c.exec_driver_sql("DELETE FROM vcld_daemon")
        c.exec_driver_sql("DELETE FROM managementnode")
        for id_ in (1, node):
            c.exec_driver_sql(
                "INSERT INTO managementnode (id, IPaddress, hostname, ownerid, stateid,"
                " availablenetworks)"
                f" VALUES ({id_}, '192.0.2.{id_}', 'node{id_}.example.org', 1, 2, '')"
            )
        at(c, change - 5)
        identity = Identity(
            daemon="theirs", hostname="two", kernel_boot="b", process=ProcessId(1, 1), version="1"
        )
        assert nodes.become_daemon(c, node, identity, None)
        c.exec_driver_sql("SET foreign_key_checks = 0")
        loadlog.add(c, load_catalog(c), 1, 1, [("info", "loading")])

        for seconds in (-1, 0, 5, 200):
            at(c, change + seconds)
            assert nodes.silent_nodes(c, 1, LIMIT_SECONDS) == []
            assert nodes.silent_seconds(c, node) <= seconds + 5
            (entry,) = loadlog.read(c, [1])
            assert entry.age_seconds <= seconds + 5

        at(c, change - 5 + noticed_after + 1)
        (silent,) = nodes.silent_nodes(c, 1, LIMIT_SECONDS)
        assert silent.id == node


def test_fault_10_daylight_saving_leaves_the_vms_of_other_nodes_running(engine: Engine) -> None:
    with installed(engine) as accounts:
        accounts.put_base()
        accounts.put(5, stay(1000, 1010, 1020, 1020), state=VmState.ACTIVE)
        with engine.begin() as c:
            c.exec_driver_sql("SET foreign_key_checks = 0")
            c.exec_driver_sql("DELETE FROM managementnode")
            c.exec_driver_sql(
                "INSERT INTO managementnode (id, IPaddress, hostname, ownerid, stateid,"
                " availablenetworks, lastcheckin) VALUES"
                f" (2, '192.0.2.2', 'two', 1, 2, '', FROM_UNIXTIME({SPRING - 5}))"
            )
            c.exec_driver_sql(
                "INSERT INTO reservation (id, requestid, computerid, imageid, imagerevisionid,"
                " managementnodeid) VALUES (5, 1, 1, 1, 1, 2)"
            )
        for seconds, lcm in ((5, LcmState.RUNNING), (LIMIT_SECONDS, LcmState.UNKNOWN)):
            with engine.begin() as c:
                at(c, SPRING + seconds)
                keep(c, accounts.tables, 1, silent_after_seconds=LIMIT_SECONDS, last=None)
                c.exec_driver_sql("SET timestamp = DEFAULT")
            assert accounts.state(5) == (VmState.ACTIVE, lcm)
        with engine.begin() as c:
            for table in accounts.tables.all:
                c.execute(table.delete())
            c.exec_driver_sql("DELETE FROM reservation")
