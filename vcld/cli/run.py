"""``vcld run``: the daemon."""

from __future__ import annotations

import argparse

from vcld import service
from vcld.config import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--daemon",
        action="store_true",
        help="detach from the terminal and write a pid file; without, stay in the foreground",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    return service.run(settings, detach=options.daemon)
