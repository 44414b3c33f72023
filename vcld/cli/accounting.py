"""``vcld accounting``: the accounting tables of OpenNebula 2.0."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from vcld import service
from vcld.accounting.check import Breach, find_breaches, repair
from vcld.accounting.elsewhere import LIMIT_SECONDS, bring_up_to_date
from vcld.accounting.install import get_installed, install
from vcld.accounting.rebuild import rebuild
from vcld.cli import accounting_report
from vcld.cli.output import print_json, say
from vcld.config import Settings
from vcld.errors import ExitCode, UsageError
from vcld.schema.engine import Connection, Database


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
        "target",
        nargs="?",
        help="an SQLite file, or env:NAME for the database URL in that variable; by default what"
        " accounting_database names",
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
    done = install(database, settings.accounting_schema)
    if settings.accounting_place:
        bring_up_to_date(database, settings.accounting_schema, settings.accounting_place)
    where = settings.accounting_schema or database.engine.url.database
    if options.json:
        print_json({"database": where, "made": done.made, "present": done.present})
    elif done.made:
        say(f"made in {where}: {', '.join(done.made)}")
    else:
        say(f"the tables are in {where} already; nothing was changed")
    return ExitCode.DONE


def _check(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    def work(connection: Connection) -> tuple[list[Breach], list[Breach]]:
        tables = get_installed(connection, settings.accounting_schema)
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
    tables = database.run(lambda c: get_installed(c, settings.accounting_schema))
    done = rebuild(database.run, tables)
    if options.json:
        print_json(done)
        return ExitCode.DONE
    say(f"{done.added} VMs added, {done.present} were there already")
    if done.timeless:
        say(f"{done.timeless} rows of sublog were left out: log has no time of them")
    return ExitCode.DONE


def _copy(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    place = options.target or settings.accounting_place
    if not place:
        raise UsageError("name the file of the copy, or set accounting_database to it")
    done = bring_up_to_date(database, settings.accounting_schema, place)
    if options.json:
        print_json(done)
    else:
        say(f"{done.added} rows added, {done.changed} changed, {done.removed} removed")
    return ExitCode.DONE
