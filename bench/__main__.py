"""``make bench``: the rows of the design's table, printed beside those of the Perl daemon."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.daemon import Daemon
from tests.mariadb import MariaDB
from tests.site import Site
from vcld.schema.create import create_schema
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator
from vcld.store.look import Looker

RESULTS = Path(__file__).parent / "results" / "latest.json"
Row = tuple[str, str, str]


class Bench:
    """One server, and a fresh database and daemon for each measurement."""

    def __init__(self, server: MariaDB, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.count = 0

    def site(self, computers: int) -> tuple[Site, str]:
        self.count += 1
        url = self.server.create_database(f"bench{self.count}")
        engine = make_engine(url)
        create_schema(engine)
        with engine.begin() as connection:
            seed(connection)
            seed_simulator(connection)
        folder = self.folder / str(self.count)
        folder.mkdir()
        return Site(engine, folder, computers=computers).build(), url

    def daemon(self, site: Site, url: str, **keys: Any) -> Daemon:
        facts = {"poll_interval": 1, "log_level": "warning", "max_workers": 250, **keys}
        daemon = Daemon(site, url, **facts).start(wait=False)
        wait(lambda: site.scalar("SELECT COUNT(*) FROM vcld_daemon") == 1)
        time.sleep(1)  # what a start costs is not measured
        return daemon


def wait(condition: Callable[[], Any], limit_seconds: float = 120) -> float:
    """Wait for a condition; return the seconds it took."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > limit_seconds:
            raise TimeoutError(f"it did not happen within {limit_seconds} s")
        time.sleep(0.02)
    return time.perf_counter() - started


