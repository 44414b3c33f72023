"""``python -m bench.xcat``: 100 fake blades reloaded at once, of a few seconds each.

What is measured is ours: commands of xCAT that were started, CPU of the daemon with its workers
and the (fake) commands, and the time beyond that of the slowest blade. The fake xCAT itself and
MariaDB share the machine's cores, but are not in the CPU figure.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import Bench, cpu_seconds, insert_many, wait
from tests.daemon import Daemon, Daemons
from tests.fake_xcat import Times
from tests.mariadb import MariaDB
from tests.xcat_blades import Blades, blades_for

BLADES = 100
RESULTS = Path(__file__).parent / "results" / "xcat.json"


@contextlib.contextmanager
def running(bench: Bench, folder: Path, poll: float) -> Iterator[tuple[Blades, Daemon]]:
    """Blades of different speed and a daemon that may load all of them at once."""
    chance = random.Random(1)
    with bench.site(BLADES) as site:
        daemons = Daemons(site, bench.url)
        with blades_for(site, daemons, folder) as blades:
            blades.set(poll=poll, throttle=BLADES, power_wait=60, boot_wait=120, no_progress=120)
            for node in blades.xcat.nodes.values():
                node.hooks.runs = None
                node.times = Times(
                    post=chance.uniform(1, 2),
                    install=chance.uniform(3, 5),
                    boot=chance.uniform(1, 2),
                )
            try:
                daemon = blades.start(poll_interval=1, max_workers=BLADES)
                time.sleep(1)  # what a start costs is not measured
                yield blades, daemon
            finally:
                daemons.end()


def measure(bench: Bench, folder: Path, poll: float) -> dict[str, Any]:
    """Reload every blade at once."""
    with running(bench, folder, poll) as (blades, daemon):
        site, xcat = blades.site, blades.xcat
        before = cpu_seconds(daemon)
        began = time.perf_counter()
        insert_many(site, "reload", BLADES)
        ready = "SELECT COUNT(*) FROM computer c JOIN state s ON s.id = c.stateid"

        def is_done() -> bool:
            states = site.scalar("SELECT COUNT(*) FROM request")
            return bool(states == 0 or site.scalar(f"{ready} WHERE s.name = 'failed'"))

        wait(is_done)
        seconds = time.perf_counter() - began
        failed = site.scalar(f"{ready} WHERE s.name = 'failed'")
        wait(lambda: not daemon.workers())
        cpu = cpu_seconds(daemon) - before
        own = max(n.times.post + n.times.install + n.times.boot for n in xcat.nodes.values())
        kinds = collections.Counter(
            f"{call.command} {call.arguments[-1].partition('=')[0]}"
            if call.command in {"rpower", "nodeset"}
            else call.command
            for call in xcat.calls
        )
        return {
            "blades": BLADES,
            "poll_seconds": poll,
            "failed": failed,
            "loaded": sum(node.installs == 1 for node in xcat.nodes.values()),
            "commands": len(xcat.calls),
            "commands_by_kind": dict(sorted(kinds.items())),
            "seconds": round(seconds, 1),
            "slowest_blade_seconds": round(own, 1),
            "beyond_the_slowest_seconds": round(seconds - own, 1),
            "cpu_seconds": round(cpu, 1),
            "load_of_the_cores_percent": round(100 * cpu / seconds / (os.cpu_count() or 1)),
        }


def main() -> None:
    """Measure, print and keep the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.xcat", description=__doc__)
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name}")
    keep = parser.parse_args().keep
    server = MariaDB.install("--max-connections=400")
    server.start()
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="vcld-bench-") as folder:
            for number, poll in enumerate((1.0, 5.0)):
                bench = Bench(server, Path(folder) / f"b{number}")
                rows.append(measure(bench, Path(folder) / f"x{number}", poll))
                print(json.dumps(rows[-1], indent=1), flush=True)
    finally:
        server.remove()
    if keep:
        machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
        facts = {"machine": machine, "python": platform.python_version(), "rows": rows}
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
