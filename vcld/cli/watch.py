"""``vcld watch``: what is going on, live."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vcld import clock, service
from vcld.cli.output import console, duration, to_json
from vcld.cli.picture import Picture, load_picture
from vcld.cli.status import request_row
from vcld.config import Settings
from vcld.errors import ExitCode, StoreError, StoreRefusedError
from vcld.logs import visible
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

    def pictures() -> Iterator[Picture | StoreError]:
        while deadline is None or clock.monotonic() < deadline:
            try:
                yield database.run(load_picture)
            except StoreRefusedError:
                raise
            except StoreError as err:
                yield err
            pause.wait(interval)

    if options.json:
        for seen in pictures():
            fact = {"waiting": str(seen)} if isinstance(seen, StoreError) else seen
            sys.stdout.write(f"{to_json(fact)}\n")
            sys.stdout.flush()
        return ExitCode.DONE
    with Live(console=console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
        for seen in pictures():
            live.update(draw(seen), refresh=True)
    return ExitCode.DONE


def draw(picture: Picture | StoreError) -> RenderableType:
    """A picture with a bar for each load, or why there is none."""
    if isinstance(picture, StoreError):
        return Text(f"waiting for the database: {picture}")
    heads = [
        f"{node.hostname}: {node.state}, heartbeat {duration(node.silent_seconds)} ago"
        for node in picture.nodes
    ]
    counts = ", ".join(f"{count} {state}" for state, count in picture.computers.items())
    table = Table(expand=False, header_style="bold", pad_edge=False)
    for column in ("request", "state", "computer", "image", "user", "worker", "load", "what"):
        # Where the terminal is narrow, these two give way; they are cut, not wrapped.
        table.add_column(column, no_wrap=column not in {"image", "what"})
    for line in picture.requests:
        cells = [str(cell) for cell in request_row(line, picture)]
        row: list[RenderableType] = [_cell(cell) for cell in cells]
        progress = picture.progress.get(line.reservationid)
        if progress is not None and progress.seconds_left is not None:
            row[6] = ProgressBar(total=1.0, completed=progress.fraction, width=12)
        table.add_row(*row)
    parts: list[RenderableType] = [Text("\n".join(heads)), Text(f"computers: {counts}"), table]
    if picture.hidden:
        parts.append(Text(picture.hidden_sentence))
    return Group(*parts)


def _cell(text: str) -> Text:
    return Text(visible(text), no_wrap=True, overflow="ellipsis")
