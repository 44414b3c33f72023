"""A fresh database and daemon for each measurement, and what can be read off them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.daemon import Daemon
from tests.mariadb import MariaDB
from tests.site import Site
from vcld.schema.create import create_schema
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator


class Bench:
    """One server; every measurement has its own database in it."""

    def __init__(self, server: MariaDB, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.count = 0
        self.url = ""
        folder.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def site(self, computers: int) -> Iterator[Site]:
        """A site whose computers are loaded by doing nothing: type ``lab`` has no phases."""
        self.count += 1
        self.url = self.server.create_database(f"bench{self.count}")
        engine = make_engine(self.url)
        create_schema(engine)
        with engine.begin() as connection:
            seed(connection)
            seed_simulator(connection)
        folder = self.folder / str(self.count)
        folder.mkdir()
        site = Site(engine, folder, computers=computers).build()
        site.execute("UPDATE computer SET type = 'lab'")
        # The heartbeat is the loop's, not that of a request; the default interval is 12 s.
        site.execute("UPDATE managementnode SET checkininterval = 12")
        try:
            yield site
        finally:
            engine.dispose()
            self.server.drop_database(f"bench{self.count}")

    @contextlib.contextmanager
    def running(self, computers: int, **keys: Any) -> Iterator[tuple[Site, Daemon]]:
        """A site and its daemon, past its start."""
        with self.site(computers) as site:
            facts = {"poll_interval": 1, "log_level": "warning", "max_workers": 100, **keys}
            daemon = Daemon(site, self.url, **facts).start(wait=False)
            try:
                wait(lambda: site.scalar("SELECT COUNT(*) FROM vcld_daemon") == 1)
                time.sleep(1)  # what a start costs is not measured
                yield site, daemon
            finally:
                daemon.end()


def wait(condition: Callable[[], Any], limit_seconds: float = 180) -> float:
    """Wait for a condition; return the seconds it took."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > limit_seconds:
            raise TimeoutError(f"it did not happen within {limit_seconds} s")
        time.sleep(0.02)
    return time.perf_counter() - started


def cpu_seconds(daemon: Daemon) -> float:
    """CPU time of the daemon and of all workers that have ended."""
    times = psutil.Process(daemon.pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def insert_many(site: Site, state: str, count: int) -> None:
    """Requests for computers 1 to ``count`` in one transaction, due at once."""
    id_ = site.catalog.state_id(state)
    with site.engine.begin() as c:
        first = c.exec_driver_sql("SELECT COALESCE(MAX(id), 0) + 1 FROM request").scalar()
        assert first is not None
        c.exec_driver_sql(
            "INSERT INTO request (id, stateid, laststateid, userid, start, end, daterequested)"
            f" SELECT {first} + seq - 1, {id_}, {id_}, 101, NOW(), NOW() + INTERVAL 2 HOUR, NOW()"
            f" FROM seq_1_to_{count}"
        )
        c.exec_driver_sql(
            "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid,"
            f" managementnodeid, lastcheck) SELECT {first} + seq - 1, seq, 2, 21, 1, NULL"
            f" FROM seq_1_to_{count}"
        )


def queries(general_log: str) -> list[tuple[str, str, str]]:
    """(connection, command, first line of the statement) of a general log."""
    found = []
    for line in general_log.splitlines():
        parts = line.split("\t")
        head = parts[-2].split() if len(parts) >= 2 else []
        if len(head) >= 2 and head[-2].isdigit():
            found.append((head[-2], head[-1], parts[-1]))
    return found


def is_statement(command: str, text: str) -> bool:
    """True for what counts: the ends of transactions are apart."""
    return command == "Query" and text.split(" ", maxsplit=1)[0] not in {
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
    }
