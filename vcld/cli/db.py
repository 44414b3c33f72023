"""``vcld db``: make or check the schema."""

from __future__ import annotations

import argparse

from vcld import service
from vcld.cli.output import print_json, say, verdict
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.schema import check, create, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = actions.add_parser("init", help="make the schema in an empty database")
    init.add_argument("--simulator", action="store_true", help="add the simulated hardware's rows")
    checked = actions.add_parser("check", help="say what an existing database lacks")
    checked.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    database = service.connect(settings)
    if options.action == "init":
        create.create_schema(database.engine)
        database.run(seed.seed)
        if options.simulator:
            database.run(seed.seed_simulator)
        say(f"made the VCL schema in database {database.engine.url.database}")
        return ExitCode.DONE
    problems = database.run(check.find_problems)
    if options.json:
        print_json({"usable": not problems, "problems": problems})
    else:
        for problem in problems:
            say(f"{problem}")
        say(verdict(problems, "this is a VCL schema vcld can run on"))
    return ExitCode.CONFIG if problems else ExitCode.DONE
