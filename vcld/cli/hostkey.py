"""``vcld hostkey``: what is known of a computer's SSH identity, and forgetting it."""

from __future__ import annotations

import argparse

from vcld import service
from vcld.cli.output import print_json, say
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.remote.identity import fingerprint
from vcld.store import host_keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=("show", "forget"), help="what to do")
    parser.add_argument("computer", help="host name, short or full, or a NAT host's address")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Show the fingerprint of the key that is known, or drop it."""
    database = service.connect(settings)
    holder, hostname = database.run(
        lambda connection: host_keys.find_holder(connection, options.computer)
    )
    key = database.run(lambda connection: host_keys.find(connection, holder))
    if options.action == "forget":
        database.run(lambda connection: host_keys.forget(connection, holder))
    shown = fingerprint(key) if key else None
    if options.json:
        print_json({"computer": hostname, "key": shown, "action": options.action})
    elif shown is None:
        say(f"no host key of {hostname} is known; the next one is taken for right")
    elif options.action == "forget":
        say(f"{hostname}: {shown} is forgotten; the next key is taken for right")
    else:
        say(f"{hostname}: {shown}")
    return ExitCode.DONE
