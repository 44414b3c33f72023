"""``vcld esxi check HOST`` and ``vcld esxi plan REQUEST``: what would a load do?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import structlog

from vcld import guest, provisioning, service
from vcld.cli.output import console, print_json, say, table
from vcld.config import Settings
from vcld.errors import ConfigError, ExitCode, NotFoundError, UnsupportedOperationError
from vcld.guest.interface import Tools
from vcld.schema.engine import Database
from vcld.snapshot import Reservation
from vcld.store import nodes, requests, reservations, snapshots, vmhosts
from vcld.store.catalog import load_catalog
from vcld.supervisor.warming import NOBODY
from vcld.waiting import Cancellation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    check = commands.add_parser("check", help="look at all that a load on a VM host needs")
    check.add_argument("host", help="name of the VM host, an ESXi host or a vCenter")
    plan = commands.add_parser("plan", help="say what the load of a request would do")
    plan.add_argument("request", type=int, help="id of the request")
    for one in (check, plan):
        one.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    # Who asks wants to know now whether the host is there.
    settings = dataclasses.replace(settings, vsphere_patience_seconds=0.0)
    database = service.connect(settings)
    tools = _tools(database, settings)
    return (_check if options.what == "check" else _plan)(options, database, tools)


def _check(options: argparse.Namespace, database: Database, tools: Tools) -> int:
    from vcld.provisioning.esxi.checking import check_host  # noqa: PLC0415 - pyVmomi is large

    vmhost = database.run(lambda connection: vmhosts.get_by_name(connection, options.host))
    findings = check_host(vmhost, tools)
    if options.json:
        print_json(findings)
    else:
        rows = [("ok" if one.ok else "PROBLEM", one.what, one.text) for one in findings]
        console().print(table(vmhost.hostname, ("", "what", "found"), rows))
    return ExitCode.DONE if all(one.ok for one in findings) else ExitCode.FAILED


def _plan(options: argparse.Namespace, database: Database, tools: Tools) -> int:
    plans: dict[str, list[str]] = {}
    for reservation in _reservations(options.request, database, tools.settings):
        made = provisioning.make_provisioner(
            reservation, guest.make_guest(reservation, tools), tools
        )
        steps: Callable[[], list[str]] | None = getattr(made, "plan_load", None)
        if steps is None:
            raise UnsupportedOperationError(
                f"{reservation.computer.shortname} is no VM of an ESXi host or vCenter"
            )
        try:
            plans[reservation.computer.shortname] = steps()
        finally:
            made.close()
    if options.json:
        print_json(plans)
        return ExitCode.DONE
    for name, lines in plans.items():
        say(f"{name}: a load would")
        for line in lines:
            say(f"  {line}")
    return ExitCode.DONE


def _reservations(requestid: int, database: Database, settings: Settings) -> list[Reservation]:
    def load(connection: Any) -> list[Reservation]:
        pair = requests.find_pair(connection, requestid)
        ids, _ = reservations.of_request(connection, requestid)
        if pair is None or not ids:
            raise NotFoundError(f"there is no request {requestid}")
        try:
            node = nodes.get_node(connection, settings.fqdn)
        except NotFoundError as err:
            raise ConfigError(str(err)) from err
        state = pair[1] if pair[0] == "pending" else pair[0]
        grip = dataclasses.replace(NOBODY, requestid=requestid, state=state, laststate=pair[1])
        return [
            snapshots.load_reservation(
                connection, dataclasses.replace(grip, reservationid=id_), node, preload_only=False
            )
            for id_ in ids
        ]

    return database.run(load)


def _tools(database: Database, settings: Settings) -> Tools:
    catalog = database.run(load_catalog)

    def in_transaction(work: Callable[..., Any], *args: Any, **facts: Any) -> Any:
        return database.run(lambda connection: work(connection, *args, **facts))

    return Tools(
        settings=settings,
        cancellation=Cancellation(),
        progress=lambda name, text: None,
        variables=catalog.variables.get,
        log=structlog.get_logger(),
        run=in_transaction,
    )
