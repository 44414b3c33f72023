"""What a child beside the loop raises is logged: nobody else would ever hear of it."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

from tests.daemon import eventually
from vcld.config import Settings
from vcld.errors import ExitCode, StoreError
from vcld.schema.engine import Database
from vcld.supervisor.aside import Aside
from vcld.supervisor.children import Children


def refused() -> int:
    raise StoreError("the database is away")


def wrong() -> int:
    raise ZeroDivisionError


def done() -> int:
    return ExitCode.DONE


@pytest.mark.parametrize(
    ("work", "code", "told"),
    [
        (refused, ExitCode.UNAVAILABLE, "reason='the database is away'"),
        (wrong, ExitCode.BUG, "ZeroDivisionError"),
        (done, ExitCode.DONE, ""),
    ],
)
def test_failure_is_told_with_its_purpose(
    tmp_path: Path, work: Callable[[], int], code: ExitCode, told: str
) -> None:
    children = Children(selectors.DefaultSelector())
    with (tmp_path / "log").open("w+", encoding="utf-8") as out:
        log = structlog.wrap_logger(
            structlog.WriteLogger(out),
            processors=[
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(),
            ],
        )
        database = Database(sa.create_engine("sqlite://"))
        aside = Aside(Settings(), database, children, lambda: None, log)

        assert aside.start("mail", work) is not None

        (ended,) = eventually(children.reap)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert ended.status == code
    assert told in text
    assert ("purpose='mail'" in text) == bool(told)
