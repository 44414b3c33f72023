"""``vcld explain``: why a request is, or is not, being processed."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from vcld import clock, service
from vcld.cli import reasons
from vcld.cli.output import duration, print_json, say
from vcld.cli.reasons import Rule
from vcld.config import Settings
from vcld.errors import ExitCode, NotFoundError
from vcld.store import candidates, claims, loadlog, nodes, oddities, overview
from vcld.store.catalog import Catalog, load_catalog
from vcld.store.loadlog import Entry
from vcld.store.overview import NodeLine, RequestLine
from vcld.store.strangers import Here


@dataclass(slots=True)
class Explanation:
    requestid: int
    state: str
    laststate: str
    #: What happens, or why nothing does, a sentence each.
    sentences: list[str] = field(default_factory=list)
    #: The same for programs, in the same order.
    rules: list[Rule] = field(default_factory=list)
    #: Rows of the load log, oldest first.
    history: list[Entry] = field(default_factory=list)

    def add(self, *rules: Rule) -> None:
        """Say something more."""
        self.rules += rules
        self.sentences += [rule.text for rule in rules]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request", type=int, help="id of the request")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, settings: Settings) -> int:
    found = service.connect(settings).run(
        lambda connection: explain(connection, settings, options.request)
    )
    if options.json:
        print_json(found)
        return ExitCode.DONE
    say(f"Request {found.requestid} is {found.state}, before {found.laststate}.")
    for sentence in found.sentences:
        say(f"- {sentence}")
    if found.history:
        say("Load log:")
        for entry in found.history:
            ago = f"{duration(entry.age_seconds):>8} ago"
            say(f"  {ago}  {entry.reservationid}  {entry.name}: {entry.text}")
    return ExitCode.DONE


def explain(connection: Connection, settings: Settings, requestid: int) -> Explanation:
    """Say by rule and clock what becomes of a request.

    Raises:
        NotFoundError: there is no such request.
    """
    lines = overview.load_requests(connection, [requestid])
    if not lines:
        raise NotFoundError(f"there is no request {requestid}; it may be over and removed")
    found = Explanation(requestid, lines[0].state, lines[0].laststate)
    found.add(*reasons.of_states(lines[0]))
    catalog = load_catalog(connection)
    by_node = {node.hostname: node for node in overview.load_nodes(connection)}
    here = Here(settings.fqdn, settings.processname)
    for line in lines:
        node = by_node.get(line.managementnode)
        found.add(*_reservation(connection, catalog, line, node, here))
        if node is not None and nodes.is_named(node.hostname, settings.fqdn):
            found.add(*_limit(connection, line, settings.max_workers))
    skew = _skew(connection)
    if abs(skew) > settings.max_clock_skew_seconds:
        text = f"This machine's clock is {duration(skew)} off the database's: set the time."
        found.add(Rule(None, "clock", text))
    ids = [line.reservationid for line in lines if line.reservationid]
    found.history = loadlog.read(connection, ids or [0])
    return found


def _reservation(
    connection: Connection, catalog: Catalog, line: RequestLine, node: NodeLine | None, here: Here
) -> list[Rule]:
    if line.reservationid == 0:
        text = "It has no reservation, so no management node will ever look at it: cancel it."
        return [Rule(None, "no-reservation", text)]
    if node is None:
        text = (
            f"Reservation {line.reservationid}: its management node has no row, so nobody will"
            " ever look at it: set reservation.managementnodeid to one that has."
        )
        return [Rule(line.reservationid, "no-node", text)]
    id_ = nodes.get_node(connection, line.managementnode).id
    rows = candidates.load_candidates(connection, catalog, id_, [line.requestid])
    mine = [item for item in rows if item.reservationid == line.reservationid]
    rules = reasons.of_reservation(connection, line, mine[0] if mine else None, node, here)
    about_node = reasons.of_node(line, node)
    return [*rules, about_node] if about_node is not None else rules


def _limit(connection: Connection, line: RequestLine, max_workers: int) -> list[Rule]:
    """Whether this node's limit of workers is what it waits for, if it waits for a worker."""
    id_ = nodes.get_node(connection, line.managementnode).id
    running = claims.count_running(connection, id_)
    if line.phase is not None or running < max_workers:
        return []
    text = (
        f"{running} workers run, as many as may (max_workers={max_workers}): what is due waits"
        " until one ends."
    )
    return [Rule(line.reservationid, "worker-limit", text)]


def _skew(connection: Connection) -> float:
    there = oddities.database_utc(connection)
    return clock.utc_now().replace(tzinfo=None).timestamp() - there.timestamp()
