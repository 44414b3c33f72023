"""Printing facts: as a table for people, as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence, Sized
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vcld.logs import visible


def print_json(value: Any) -> None:
    """Write one JSON document to standard output, in ASCII where that takes no UTF-8."""
    sys.stdout.write(f"{to_json(value, indent=1)}\n")


def verdict(problems: Sized, well: str = "all is well") -> str:
    """The last line of a check."""
    count = len(problems)
    return f"{count} problem{'s' if count > 1 else ''}" if count else well


def to_json(value: Any, indent: int | None = None) -> str:
    """A JSON document that standard output can hold."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(plain(value), indent=indent, ensure_ascii=not is_utf8, default=str)


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def say(text: str) -> None:
    """Write a line to standard output; whatever it holds, the terminal only shows it."""
    sys.stdout.write(f"{visible(text)}\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose cells are taken as they are: names from the database are no markup."""
    made = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(str(cell))) for cell in row))
    return made


def console() -> Console:
    """Standard output; wide enough for a table when it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def duration(seconds: float | None) -> str:
    """Seconds in the largest units that matter: 2d 3h, 5m 10s, 7s."""
    if seconds is None:
        return "-"
    sign, rest = ("-" if seconds < 0 else ""), abs(int(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + (" ".join(parts[:2]) or "0s")
