"""``make bench``: the rows of the design's table, printed beside those of the Perl daemon."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import measures
from bench.claiming import claims_a_second
from bench.harness import Bench
from tests.mariadb import MariaDB

RESULTS = Path(__file__).parent / "results" / "latest.json"
#: What is measured, the Perl daemon's figure, the aim, ours.
Row = tuple[str, str, str, str]


def _latency(bench: Bench) -> Iterator[Row]:
    median, late = measures.latency(bench, 60)
    yield (
        "insert → claimed, 20 a second: p50 / p99", "5.8 s / 11 s (single)", "0.5 s / 1.2 s",
        f"{median:.2f} s / {late:.2f} s",
    )  # fmt: skip


def _bursts(bench: Bench) -> Iterator[Row]:
    for state, perl, aim, perl_cpu in (
        ("tomaintenance", "3.95 s", "0.5 s", "0.14 s"),
        ("reload", "5.97 s", "0.7 s", "0.20 s"),
    ):
        found = measures.burst(bench, state, 50)
        rate = 50 / found.seconds
        yield f"50 {state} at once", perl, aim, f"{found.seconds:.2f} s ({rate:.0f}/s)"
        cpu = f"{found.cpu_seconds_a_request:.3f} s"
        yield f"CPU a {state}", perl_cpu, "0.030 s", cpu


def _thousand(bench: Bench) -> Iterator[Row]:
    found = measures.burst(bench, "tomaintenance", 1000)
    yield (
        "1,000 due at once: last claimed / all gone", "about 90 s", "8 s",
        f"{found.last_claim_seconds:.1f} s / {found.seconds:.1f} s",
    )  # fmt: skip
    yield "… heartbeat late by", "-", "0 s", f"{found.heartbeat_late_seconds:.0f} s"


def _life(bench: Bench) -> Iterator[Row]:
    yield "insert → row gone, one reload", "23 s", "1.5 s", f"{measures.whole_life(bench):.2f} s"


def _statements(bench: Bench) -> Iterator[Row]:
    for state, perl, aim in (
        ("tomaintenance", "28", "12"), ("reload", "40", "18"), ("new", "74", "28"),
    ):  # fmt: skip
        count, setup = measures.statements(bench, state)
        yield f"statements a {state} (+ connection set-up)", perl, aim, f"{count} (+ {setup})"


def _due_query(bench: Bench) -> Iterator[Row]:
    for future, finished in ((49_000, 1_000), (25_000, 25_000), (50, 0)):
        taken = measures.due_query(bench, future, finished)
        yield (
            f"look beside {future:,} future, {finished:,} finished", "reads them all", "5 ms",
            f"{taken:.1f} ms",
        )  # fmt: skip


def _claims(bench: Bench) -> Iterator[Row]:
    yield "claims a second, without the fork", "-", "350", f"{claims_a_second(bench):.0f}"


def _memory(bench: Bench) -> Iterator[Row]:
    total, private = measures.live_workers(bench)
    yield "50 live workers: PSS in all", "1105 MB", "300 MB", f"{total:.0f} MB"
    yield "… private memory of a worker", "22 MB", "5 MB", f"{private:.1f} MB"


def _waiting(bench: Bench) -> Iterator[Row]:
    processes, pss, rate = measures.waiting_users(bench)
    yield "1,000 users who wait: processes", "1,000", "-", str(processes)
    yield "… PSS in all", "about 20 GB", "1 GB", f"{pss:.0f} MB"
    yield "… statements a second", "2,000", "50", f"{rate:.1f}"


def _idle(bench: Bench) -> Iterator[Row]:
    count, connections, cpu = measures.idle(bench)
    yield "idle minute: statements / connections", "36 / 36", "65 / 0", f"{count} / {connections}"
    yield "idle minute: CPU", "0.052 s", "0.1 s", f"{cpu:.3f} s"


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "latency": _latency,
    "bursts": _bursts,
    "thousand": _thousand,
    "life": _life,
    "statements": _statements,
    "due": _due_query,
    "claims": _claims,
    "memory": _memory,
    "waiting": _waiting,
    "idle": _idle,
}


def main() -> None:
    """Measure, print and keep the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"only these: {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; known are {', '.join(PARTS)}")
    server = MariaDB.install("--max-connections=400")
    server.start()
    rows: list[Row] = []
    print(f"{'what':46} {'Perl vcld':>22} {'aim':>14} {'ours':>22}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="vcld-bench-") as folder:
            for part in chosen:
                for row in PARTS[part](Bench(server, Path(folder) / part)):
                    rows.append(row)
                    print(f"{row[0]:46} {row[1]:>22} {row[2]:>14} {row[3]:>22}", flush=True)
    finally:
        server.remove()
    if chosen == list(PARTS):
        _keep(rows)


def _keep(rows: list[Row]) -> None:
    facts = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "rows": [dict(zip(("what", "perl", "aim", "ours"), row, strict=True)) for row in rows],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
