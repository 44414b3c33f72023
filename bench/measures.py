"""The measurements, one function each."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from dataclasses import dataclass

import psutil

from bench.harness import Bench, cpu_seconds, insert_many, is_statement, queries, wait
from vcld.store.look import Looker


@dataclass(frozen=True)
class Burst:
    """From the first claim to the last row gone."""

    seconds: float
    last_claim_seconds: float
    cpu_seconds_a_request: float
    heartbeat_late_seconds: float


def burst(bench: Bench, state: str, count: int) -> Burst:
    """Requests due at once, with no-op hardware."""
    with bench.running(count + 1) as (site, daemon):
        before = cpu_seconds(daemon)
        insert_many(site, state, count)
        id_ = site.catalog.state_id(state)
        untouched = f"SELECT COUNT(*) FROM request WHERE stateid = {id_} AND laststateid = {id_}"
        wait(lambda: site.scalar(untouched) < count)
        started = time.perf_counter()
        claimed = wait(lambda: site.scalar(untouched) == 0)
        late = 0.0
        while site.scalar("SELECT COUNT(*) FROM request"):
            age = "SELECT TIMESTAMPDIFF(SECOND, lastcheckin, NOW()) FROM managementnode"
            late = max(late, float(site.scalar(age)) - 12)
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        return Burst(seconds, claimed, (cpu_seconds(daemon) - before) / count, max(0.0, late))


def latency(bench: Bench, seconds: int) -> tuple[float, float]:
    """Insert to claimed at 20 inserts a second: median and 99th percentile in seconds."""
    count = 20 * seconds
    with bench.running(count + 1) as (site, _):
        inserted: dict[int, float] = {}
        claimed: dict[int, float] = {}
        done = threading.Event()

        def watch() -> None:
            # Committed rows as the web site sees them: claimed means pending, or gone already.
            pending = site.catalog.state_id("tomaintenance")
            while not done.is_set() or inserted.keys() - claimed.keys():
                waiting = set(inserted)
                with site.engine.connect() as c:
                    rows = c.exec_driver_sql(f"SELECT id FROM request WHERE stateid = {pending}")
                    still = {row[0] for row in rows}
                now = time.perf_counter()
                for id_ in waiting - still - claimed.keys():
                    claimed[id_] = now - inserted[id_]
                time.sleep(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        for number in range(1, count + 1):
            time.sleep(max(0.0, began + number / 20 - time.perf_counter()))
            request = site.ask("tomaintenance", number)
            inserted[request] = time.perf_counter()
        done.set()
        watcher.join(60)
        taken = sorted(claimed.values())
        return statistics.median(taken), taken[int(len(taken) * 0.99)]


def whole_life(bench: Bench) -> float:
    """Seconds from insert to row gone of one reload."""
    with bench.running(3) as (site, _):
        taken = []
        for number in (1, 2, 3):
            time.sleep(0.37 * number)
            site.ask("reload", number)
            taken.append(wait(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0))
        return statistics.median(taken)


def statements(bench: Bench, state: str) -> tuple[int, int]:
    """(statements of one request, those that set up its workers' connections)."""
    with bench.running(3, poll_interval=5) as (site, daemon), bench.server.general_log() as path:
        request = site.ask(state, 1)
        if state == "new":
            wait(lambda: site.pair(request) == "pending/reserved")
        else:
            wait(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0)
        text = path.read_text(errors="replace")
        daemon.end()
    log = queries(text)
    ours = {connection for connection, _, text in log if "vcld_claim" in text}
    # A new request counts until reserved is claimed: the second worker is not part of it.
    connects = [connection for connection, command, _ in log if command == "Connect"]
    workers = [c for c in dict.fromkeys(connects) if c in ours]
    if state == "new":
        ours -= set(workers[1:])
    count = setup = 0
    for connection, command, statement in log:
        if connection not in ours or not is_statement(command, statement):
            continue
        if "AS finding" in statement or "found.finding" in statement:
            continue  # the look is the loop's
        if statement.startswith("SET "):
            setup += 1
        elif "lastcheckin" not in statement and "managementnode.hostname" not in statement:
            count += 1
    return count, setup


def idle(bench: Bench, seconds: int = 60) -> tuple[int, int, float]:
    """(statements, new connections, CPU seconds) of an idle minute."""
    with bench.running(3) as (_, daemon):
        before = cpu_seconds(daemon)
        with bench.server.general_log() as path:
            time.sleep(seconds)
            log = queries(path.read_text(errors="replace"))
        cpu = cpu_seconds(daemon) - before
        count = sum(is_statement(command, text) for _, command, text in log)
        connections = sum(command == "Connect" for _, command, _ in log)
        # One each of the log's own switch-off is on a connection of this program.
        return count - 1, max(0, connections - 1), cpu


def due_query(bench: Bench, future: int, finished: int) -> float:
    """Milliseconds of one look beside requests that need nothing."""
    with bench.site(3) as site:
        state = site.catalog.state_id
        with site.engine.begin() as c:
            for count, first, last, start in (
                (future, "new", "new", "seq * 60 + 7200"),
                (finished, "complete", "timeout", "-seq"),
            ):
                if count:
                    c.exec_driver_sql(
                        "INSERT INTO request (stateid, laststateid, userid, start, end,"
                        f" daterequested) SELECT {state(first)}, {state(last)}, 101,"
                        f" NOW() + INTERVAL {start} SECOND,"
                        f" NOW() + INTERVAL seq * 60 + 9000 SECOND, NOW() FROM seq_1_to_{count}"
                    )
            c.exec_driver_sql(
                "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid,"
                " managementnodeid, lastcheck) SELECT id, 1, 2, 21, 1, NULL FROM request"
            )
        with site.engine.begin() as c:
            c.exec_driver_sql("ANALYZE TABLE request, reservation")
        looker = Looker(site.catalog, 1, "nobody")
        taken = []
        for _ in range(40):
            started = time.perf_counter()
            with site.engine.begin() as c:
                looker.look(c, limit=100)
            taken.append(time.perf_counter() - started)
        return statistics.median(taken) * 1000


def live_workers(bench: Bench, count: int = 50) -> tuple[float, float]:
    """(PSS of the daemon and its live workers in MB, private memory of a worker in MB)."""
    with bench.running(count + 1) as (site, daemon):
        site.execute("UPDATE computer SET type = 'virtualmachine'")
        site.write_script(delays={"transfervm": 300})
        insert_many(site, "reload", count)
        wait(lambda: len(daemon.workers()) == count)
        time.sleep(3)
        processes = [psutil.Process(daemon.pid), *daemon.workers()]
        infos = [process.memory_full_info() for process in processes]
        private = [info.uss for info in infos[1:]]
        return sum(info.pss for info in infos) / 1e6, statistics.median(private) / 1e6


def waiting_users(bench: Bench, count: int = 1000) -> tuple[int, float, float]:
    """(processes, PSS in MB, statements a second) for users who have not pressed Connect."""
    with bench.running(count + 1) as (site, daemon):
        insert_many(site, "new", count)
        pending = site.catalog.state_id("pending"), site.catalog.state_id("reserved")
        there = "SELECT COUNT(*) FROM request WHERE stateid = {} AND laststateid = {}"
        wait(lambda: site.scalar(there.format(*pending)) == count, 300)
        wait(lambda: not daemon.workers())
        with bench.server.general_log() as path:
            time.sleep(15)
            log = queries(path.read_text(errors="replace"))
        processes = [psutil.Process(daemon.pid), *daemon.workers()]
        pss = 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                pss += process.memory_full_info().pss
        count_a_second = sum(is_statement(command, text) for _, command, text in log) / 15
        return len(processes), pss / 1e6, count_a_second