def cpu_seconds(daemon: Daemon) -> float:
    times = psutil.Process(daemon.pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def burst(bench: Bench, state: str, count: int) -> tuple[float, float]:
    """(seconds from the first claim to the last end, CPU seconds a request)."""
    site, url = bench.site(count + 1)
    daemon = bench.daemon(site, url)
    try:
        before = cpu_seconds(daemon)
        insert_many(site, state, count)
        untouched = (
            f"SELECT COUNT(*) FROM request WHERE stateid = {site.catalog.state_id(state)}"
            f" AND laststateid = {site.catalog.state_id(state)}"
        )
        wait(lambda: site.scalar(untouched) < count)
        seconds = wait(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0)
        return seconds, (cpu_seconds(daemon) - before) / count
    finally:
        daemon.end()
        site.engine.dispose()


def insert_many(site: Site, state: str, count: int) -> None:
    """All requests in one transaction, due at once."""
    id_ = site.catalog.state_id(state)
    with site.engine.begin() as c:
        for number in range(1, count + 1):
            made = c.exec_driver_sql(
                "INSERT INTO request (stateid, laststateid, userid, start, end, daterequested)"
                f" VALUES ({id_}, {id_}, 101, NOW(), NOW() + INTERVAL 1 HOUR, NOW())"
            )
            c.exec_driver_sql(
                "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid,"
                f" managementnodeid, lastcheck) VALUES ({made.lastrowid}, {number}, 2, 21, 1, NULL)"
            )


def latency(bench: Bench) -> tuple[float, float]:
    """Insert to claimed, one request after another: median and 99th percentile in seconds."""
    site, url = bench.site(60)
    daemon = bench.daemon(site, url)
    try:
        taken = []
        for number in range(1, 41):
            time.sleep(0.05 + number * 0.013)
            request = site.ask("tomaintenance", number)
            own = "tomaintenance/tomaintenance"
            taken.append(wait(lambda request=request, own=own: site.pair(request) != own))  # type: ignore[misc]
        return statistics.median(taken), sorted(taken)[-1]
    finally:
        daemon.end()
        site.engine.dispose()


def statements(bench: Bench, state: str) -> int:
    """Statements of one request beside those of the idle daemon, BEGIN and COMMIT apart."""
    site, url = bench.site(3)
    daemon = bench.daemon(site, url, poll_interval=5)
    try:
        with bench.server.general_log() as path:
            site.ask(state, 1)
            if state == "new":
                wait(lambda: site.computer(1) == "reserved")
            else:
                wait(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0)
            text = path.read_text(errors="replace")
        return _count(text)
    finally:
        daemon.end()
        site.engine.dispose()


def _count(text: str) -> int:
    """Statements of the daemon's processes: those that name our claim's connections."""
    count = 0
    threads: dict[str, list[str]] = {}
    for line in text.splitlines():
        parts = line.split("\t")
        head = parts[-2].split() if len(parts) >= 2 else []
        if len(head) < 2 or head[-1] != "Query" or not head[-2].isdigit():
            continue
        threads.setdefault(head[-2], []).append(parts[-1])
    for queries in threads.values():
        if any("vcld_claim" in query for query in queries):
            real = [q for q in queries if q.split(" ")[0] not in {"BEGIN", "COMMIT", "ROLLBACK"}]
            count += sum("AS finding" not in query for query in real)
    return count


def idle(bench: Bench) -> tuple[int, int, float]:
    """(statements, new connections, CPU seconds) of an idle minute."""
    site, url = bench.site(3)
    site.execute("UPDATE managementnode SET checkininterval = 12")
    daemon = bench.daemon(site, url)
    try:
        before = cpu_seconds(daemon)
        with bench.server.general_log() as path:
            time.sleep(60)
            lines = path.read_text(errors="replace").splitlines()
        queries = sum(
            "Query\t" in line and not line.endswith(("BEGIN", "COMMIT", "ROLLBACK"))
            for line in lines
        )
        connections = sum("Connect\t" in line for line in lines)
        return queries - 1, max(0, connections - 1), cpu_seconds(daemon) - before
    finally:
        daemon.end()
        site.engine.dispose()


def due_query(bench: Bench) -> float:
    """Milliseconds of one look beside 50,000 future and finished requests."""
    site, url = bench.site(3)
    state = site.catalog.state_id
    with site.engine.begin() as c:
        c.exec_driver_sql(
            "INSERT INTO request (stateid, laststateid, userid, start, end, daterequested)"
            f" SELECT IF(MOD(seq, 2), {state('new')}, {state('complete')}),"
            f" IF(MOD(seq, 2), {state('new')}, {state('timeout')}), 101,"
            " NOW() + INTERVAL IF(MOD(seq, 2), seq * 60 + 7200, -seq) SECOND,"
            " NOW() + INTERVAL seq * 60 + 9000 SECOND, NOW() FROM seq_1_to_50000"
        )
        c.exec_driver_sql(
            "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid,"
            " managementnodeid, lastcheck) SELECT id, 1, 2, 21, 1, NULL FROM request"
        )
    with site.engine.begin() as c:
        c.exec_driver_sql("ANALYZE TABLE request, reservation")
    looker = Looker(site.catalog, 1, "nobody")
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        with site.engine.begin() as c:
            looker.look(c, limit=100)
        taken.append(time.perf_counter() - started)
    site.engine.dispose()
    assert url
    return statistics.median(taken) * 1000


def measure(bench: Bench) -> list[Row]:
    """All rows: what, the Perl daemon's figure, ours."""
    rows: list[Row] = []

    def add(what: str, perl: str, ours: str) -> None:
        rows.append((what, perl, ours))
        print(f"{what:58} {perl:>22} {ours:>24}", flush=True)

    add("what", "Perl vcld", "ours")
    median, worst = latency(bench)
    add("insert → claimed, median / worst", "5.8 s / 11 s", f"{median:.2f} s / {worst:.2f} s")
    seconds, cpu = burst(bench, "tomaintenance", 50)
    add("50 tomaintenance at once", "3.95 s", f"{seconds:.2f} s ({50 / seconds:.0f}/s)")
    add("CPU a tomaintenance", "0.14 s", f"{cpu:.3f} s")
    seconds, cpu = burst(bench, "reload", 50)
    add("50 reload at once", "5.97 s", f"{seconds:.2f} s ({50 / seconds:.0f}/s)")
    add("CPU a reload", "0.20 s", f"{cpu:.3f} s")
    seconds, _ = burst(bench, "tomaintenance", 1000)
    add("1,000 tomaintenance at once", "about 90 s", f"{seconds:.1f} s ({1000 / seconds:.0f}/s)")
    for state, perl in (("tomaintenance", "28"), ("reload", "40"), ("new", "74")):
        add(f"statements a {state}", perl, str(statements(bench, state)))
    add("look beside 50,000 sleeping requests", "reads them all", f"{due_query(bench):.1f} ms")
    queries, connections, cpu = idle(bench)
    add("idle minute: statements / connections", "36 / 36", f"{queries} / {connections}")
    add("idle minute: CPU", "0.052 s", f"{cpu:.3f} s")
    return rows


def main() -> None:
    """Measure, print and keep the results."""
    server = MariaDB.install()
    server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="vcld-bench-") as folder:
            rows = measure(Bench(server, Path(folder)))
    finally:
        server.remove()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows[1:], indent=1, ensure_ascii=False) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
