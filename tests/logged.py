"""The process's own logging, set up by a test and put back afterwards."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from vcld import logs


class Log:
    """A log file that lines of this process go to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def configure(self, form: str = "json", level: str = "info") -> Any:
        """Log to the file from now on; a logger."""
        logs.configure(level=level, form=form, path=self.path, process="vcld2")
        return structlog.get_logger()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Put back what ``logs.configure`` changes for the whole process."""
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers[:], root.level, logging.raiseExceptions
    try:
        yield
    finally:
        logs.configure(path=None)  # lets go of the file
        config, handlers, level, logging.raiseExceptions = before
        structlog.configure(**config)
        root.handlers[:] = handlers
        root.setLevel(level)
