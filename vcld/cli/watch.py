"""``vcld watch``: what is going on, live."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vcld import clock, service
from vcld.cli.output import console, duration, plain
from vcld.cli.picture import Picture, load_picture
from vcld.cli.status import request_row
from vcld.config import Settings
from vcld.errors import ExitCode, StoreError
from vcld.waiting import Cancellation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document a line")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="pause between pictures"
    )
    parser.add_argument(
        "--for", dest="limit", type=float, metavar="SECONDS", help="end after this time"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    database, pause = service.connect(settings), Cancellation()
    interval = max(0.2, options.interval)
    deadline = clock.monotonic() + options.limit if options.limit is not None else None
    if options.json:
        while deadline is None or clock.monotonic() < deadline:
            document = plain(database.run(load_picture))
            sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()
            pause.wait(interval)
        return ExitCode.DONE
    with Live(console=console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
        while deadline is None or clock.monotonic() < deadline:
            try:
                drawing = draw(database.run(load_picture))
            except StoreError as err:
                drawing = Text(f"waiting for the database: {err}")
            live.update(drawing, refresh=True)
            pause.wait(interval)
    return ExitCode.DONE


def draw(picture: Picture) -> RenderableType:
    """A picture with a bar for each load."""
    heads = [
        f"{node.hostname}: {node.state}, heartbeat {duration(node.silent_seconds)} ago"
        for node in picture.nodes
    ]
    counts = ", ".join(f"{count} {state}" for state, count in picture.computers.items())
    table = Table(expand=False, header_style="bold", pad_edge=False)
    for column in ("request", "state", "computer", "image", "user", "worker", "load", "what"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for line in picture.requests:
        *cells, step, what = request_row(line, picture)
        progress = picture.progress.get(line.reservationid)
        bar: RenderableType = Text(str(step))
        if progress is not None and progress.seconds_left is not None:
            bar = ProgressBar(total=1.0, completed=progress.fraction, width=20)
        table.add_row(*(Text(str(cell)) for cell in cells), bar, Text(str(what)))
    return Group(Text("\n".join(heads)), Text(f"computers: {counts}"), table)
