"""``python -m bench.esxi``: loads on vcsim, two hosts and one datastore between them.

The simulated hosts take a set time for each task, or none at all: then what remains is ours
and the simulator's own. Writes ``bench/results/esxi.json``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.harness import cpu_seconds, wait
from tests.daemon import Daemon
from tests.esxi_site import EsxiSite, daemon_keys, make_site
from tests.mariadb import MariaDB
from vcld.schema.create import create_schema
from vcld.schema.engine import make_engine
from vcld.schema.seed import seed, seed_simulator

LOADS = 20
#: Seconds that the simulated host takes for its tasks.
HOST_SECONDS = {"CopyVirtualDisk_Task": 5.0, "CreateVM_Task": 0.3, "PowerOnVM_Task": 0.7}
RESULTS = Path(__file__).parent / "results" / "esxi.json"


def main() -> None:
    """Measure, print and keep."""
    with tempfile.TemporaryDirectory(prefix="vcld-bench-") as folder:
        server = MariaDB.install()
        server.start()
        try:
            found = [
                measure(server, Path(folder), mode, slow=slow, loads=loads)
                for mode in ("esx", "vc")
                for slow, loads in ((False, 1), (False, LOADS), (True, LOADS))
            ]
        finally:
            server.remove()
    facts = {"cpus": os.cpu_count(), "python": platform.python_version(), "runs": found}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    for run in found:
        print(json.dumps(run))


def measure(server: MariaDB, folder: Path, mode: str, *, slow: bool, loads: int) -> dict[str, Any]:
    """One run: ``loads`` reloads at once, each of a computer that has no VM yet."""
    name = f"esxi_{mode}_{int(slow)}_{loads}"
    url = server.create_database(name)
    engine = make_engine(url)
    create_schema(engine)
    with engine.begin() as connection:
        seed(connection)
        seed_simulator(connection)
    place = folder / name
    place.mkdir()
    site = make_site(engine, place, mode, hosts=2 if mode == "esx" else 1, computers=LOADS)
    keys = {**daemon_keys(site), "poll_interval": 1, "max_workers": 100}
    daemon = Daemon(site, url, **keys)
    try:
        return {
            "mode": mode,
            "host": "slow" if slow else "instant",
            **_run(site, daemon, loads, slow),
        }
    finally:
        daemon.end()
        site.stop()
        engine.dispose()
        server.drop_database(name)


def _run(site: EsxiSite, daemon: Daemon, loads: int, slow: bool) -> dict[str, Any]:
    # The worker's modules are loaded with the first one; that is not measured.
    daemon.start()
    rules = [
        {"method": method, "action": "slow", "seconds": seconds}
        for method, seconds in HOST_SECONDS.items()
    ]
    site.variable("vmware|loads", 10)
    for server in site.servers:
        server.rules(*(rules if slow else ()))
        server.counted(reset=True)
    before = cpu_seconds(daemon)
    requests = [site.ask("reload", number) for number in range(1, loads + 1)]
    seconds = wait(lambda: all(site.pair(request) == "gone" for request in requests))
    cpu = cpu_seconds(daemon) - before
    calls: Counter[str] = Counter()
    for server in site.servers:
        calls.update(server.counted()["calls"])
    spans = _spans(daemon)
    assert len(site.machines()) == loads
    own = HOST_SECONDS["CreateVM_Task"] + HOST_SECONDS["PowerOnVM_Task"] if slow else 0
    return {
        "loads": loads,
        "seconds": round(seconds, 2),
        "copies": calls["CopyVirtualDisk_Task"],
        "calls_a_load": round(sum(calls.values()) / loads, 1),
        "cpu_seconds_a_load": round(cpu / loads, 3),
        "median_seconds_after_the_master_was_there": round(statistics.median(spans), 3),
        "of_these_the_hosts_own": own,
    }


def _spans(daemon: Daemon) -> list[float]:
    """Seconds from the configuration to the end of each load: the copy is not in it."""
    began: dict[str, float] = {}
    spans = []
    for line in daemon.events("load state"):
        at = datetime.fromisoformat(line["timestamp"]).timestamp()
        if line["loadstate"] == "vmsetupconfig":
            began[line["computer"]] = at
        if line["loadstate"] == "loadimagecomplete":
            spans.append(at - began[line["computer"]])
    return spans


if __name__ == "__main__":
    main()
