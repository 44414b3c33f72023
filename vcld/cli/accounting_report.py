"""``vcld accounting report``, ``plot`` and ``records``: reading the accounting."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime as dt
import shutil
import sys
import tempfile
from pathlib import Path

from vcld.accounting.install import get_installed
from vcld.accounting.plot import check_path, plot
from vcld.accounting.records import check_names, json_lines, message, usage_records
from vcld.accounting.report import GROUPS, Line, report
from vcld.accounting.series import Series, series
from vcld.accounting.tables import Tables
from vcld.accounting.window import Window, database_now, window_of
from vcld.cli.output import console, duration, print_json, say, table
from vcld.config import Settings
from vcld.errors import ExitCode, UsageError
from vcld.logs import visible
from vcld.schema.engine import Connection, Database

#: More points than a picture has pixels tell nothing more.
MAX_STEPS = 10_000
#: What a spreadsheet takes for the begin of a formula, in all widths.
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def add_window(parser: argparse.ArgumentParser) -> None:
    """The options that choose a window."""
    parser.add_argument("-d", "--days", type=int, help="so many days back")
    parser.add_argument("-w", "--weeks", type=int, help="so many weeks back")
    parser.add_argument("-m", "--months", type=int, help="so many months back (default: 1)")
    parser.add_argument("--from", dest="begin", metavar="TIME", help="from here, UTC")
    parser.add_argument("--to", dest="end", metavar="TIME", help="to here, UTC (default: now)")


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", choices=sorted(GROUPS), default="user", help="whose sums (default: user)"
    )
    add_window(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(work=print_report)


def add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the picture: NAME.png or NAME.svg")
    parser.add_argument("--steps", type=int, default=500, help="points in time (default: 500)")
    add_window(parser)
    parser.add_argument("--json", action="store_true", help="print the plotted numbers as JSON")
    parser.set_defaults(work=draw_plot)


def add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", required=True, help="SiteName of the records")
    parser.add_argument("--service", default="", help="CloudComputeService of the records")
    add_window(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(work=print_records)


def open_window(
    options: argparse.Namespace, settings: Settings, connection: Connection
) -> tuple[Tables, Window]:
    """The tables and the window that the options choose.

    Raises:
        SchemaError: accounting is not installed.
        UsageError: the window makes no sense.
    """
    tables = get_installed(connection, settings.accounting_schema)
    window = window_of(
        database_now(connection),
        days=options.days,
        weeks=options.weeks,
        months=options.months,
        begin=options.begin,
        end=options.end,
    )
    return tables, window


def print_report(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    def work(connection: Connection) -> tuple[Window, list[Line]]:
        tables, window = open_window(options, settings, connection)
        return window, report(connection, tables, window, options.by)

    window, lines = database.run(work)
    if options.json:
        print_json({"by": options.by, "start": window.start, "end": window.end, "lines": lines})
    elif options.csv:
        print_csv(options.by, lines)
    else:
        _print_table(options.by, window, lines)
    return ExitCode.DONE


def draw_plot(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    if not 1 <= options.steps <= MAX_STEPS:
        raise UsageError(f"--steps: a plot has 1 to {MAX_STEPS} points in time")
    check_path(options.file)

    def work(connection: Connection) -> Series:
        tables, window = open_window(options, settings, connection)
        return series(connection, tables, window, options.steps)

    found = database.run(work)
    plot(found, options.file)
    if options.json:
        print_json(found)
    else:
        sys.stdout.write(f"{options.file} written\n")
    return ExitCode.DONE


def print_records(options: argparse.Namespace, settings: Settings, database: Database) -> int:
    check_names(options.site, options.service)

    # By way of a file: a year's records are more than memory should hold, and none are printed
    # twice when the database is asked again.
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", newline="") as spool:

        def work(connection: Connection) -> None:
            spool.seek(0)
            spool.truncate()
            tables, window = open_window(options, settings, connection)
            records = usage_records(
                connection, tables, window, site=options.site, service=options.service
            )
            spool.writelines(json_lines(records) if options.json else message(records))

        database.run(work)
        spool.seek(0)
        shutil.copyfileobj(spool, sys.stdout)
    return ExitCode.DONE


def print_csv(by: str, lines: list[Line]) -> None:
    """The lines of a report as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = [field.name for field in dataclasses.fields(Line)]
    writer.writerow([f"{by}_id", by, *columns[2:]])
    writer.writerows((line.id, _cell(line.name), *dataclasses.astuple(line)[2:]) for line in lines)


def _cell(name: str) -> str:
    """Names come from people; what they typed is data, to terminals and spreadsheets too."""
    shown = visible(name)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def _print_table(by: str, window: Window, lines: list[Line]) -> None:
    rows = [
        (line.name, line.vms, duration(line.transfer_seconds), duration(line.running_seconds))
        for line in lines
    ]
    say(f"{_text(window.start)} to {_text(window.end)}")
    console().print(table("", (by, "VMs", "transfer", "running"), rows))


def _text(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
