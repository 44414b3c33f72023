"""``vcld check``: would the daemon start, and would it work?"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vcld import clock, plugins, service
from vcld.accounting.elsewhere import open_place
from vcld.cli.output import duration, print_json, say, verdict
from vcld.config import Settings
from vcld.errors import ExitCode, NotFoundError, StoreError, StoreRefusedError, VcldError
from vcld.guest import GUESTS
from vcld.guest.interface import Guest
from vcld.guest.simulator_script import load_script
from vcld.provisioning import PROVISIONERS
from vcld.provisioning.interface import Provisioner
from vcld.schema import check as schema_check
from vcld.schema.engine import Database
from vcld.store import modules, nodes, oddities
from vcld.store.catalog import load_catalog

#: A disk with less room than this counts as full.
LOG_SPACE_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    problems, is_away = find_problems(settings)
    warnings = [*settings.warnings, *([] if is_away else _variables(settings))]
    if options.json:
        print_json({"usable": not problems, "problems": problems, "warnings": warnings})
    else:
        for warning in warnings:
            say(f"warning: {warning}")
        for problem in problems:
            say(f"{problem}")
        say(verdict(problems))
    if is_away and len(problems) == 1:
        return ExitCode.UNAVAILABLE
    return ExitCode.CONFIG if problems else ExitCode.DONE


def find_problems(settings: Settings) -> tuple[list[str], bool]:
    """All that is wrong, a sentence each; and whether the database is away."""
    problems = _unwritable(settings.pid_path.parent, "pidfile")
    if settings.log:
        problems += _unwritable(settings.log_path.parent, "log") or _full(settings.log_path)
    problems += _simulator(settings)
    database = service.connect(settings)
    try:
        return problems + _in_database(database, settings), False
    except StoreError as err:
        told = f"{settings.database_url.render_as_string()}: {err}"
        return [*problems, told], not isinstance(err, StoreRefusedError)


def _in_database(database: Database, settings: Settings) -> list[str]:
    problems = database.run(schema_check.find_problems)
    if problems:
        return problems
    try:
        node = database.run(lambda c: nodes.get_node(c, settings.fqdn))
    except NotFoundError as err:
        return [str(err)]
    problems = [
        f"{key}: the private key of managementnode.keys cannot be read"
        for key in node.keys
        if not os.access(key, os.R_OK)
    ]
    problems += _accounting_place(database, settings)
    return problems + _clock(database, settings) + _plugins(database)


def _unwritable(folder: Path, key: str) -> list[str]:
    if os.access(folder, os.W_OK | os.X_OK):
        return []
    return [f"{key}: the folder {folder} is not there or cannot be written"]


def _full(path: Path) -> list[str]:
    """Whether lines can still be written. The daemon works on without, but tells nobody."""
    try:
        place = os.statvfs(path if path.exists() else path.parent)
    except OSError as err:
        return [f"log: {path}: {err.strerror}"]
    free = place.f_bfree if os.geteuid() == 0 else place.f_bavail
    if free * place.f_frsize >= LOG_SPACE_BYTES or not place.f_blocks:
        return []
    return [f"log: the disk of {path} is full: lines are lost; make room"]


def _variables(settings: Settings) -> list[str]:
    try:
        return service.connect(settings).run(load_catalog).odd_timings()
    except StoreError:
        return []  # why is told among the problems


def _clock(database: Database, settings: Settings) -> list[str]:
    there = database.run(oddities.database_utc)
    skew = (clock.utc_now().replace(tzinfo=None) - there).total_seconds()
    if abs(skew) <= settings.max_clock_skew_seconds:
        return []
    return [f"this machine's clock is {duration(skew)} off the database's: set the time"]


def _accounting_place(database: Database, settings: Settings) -> list[str]:
    if not settings.accounting_place:
        return []
    try:
        open_place(settings.accounting_place, database).engine.dispose()
    except VcldError as err:
        return [f"accounting_database: {err}"]
    return []


def _simulator(settings: Settings) -> list[str]:
    if not settings.simulator_config:
        return []
    try:
        load_script(settings.simulator_config)
    except VcldError as err:
        return [str(err)]
    return []


def _plugins(database: Database) -> list[str]:
    problems = []
    groups = (
        (
            "vcld.provisioning",
            PROVISIONERS,
            database.run(modules.provisioning_modules),
            Provisioner,
        ),
        ("vcld.guest", GUESTS, database.run(modules.guest_modules), Guest),
    )
    for group, table, names, kind in groups:
        for name in names:
            try:
                plugins.find_class(group, table, name, kind)
            except VcldError as err:
                problems.append(str(err))
    return problems
