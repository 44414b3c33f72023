"""``vcld xcat``: are blades fit to be loaded, and what would a load do?"""

from __future__ import annotations

import argparse

import structlog

from vcld import service
from vcld.cli.output import console, print_json, say, table, verdict
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.provisioning.xcat.check import check_node, rehearse, site_warnings
from vcld.provisioning.xcat.runner import Runner
from vcld.provisioning.xcat.site import NodeSite
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import blades, nodes
from vcld.store.blades import WantedImage
from vcld.store.catalog import Catalog, load_catalog
from vcld.waiting import Cancellation

NO_IMAGE = WantedImage(
    imagename="none", architecture="x86_64", os_name="none", os_type="linux",
    os_installtype="none", os_sourcepath=None, project="vcl",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="ask xCAT, VCL and the controllers about nodes")
    check.add_argument("nodes", nargs="+", metavar="NODE", help="name of a node, as in xCAT")
    rehearsal = actions.add_parser("dry-run", help="say what a load would do, and do nothing")
    rehearsal.add_argument("node", metavar="NODE", help="name of a node, as in xCAT")
    rehearsal.add_argument("image", metavar="IMAGE", help="imagename of a revision")
    for each in (check, rehearsal):
        each.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    database = service.connect(settings)
    host = database.run(lambda c: nodes.get_node(c, settings.fqdn))
    catalog = database.run(load_catalog)
    if options.action == "dry-run":
        return _dry_run(options, settings, database, host, catalog)
    known = database.run(lambda c: blades.find_blades(c, options.nodes))
    found, runner = [], None
    for name in options.nodes:
        site = _site(name, NO_IMAGE, settings, host, catalog, runner)
        runner = site.runner  # with its connection, where it has one
        found.append(check_node(site, known.get(name)))
    problems = [problem for node in found for problem in node.problems]
    warnings = site_warnings(site)
    site.runner.close()
    if options.json:
        print_json({"nodes": found, "warnings": warnings})
    else:
        columns = ("node", "power", "nodestat", "status", "next boot", "groups")
        rows = [(n.node, n.power, n.nodestat, n.status, n.next_boot, n.groups) for n in found]
        console().print(table("Nodes", columns, rows))
        for warning in warnings:
            say(f"warning: {warning}")
        for problem in problems:
            say(f"- {problem}")
        say(verdict(problems))
    return ExitCode.FAILED if problems else ExitCode.DONE


def _dry_run(
    options: argparse.Namespace,
    settings: Settings,
    database: Database,
    host: ManagementNode,
    catalog: Catalog,
) -> int:
    wanted = database.run(lambda c: blades.find_image(c, options.image))
    site = _site(options.node, wanted, settings, host, catalog)
    commands = rehearse(site)
    site.runner.close()
    if options.json:
        print_json({"node": options.node, "image": options.image, "commands": commands})
        return ExitCode.DONE
    for command in commands:
        say(command)
    return ExitCode.DONE


def _site(
    node: str,
    wanted: WantedImage,
    settings: Settings,
    host: ManagementNode,
    catalog: Catalog,
    runner: Runner | None = None,
) -> NodeSite:
    def variables(name: str) -> str | None:
        # A person waits for the answer: not for xCAT's daemon to come back.
        return "1" if name == "xcat|daemon_patience" else catalog.variables.get(name)

    return NodeSite(
        node,
        wanted,
        host,
        settings=settings,
        variables=variables,
        cancellation=Cancellation(),
        log=structlog.get_logger(),
        runner=runner,
    )
