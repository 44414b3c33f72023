"""``python -m bench.accounting``: a million history rows on MariaDB: reports, check, upkeep.

Time is that of the whole command, memory the largest resident set of its process.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import Bench
from tests.accounts import Accounts
from tests.daemon import Daemon
from tests.mariadb import MariaDB
from tests.site import Site
from vcld.accounting.install import install
from vcld.accounting.keeping import keep
from vcld.schema.engine import Database

STAYS = 1_000_000
#: Every second VM was reinstalled once: two stays.
VMS = STAYS * 2 // 3 + 1
YEAR = 365 * 86400
BEGIN = 1_735_689_600  # 2025-01-01
RESULTS = Path(__file__).parent / "results" / "accounting.json"


def fill(site: Site) -> None:
    """A year of a busy site: 1,000 users, 200 images, 50 hosts."""
    spread = f"{BEGIN} + MOD(seq * 7919, {VMS}) * {YEAR} DIV {VMS}"
    site.execute(
        "INSERT INTO host_pool (oid, host_name, template) SELECT 60000 + seq,"
        " CONCAT('esx', seq, '.example.org'), '' FROM seq_1_to_50"
    )
    site.execute("INSERT INTO host_shares (hid) SELECT oid FROM host_pool")
    site.execute(
        "INSERT INTO user_pool (oid, user_name, password) SELECT seq, CONCAT('user', seq,"
        " '@Local'), '' FROM seq_1_to_1000"
    )
    site.execute(
        "INSERT INTO vm_pool (oid, uid, name, last_poll, state, stime, etime, deploy_id, memory,"
        " cpu, last_seq, template) SELECT seq, 1 + MOD(seq, 1000), CONCAT('Image on vm', MOD(seq, 800)),"
        f" {spread} + 7300, 6, {spread}, {spread} + 7200 + 100 * MOD(seq, 2), 'vm', 4194304, 200,"
        " MOD(seq, 2), CONCAT('<TEMPLATE><IMAGE>Image ', MOD(seq, 200), '</IMAGE><IMAGE_ID>',"
        " 1 + MOD(seq, 200), '</IMAGE_ID><REVISION>1</REVISION><REQUEST_ID>', seq, '</REQUEST_ID>"
        f"<OWNER>user@Local</OWNER></TEMPLATE>') FROM seq_1_to_{VMS}"
    )
    stay = (
        "INSERT INTO history (vid, seq, host_name, vm_dir, hid, vm_mad, tm_mad, stime, pstime,"
        " petime, rstime, retime, etime, reason) SELECT oid, {seq}, 'esx.example.org', '',"
        " 60001 + MOD(oid, 50), 'vmware', 'clone', stime + {at}, stime + {at} + 5, stime + {at} + 60,"
        " stime + {at} + 60, stime + {at} + {end}, stime + {at} + {end}, 0 FROM vm_pool {where}"
    )
    site.execute(stay.format(seq=0, at=0, end=7200, where="WHERE last_seq = 0"))
    site.execute(stay.format(seq=0, at=0, end=3600, where="WHERE last_seq = 1"))
    site.execute(stay.format(seq=1, at=3600, end=3700, where="WHERE last_seq = 1"))
    site.execute("ANALYZE TABLE history, vm_pool")


def command(daemon: Daemon, arguments: Sequence[str]) -> tuple[float, float]:
    """Run ``vcld accounting``; seconds, and the most memory it held in MB."""
    measured = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:],"
        " stdout=subprocess.DEVNULL).returncode; print(code,"
        " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", measured, sys.executable, "-m", "vcld", "accounting", *arguments],
        env=daemon.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    code, kilobytes = done.stdout.split()
    if code != "0":
        raise RuntimeError(f"vcld accounting {' '.join(arguments)} ended with {code}")
    return seconds, int(kilobytes) / 1024


def upkeep(accounts: Accounts) -> float:
    """What the heartbeat's part takes while nothing has changed."""
    with accounts.engine.begin() as c:
        last = keep(c, accounts.tables, 1, silent_after_seconds=300, last=None)
    started = time.perf_counter()
    with accounts.engine.begin() as c:
        keep(c, accounts.tables, 1, silent_after_seconds=300, last=last)
    return time.perf_counter() - started


MONTH = ("--from", "2025-06-01", "--to", "2025-07-01")
COMMANDS: dict[str, tuple[str, ...]] = {
    "report of a month by user": ("report", "--json", *MONTH),
    "report of a month by host": ("report", "--json", "--by", "host", *MONTH),
    "report of a month by image": ("report", "--json", "--by", "image", *MONTH),
    "report of the year by user": (
        "report", "--json", "--from", "2025-01-01", "--to", "2026-01-02",
    ),
    "usage records of a day": (
        "records", "--site", "s", "--from", "2025-06-01", "--to", "2025-06-02",
    ),
    "usage records of the year": (
        "records", "--site", "s", "--from", "2025-01-01", "--to", "2026-01-02",
    ),
    "check": ("check",),
}  # fmt: skip


def main() -> None:
    """Measure, print and keep the results."""
    server = MariaDB.install()
    server.start()
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="vcld-bench-") as folder:
            bench = Bench(server, Path(folder) / "accounting")
            with bench.site(10) as site:
                install(Database(site.engine), "")
                started = time.perf_counter()
                fill(site)
                count = site.scalar("SELECT COUNT(*) FROM history")
                print(f"{count:,} history rows made in {time.perf_counter() - started:.0f} s")
                daemon = Daemon(site, bench.url)
                for what, arguments in COMMANDS.items():
                    seconds, megabytes = command(daemon, arguments)
                    rows.append(
                        {"what": what, "seconds": round(seconds, 2), "mb": round(megabytes)}
                    )
                    print(f"{what:32} {seconds:8.2f} s {megabytes:8.0f} MB", flush=True)
                seconds = upkeep(Accounts(site.engine))
                rows.append({"what": "one look of the heartbeat", "seconds": round(seconds, 3)})
                print(f"{'one look of the heartbeat':32} {seconds:8.3f} s")
    finally:
        server.remove()
    facts = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "history_rows": STAYS,
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
