"""``vcld states``: the table of request states."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from vcld.cli.output import console, print_json, table
from vcld.errors import ExitCode
from vcld.states.table import STATES


def markdown() -> str:
    """The page docs/states.md."""
    lines = [
        "# Request states",
        "",
        "Made by `vcld states --markdown` from `vcld/states/table.py`. A worker is started for a",
        "state that has a handler; success, failure and other are the states that may follow.",
        "",
        "| state | handler | success | failure | other | what it is |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in STATES.items():
        outcomes = (", ".join(part) or "-" for part in (row.success, row.failure, row.other))
        lines.append(
            f"| `{name}` | {row.handler or '-'} | {' | '.join(outcomes)} | {row.summary} |"
        )
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print the page docs/states.md")


def run(options: argparse.Namespace, _settings: Any) -> int:
    if options.json:
        print_json(dict(STATES))
        return ExitCode.DONE
    if options.markdown:
        sys.stdout.write(markdown())
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
