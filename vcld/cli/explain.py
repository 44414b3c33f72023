"""``vcld explain``: why a request is, or is not, being processed."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from vcld import clock, schedule, service
from vcld.cli.output import duration, print_json, say
from vcld.config import Settings
from vcld.errors import ExitCode, NotFoundError
from vcld.schedule import Action
from vcld.states.table import STATES
from vcld.store import candidates, loadlog, nodes, overview
from vcld.store.candidates import Candidate
from vcld.store.catalog import load_catalog
from vcld.store.loadlog import Entry
from vcld.store.overview import RequestLine


@dataclass(slots=True)
class Explanation:
    requestid: int
    state: str
    laststate: str
    #: What happens, or why nothing does, a sentence each.
    sentences: list[str] = field(default_factory=list)
    #: Rows of the load log, oldest first.
    history: list[Entry] = field(default_factory=list)


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
    row = STATES.get(lines[0].state)
    found.sentences.append(row.summary if row else _unknown(lines[0]))
    catalog = load_catalog(connection)
    by_node = {node.hostname: node for node in overview.load_nodes(connection)}
    for line in lines:
        if line.reservationid == 0:
            found.sentences.append(
                "It has no reservation, so no management node will ever look at it: cancel it."
            )
            continue
        if line.managementnode not in by_node:
            found.sentences.append(
                f"Reservation {line.reservationid}: its management node has no row."
            )
            continue
        node = by_node[line.managementnode]
        id_ = nodes.get_node(connection, line.managementnode).id
        rows = candidates.load_candidates(connection, catalog, id_, [requestid])
        mine = [item for item in rows if item.reservationid == line.reservationid]
        found.sentences += _reservation(line, mine[0] if mine else None)
        if node.pid is None:
            found.sentences.append(f"No vcld has ever run for {node.hostname}.")
        elif node.stopped:
            found.sentences.append(f"vcld was stopped for {node.hostname}: start it.")
        elif (node.silent_seconds or 0) > 60:
            found.sentences.append(
                f"vcld for {node.hostname} has been silent for"
                f" {duration(node.silent_seconds)}: is it running?"
            )
    skew = _skew(connection)
    if abs(skew) > settings.max_clock_skew_seconds:
        found.sentences.append(
            f"This machine's clock is {duration(skew)} off the database's: set the time."
        )
    ids = [line.reservationid for line in lines if line.reservationid]
    found.history = loadlog.read(connection, ids or [0])
    return found


def _unknown(line: RequestLine) -> str:
    if line.state == "?":
        return "Its state has no row in the table state: set request.stateid to one that has."
    return f"State {line.state!r} is none that vcld processes."


def _reservation(line: RequestLine, candidate: Candidate | None) -> list[str]:
    name = f"Reservation {line.reservationid} on {line.computer}"
    missing = [
        part
        for part, value in (
            ("computer", line.computer),
            ("image revision", line.image),
            ("user", line.user),
            ("provisioning", line.provisioning),
        )
        if value == "?"
    ]
    sentences = [f"{name}: its {part} has no row, it will fail." for part in missing]
    if line.phase == "running":
        who = f"worker {line.pid}" if line.pid else "a worker that is about to start"
        return [*sentences, f"{name}: {who} works on it, attempt {line.attempts + 1}."]
    if line.phase is not None:
        left = line.next_in_seconds or 0
        when = f"taken up in {duration(left)}" if left > 0 else "about to be taken up"
        return [*sentences, f"{name}: {line.phase}, {when}: {line.reason}."]
    if candidate is None:
        return sentences
    verdict = schedule.decide(candidate.timing)
    if candidate.state == "pending":
        return [
            *sentences,
            f"{name}: pending, but nobody has it. vcld frees such a request after a minute;"
            f" 'vcld retry {line.requestid}' does it now.",
        ]
    verb = {
        Action.NOTHING: "nothing is to be done",
        Action.REMOVE: "it is about to be removed",
        Action.PRELOAD: "it is about to be loaded in advance",
    }.get(verdict.action, "it is about to be processed")
    return [*sentences, f"{name}: {verb}: {verdict.reason}."]


def _skew(connection: Connection) -> float:
    there = nodes.database_utc(connection)
    return clock.utc_now().replace(tzinfo=None).timestamp() - there.timestamp()
