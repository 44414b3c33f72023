"""``vcld accounting``: the accounting tables of OpenNebula 2.0."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from vcld import service
from vcld.accounting.check import Breach, find_breaches, repair
from vcld.accounting.copying import copy
from vcld.accounting.install import get_installed, install
from vcld.accounting.rebuild import rebuild
from vcld.cli import accounting_report
from vcld.cli.output import print_json, say
from vcld.config import Settings, address
from vcld.errors import ConfigError, ExitCode, StoreError, UsageError
from vcld.schema.engine import Connection, Database, make_engine

#: Limit for one statement of these commands.
LIMIT_SECONDS = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = actions.add_parser("install", help="make the tables; from then on vcld keeps account")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.set_defaults(work=_install)

    checked = actions.add_parser("check", help="name every row that breaks a rule")
    checked.add_argument("--repair", action="store_true", help="mend what has one right answer")
    checked.add_argument("--json", action="store_true", help="print JSON")
    checked.set_defaults(work=_check)

    rebuilt = actions.add_parser("rebuild", help="add what VCL's own log says of the time before")
    rebuilt.add_argument("--json", action="store_true", help="print JSON")
    rebuilt.set_defaults(work=_rebuild)
    copied = actions.add_parser("copy", help="bring a copy in another database up to date")
    copied.add_argument(
        "target", help="an SQLite file, or env:NAME for the database URL in that variable"
    )
    copied.add_argument("--json", action="store_true", help="print JSON")
    copied.set_defaults(work=_copy)
    accounting_report.add_report(
        actions.add_parser("report", help="sums over a window, by user, host or image")
    )
    accounting_report.add_plot(
        actions.add_parser("plot", help="draw running VMs and transfer time over a window")
    )
    accounting_report.add_records(
        actions.add_parser("records", help="print usage records: an APEL cloud message, v0.4")
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    # A million rows take longer than a statement of the daemon may.
    patient = dataclasses.replace(
        settings, database_timeout_seconds=max(LIMIT_SECONDS, settings.database_timeout_seconds)
    )
    return int(options.work(options, settings, service.connect(patient)))


def _install(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    done = install(database, settings.accounting_database)
    where = settings.accounting_database or database.engine.url.database
    if options.json:
        print_json({"database": where, "made": done.made, "present": done.present})
    elif done.made:
        say(f"made in {where}: {', '.join(done.made)}")
    else:
        say(f"the tables are in {where} already; nothing was changed")
    return ExitCode.DONE


def _check(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    def work(connection: Connection) -> tuple[list[Breach], list[Breach]]:
        tables = get_installed(connection, settings.accounting_database)
        mended = repair(connection, tables) if options.repair else []
        return mended, list(find_breaches(connection, tables))

    mended, breaches = database.run(work)
    if options.json:
        print_json({"mended": mended, "broken": breaches})
    else:
        for breach in mended:
            say(f"mended: {breach}")
        for breach in breaches:
            say(f"{breach}")
        sys.stdout.write(
            f"{len(breaches)} rows break a rule\n" if breaches else "every rule holds\n"
        )
    return ExitCode.FAILED if breaches else ExitCode.DONE


def _rebuild(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    tables = database.run(lambda c: get_installed(c, settings.accounting_database))
    done = rebuild(database.run, tables)
    if options.json:
        print_json(done)
        return ExitCode.DONE
    say(f"{done.added} VMs added, {done.present} were there already")
    if done.timeless:
        say(f"{done.timeless} rows of sublog were left out: log has no time of them")
    return ExitCode.DONE


def _copy(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    target = _open_target(options.target, database)
    done = database.run(lambda c: copy(c, get_installed(c, settings.accounting_database), target))
    if options.json:
        print_json(done)
    else:
        say(f"{done.added} rows added, {done.changed} changed, {done.removed} removed")
    return ExitCode.DONE


def _open_target(target: str, source: Database) -> Database:
    """The database of the copy.

    Raises:
        ConfigError: it cannot be used; the message names it.
        UsageError: it is the one that is to be copied.
    """
    url = _target_url(target)
    if _is_same_file(url, source.engine.url):
        raise UsageError(f"{target} holds the accounting itself; name another file for the copy")
    database = Database(make_engine(url, statement_timeout_seconds=LIMIT_SECONDS))
    try:
        database.run(lambda connection: sa.inspect(connection).get_table_names())
    except StoreError as err:
        raise ConfigError(f"the copy in {target} cannot be opened: {err}") from err
    return database


def _is_same_file(one: URL, other: URL) -> bool:
    """True for one embedded database: reading and writing it would wait for each other."""
    if {one.get_backend_name(), other.get_backend_name()} != {"sqlite"}:
        return False
    return Path(one.database or "").resolve() == Path(other.database or "").resolve()


def _target_url(target: str) -> URL:
    """A URL holds a password, which must not stand in a command line.

    Raises:
        ConfigError: the variable is not set or holds no database URL.
    """
    scheme, _, name = target.partition(":")
    if scheme != "env":
        return URL.create("sqlite", database=str(Path(target).absolute()))
    try:
        return address.from_url(os.environ.get(name, ""))
    except ValueError as err:
        raise ConfigError(f"variable {name} holds no database URL: {err}") from err
