"""The ``vcld`` command: arguments in, exit code out.

Exit codes: 0 done; 10 refused or failed; 11 try later; 70 a bug; 75 the database is away;
78 configuration or schema are wrong; 2 the arguments are wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vcld import __version__, logs
from vcld.cli import (
    accounting,
    check,
    control,
    db,
    demo,
    esxi,
    explain,
    hostkey,
    run,
    states,
    status,
    watch,
    xcat,
)
from vcld.config import load
from vcld.errors import ConfigError, ExitCode, VcldError

#: name → (module with ``add_arguments`` and ``run``, what it does)
COMMANDS: dict[str, tuple[Any, str]] = {
    "run": (run, "run the daemon"),
    "check": (check, "check configuration, database, node and plugins"),
    "db": (db, "make or check the database schema"),
    "status": (status, "show requests, workers, management nodes and computers"),
    "watch": (watch, "the same, live, with the progress of loads"),
    "explain": (explain, "say why a request is or is not being processed"),
    "retry": (control.Retry, "let a request be processed again"),
    "cancel": (control.Cancel, "end a request"),
    "hostkey": (hostkey, "show or forget the SSH host key of a computer"),
    "accounting": (accounting, "keep account in the tables of OpenNebula 2.0, and report"),
    "xcat": (xcat, "check blades, and say what a load would do"),
    "esxi": (esxi, "check an ESXi host or vCenter; say what a load would do"),
    "states": (states, "print the table of request states"),
    "demo": (demo, "a simulated site on an embedded database"),
}
#: Commands that need no configuration.
UNCONFIGURED = frozenset({"states", "demo"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    command = COMMANDS[options.command][0]
    try:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vcld", description="Apache VCL management-node daemon")
    parser.add_argument("--version", action="version", version=f"vcld {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        module.add_arguments(sub)
        _add_config(sub, default=None)
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
