"""``vcld states``: the table of request states."""

from __future__ import annotations

import argparse
from typing import Any

from vcld.cli.output import console, print_json, table
from vcld.errors import ExitCode
from vcld.states.table import STATES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, _settings: Any) -> int:
    if options.json:
        print_json(dict(STATES))
        return ExitCode.DONE
    rows = [
        (
            name,
            row.handler or "-",
            ", ".join(row.success) or "-",
            ", ".join(row.failure) or "-",
            ", ".join(row.other) or "-",
            row.summary,
        )
        for name, row in STATES.items()
    ]
    columns = ("state", "handler", "success", "failure", "other", "what it is")
    console().print(table("Request states", columns, rows))
    return ExitCode.DONE
