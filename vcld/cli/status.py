"""``vcld status``: what is going on, at one moment."""

from __future__ import annotations

import argparse

from vcld import service
from vcld.cli import reasons
from vcld.cli.output import console, duration, print_json, table
from vcld.cli.picture import Picture, Progress, load_picture
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.store.overview import NodeLine, RequestLine

#: A step that takes so much longer than it should is told; estimates are rough.
LATE_SECONDS = 60
#: So many computers of a state are named.
NAMES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--all", action="store_true", help="also requests that start later or are complete"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    picture = service.connect(settings).run(
        lambda connection: load_picture(connection, everything=options.all)
    )
    if options.json:
        print_json(picture)
        return ExitCode.DONE
    show(picture)
    return ExitCode.DONE


def show(picture: Picture) -> None:
    """Print a picture as tables."""
    out = console()
    nodes = [
        (
            node.hostname,
            node.state,
            duration(node.silent_seconds),
            _daemon(node),
        )
        for node in picture.nodes
    ]
    out.print(table("Management nodes", ("node", "state", "heartbeat", "daemon"), nodes))
    rows = [request_row(line, picture) for line in picture.requests]
    columns = ("request", "state", "computer", "image", "user", "worker", "step", "what")
    out.print(table(f"Requests ({len(rows)})", columns, rows))
    if picture.hidden:
        out.print(picture.hidden_sentence)
    counts = [(*pair, _names(picture, pair[0])) for pair in picture.computers.items()]
    out.print(table("Computers", ("state", "count", "which"), counts))


def request_row(line: RequestLine, picture: Picture) -> tuple[object, ...]:
    """One reservation as cells of a table."""
    node = next((node for node in picture.nodes if node.hostname == line.managementnode), None)
    worker = line.phase or "-"
    if line.phase == "running":
        worker = f"pid {line.pid}" if line.pid else "starts"
    elif line.next_in_seconds is not None:
        worker = f"{line.phase} {duration(line.next_in_seconds)}"
    what = line.reason or reasons.of_unattended(line, node)
    if line.unwatched_because is not None:
        worker = "unknown" if line.phase == "running" else f"{line.phase}"
        what = f"{line.unwatched_because}{f'; {what}' if what else ''}"
    progress = picture.progress.get(line.reservationid)
    if progress is not None and line.phase == "running":
        what = _doing(progress)
    state = line.state if line.state == line.laststate else f"{line.state}/{line.laststate}"
    return (
        f"{line.requestid}:{line.reservationid}",
        state,
        f"{line.computer} ({line.computer_state})",
        line.image,
        line.user,
        worker,
        progress.name if progress else "-",
        what,
    )


def _names(picture: Picture, state: str) -> str:
    names = picture.out_of_service.get(state, [])
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more (--json)" if more > 0 else "")


def _daemon(node: NodeLine) -> str:
    if node.pid is None:
        return "-"
    if node.stopped:
        return "stopped"
    name = f"{node.pid} on {node.host}"
    if node.gone:
        return f"DIED, was {name}"
    return name if node.is_served else f"SILENT, was {name}"


def _doing(progress: Progress) -> str:
    """The step, with the time left; with the time it has taken once that is too long."""
    age, text = duration(progress.age_seconds), progress.text
    if progress.late_seconds >= LATE_SECONDS:
        return f"{progress.fraction:.0%}, LATE: no step for {age}: {text}"
    if progress.seconds_left is not None:
        return f"{progress.fraction:.0%}, {duration(progress.seconds_left)} left: {text}"
    return f"for {age}: {text}" if progress.age_seconds >= LATE_SECONDS else text
