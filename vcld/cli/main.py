"""The ``vcld`` command: arguments in, exit code out.

Exit codes: 0 done; 10 refused or failed; 11 try later; 70 a bug; 75 the database is away;
78 configuration or schema are wrong; 2 the arguments are wrong.
"""

from __future__ import annotations

import argparse
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vcld import __version__, logs
from vcld.config import load
from vcld.errors import ConfigError, ExitCode, VcldError

#: name → (what has ``add_arguments`` and ``run``, what the command does). Only the chosen one
#: is imported: a daemon or a command starts without what the others need.
COMMANDS = {
    "run": ("vcld.cli.run", "run the daemon"),
    "check": ("vcld.cli.check", "check configuration, database, node and plugins"),
    "db": ("vcld.cli.db", "make or check the database schema"),
    "status": ("vcld.cli.status", "show requests, workers, management nodes and computers"),
    "watch": ("vcld.cli.watch", "the same, live, with the progress of loads"),
    "explain": ("vcld.cli.explain", "say why a request is or is not being processed"),
    "retry": ("vcld.cli.control:Retry", "let a request be processed again"),
    "cancel": ("vcld.cli.control:Cancel", "end a request"),
    "hostkey": ("vcld.cli.hostkey", "show or forget the SSH host key of a computer"),
    "accounting": (
        "vcld.cli.accounting",
        "keep account in the tables of OpenNebula 2.0, and report",
    ),
    "xcat": ("vcld.cli.xcat", "check blades, and say what a load would do"),
    "esxi": ("vcld.cli.esxi", "check an ESXi host or vCenter; say what a load would do"),
    "states": ("vcld.cli.states", "print the table of request states"),
    "demo": ("vcld.cli.demo", "a simulated site on an embedded database"),
}
#: Commands that need no configuration.
UNCONFIGURED = frozenset({"states", "demo"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    _let_names_pass()
    options = _parser().parse_args(arguments)
    try:
        command = _find(options.command)
        settings = None
        if options.command not in UNCONFIGURED:
            settings = load(options.config)
            if options.command != "run":
                logs.configure(level="warning", form="console")
        code = int(command.run(options, settings))
        sys.stdout.flush()
        return code  # noqa: TRY300 - an else would not see what flush raises
    except ConfigError as err:
        for problem in err.problems:
            sys.stderr.write(f"vcld: {logs.visible(problem)}\n")
        return err.exit_code
    except VcldError as err:
        sys.stderr.write(f"vcld: {logs.visible(str(err))}\n")
        return err.exit_code
    except BrokenPipeError:
        # The reader has seen enough; nothing more may be written at exit.
        sys.stdout = None
        return ExitCode.DONE
    except OSError as err:
        # Of no file: standard output, on a disk that is full.
        what = err.filename or "standard output"
        sys.stderr.write(f"vcld: {logs.visible(str(what))}: {err.strerror or err}\n")
        sys.stdout = None
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return 130


def _let_names_pass() -> None:
    """Names in any script are no error: to programs as UTF-8, to a terminal as it can show them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_chosen = stream.isatty() or "PYTHONIOENCODING" in os.environ
            encoding = None if is_chosen else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _find(name: str) -> Any:
    return pkgutil.resolve_name(COMMANDS[name][0])


class _CommandParser(argparse.ArgumentParser):
    """Learns a command's arguments when that command is given."""

    #: Whose arguments are still to be learnt; none for the parser of an action.
    command = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.command:
            command, self.command = self.command, ""
            _find(command).add_arguments(self)
            _add_config(self, default=None)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vcld", description="Apache VCL management-node daemon")
    parser.add_argument("--version", action="version", version=f"vcld {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser
    )
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, description=text).command = name
    return parser


def _add_config(parser: argparse.ArgumentParser, default: Path | str | None) -> None:
    """After a command and after its action, such as ``vcld db check --config FILE``."""
    parser.add_argument(
        "--config",
        type=Path,
        default=default,
        help="configuration file (default: $VCLD_CONFIG, then /etc/vcl/vcld.conf)",
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in dict.fromkeys(action.choices.values()):
                _add_config(part, default=argparse.SUPPRESS)
