"""``vcld demo``: a simulated site, run by the real daemon on an embedded database.

A folder gets a database file, a configuration and the script of the simulated hardware. The
daemon is started as a process of its own; this one plays the web site and its users.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal as signals
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.live import Live

from vcld import clock, service
from vcld.cli.demo_site import PEOPLE, Site
from vcld.cli.output import console, table
from vcld.cli.picture import load_picture
from vcld.cli.watch import draw
from vcld.config import load
from vcld.errors import ExitCode, VcldError
from vcld.schema import create, seed
from vcld.schema.engine import Database
from vcld.waiting import Cancellation, wait_until

LONGEST_SECONDS = 60.0
MARKER = "vcld.conf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=Path("demo"), help="folder to make it in")
    parser.add_argument(
        "--seconds", type=float, default=LONGEST_SECONDS, help="longest time to show it"
    )
    parser.add_argument("--json", action="store_true", help="print the paths as JSON")


def run(options: argparse.Namespace, _settings: Any) -> int:
    if not 0 < options.seconds <= LONGEST_SECONDS:
        raise VcldError(f"--seconds must be above 0 and at most {LONGEST_SECONDS:.0f}")
    folder = options.dir.resolve()
    _make_folder(folder)
    os.environ["VCLD_CONFIG"] = str(folder / MARKER)
    os.environ["VCLD_DATABASE_URL"] = f"sqlite:///{folder / 'vcl.db'}"
    settings = load()
    database = service.connect(settings, patience_seconds=10)
    create.create_schema(database.engine)
    with database.engine.begin() as connection:
        seed.seed(connection)
        seed.seed_simulator(connection)
    site = Site(database)
    site.build()
    with open(folder / "stderr.log", "ab") as errors:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "vcld", "run"], stderr=errors, stdin=subprocess.DEVNULL
        )
    try:
        _show(site, database, daemon, options.seconds, quiet=options.json)
    finally:
        daemon.send_signal(signals.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
    return _tell(folder, site, as_json=options.json)


def _make_folder(folder: Path) -> None:
    """Start from nothing, but delete only what an earlier demonstration made."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists() or not (folder / "simulator.json").exists():
            raise VcldError(f"{folder} holds other things; name another folder with --dir")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(
        "fqdn=demo.example.org\n"
        f"log={folder / 'vcld.log'}\npidfile={folder / 'vcld.pid'}\n"
        f"simulator_config={folder / 'simulator.json'}\n"
        "log_format=json\npoll_interval=0.5\nconnect_poll=0.5\nretry_delay=1\n"
        "smtp_port=9\nsmtp_timeout=1\nshutdown_grace=3\n",
        encoding="utf-8",
    )
    (folder / "simulator.json").write_text(json.dumps(_script(folder)), encoding="utf-8")


def _script(folder: Path) -> dict[str, Any]:
    return {
        "state_dir": str(folder / "hardware"),
        "delays": {
            "startload": [0.2, 0.5],
            "transfervm": [1.5, 3.5],
            "vmsetupconfig": [0.1, 0.3],
            "startvm": [0.2, 0.6],
            "machinebooted": [1.0, 2.5],
            "guest:reserve": 0.3,
            "guest:sanitize": 0.5,
            "guest:reboot": 1.5,
            "capture": 4.0,
        },
        "rules": [
            {
                "step": "startvm",
                "computer": "vm4",
                "times": 1,
                "error": "LoadTimeoutError",
                "message": "the virtual machine did not start",
            }
        ],
        "users": [
            {"computer": "vm8", "connects_after": None},
            {"computer": "*", "connects_after": 1.0},
        ],
    }


def _show(
    site: Site,
    database: Database,
    daemon: subprocess.Popen[bytes],
    limit_seconds: float,
    *,
    quiet: bool,
) -> None:
    """Play the site and show it, until everything is over or the time is."""
    started = clock.monotonic()
    pause = Cancellation()

    def turn() -> bool:
        if daemon.poll() is not None:
            raise VcldError(f"the daemon ended with code {daemon.returncode}; see the log")
        site.play(clock.monotonic() - started)
        if live is not None:
            live.update(draw(database.run(load_picture)), refresh=True)
        return site.is_over()

    if quiet or not sys.stdout.isatty():
        live = None
        wait_until(
            turn, pause, limit_seconds=limit_seconds, first_pause_seconds=0.5,
            longest_pause_seconds=0.5,
        )  # fmt: skip
        return
    with Live(console=console(), auto_refresh=False) as live:
        wait_until(
            turn, pause, limit_seconds=limit_seconds, first_pause_seconds=0.5,
            longest_pause_seconds=0.5,
        )  # fmt: skip


def read_paths(log: Path) -> dict[int, list[tuple[float, str]]]:
    """The states that each request went through, with seconds since its first, from the log."""
    paths: dict[int, list[tuple[float, str]]] = {}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        id_ = line.get("request_id")
        if id_ is None or not line.get("reservation_id"):
            continue
        at = datetime.fromisoformat(line["timestamp"]).timestamp()
        state = {"work began": line.get("state"), "work ended": line.get("next_state")}.get(
            line["event"]
        )
        path = paths.setdefault(id_, [])
        if state and (not path or path[-1][1] != state):
            path.append((at, state))
    return {
        id_: [(at - path[0][0], state) for at, state in path]
        for id_, path in sorted(paths.items())
        if path
    }


def _tell(folder: Path, site: Site, *, as_json: bool) -> int:
    paths = read_paths(folder / "vcld.log")
    if as_json:
        document = [
            {"request": id_, "what": site.names.get(id_, "made by the daemon"), "path": path}
            for id_, path in paths.items()
        ]
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        rows = [
            (
                id_,
                site.names.get(id_, "made by the daemon"),
                " → ".join(f"{state} {at:.1f}s" for at, state in path),
            )
            for id_, path in paths.items()
        ]
        rows += [
            (id_, name, "waits for its start")
            for id_, name in site.names.items()
            if "later" in name
        ]
        out = console()
        out.print(table("What became of the requests", ("request", "what", "path"), rows))
        out.print(f"{len(PEOPLE)} users, 8 virtual machines, {len(rows)} requests.")
        out.print(f"Database: {folder / 'vcl.db'} (SQLite)   Log: {folder / 'vcld.log'} (JSON)")
        out.print(f"Look again: VCLD_CONFIG={folder / MARKER} VCLD_DATABASE_URL="
                  f"sqlite:///{folder / 'vcl.db'} vcld status")  # fmt: skip
    missing = [name for id_, name in site.names.items() if id_ not in paths and "later" not in name]
    if missing:
        sys.stderr.write(f"vcld: never processed: {', '.join(missing)}\n")
        return ExitCode.FAILED
    return ExitCode.DONE
