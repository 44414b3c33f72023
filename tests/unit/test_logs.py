"""What a log line says, in each format, and what it never says."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.logged import Log, logging_restored
from vcld.config import Secret

PASSWORD = 'qZx7"m\u00e4t\\42'


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with logging_restored():
        yield Log(tmp_path / "vcld.log")


def test_json_line_tells_when_how_grave_what_and_who(log: Log) -> None:
    logger = log.configure()
    before = dt.datetime.now(dt.UTC)

    with structlog.contextvars.bound_contextvars(
        request_id=4, reservation_id=5, computer="vm1", state="new"
    ):
        logger.info("image loaded", duration_seconds=3)

    (line,) = log.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert abs(dt.datetime.fromisoformat(line.pop("timestamp")) - before) < dt.timedelta(minutes=1)
    assert line == {
        "level": "info",
        "event": "image loaded",
        "pid": os.getpid(),
        "request_id": 4,
        "reservation_id": 5,
        "computer": "vm1",
        "state": "new",
        "duration_seconds": 3,
    }


def test_what_was_bound_is_gone_after_the_work(log: Log) -> None:
    logger = log.configure()
    with structlog.contextvars.bound_contextvars(request_id=4):
        logger.info("within")

    logger.info("after")

    assert "request_id" not in log.lines[1]


def test_pid_is_that_of_the_writer_whatever_a_caller_says(log: Log) -> None:
    log.configure().info("worker adopted", pid=1)

    assert log.lines[0]["pid"] == os.getpid()


@pytest.mark.parametrize("form", ["json", "console", "vcld"])
def test_lines_below_the_level_are_left_out(log: Log, form: str) -> None:
    logger = log.configure(form, level="warning")

    logger.debug("one")
    logger.info("two")
    logger.warning("three")

    assert "three" in log.text
    assert "one" not in log.text
    assert "two" not in log.text


def test_line_below_the_level_does_no_work_at_all(log: Log) -> None:
    class Explosive:
        def __str__(self) -> str:
            raise AssertionError("rendered")

        __repr__ = __str__

    logger = log.configure(level="info")

    logger.debug(Explosive(), fact=Explosive())

    assert log.text == ""
    assert "_nop" in logger.bind().debug.__qualname__  # not even the arguments are looked at


def test_level_can_be_changed_under_a_logger_that_is_kept(log: Log) -> None:
    logger = log.configure(level="info")
    logger.debug("hidden")

    log.configure(level="debug")
    logger.debug("shown")

    assert [line["event"] for line in log.lines] == ["shown"]


def test_console_line_is_for_people(log: Log) -> None:
    log.configure("console").info("image loaded", computer="vm1")

    assert re.fullmatch(
        rf"\S+Z \[info     \] image loaded +computer=vm1 pid={os.getpid()}\n", log.text
    )


def test_format_is_json_by_itself_where_no_terminal_is(log: Log) -> None:
    log.configure("auto").info("x")

    assert log.lines[0]["event"] == "x"


def test_perl_format_has_all_fields_and_repeats_them_for_each_line_of_text(log: Log) -> None:
    logger = log.configure("vcld")
    before = dt.datetime.now()

    with structlog.contextvars.bound_contextvars(request_id=4, reservation_id=5, state="new"):
        logger.info("first\nsecond", computer="vm1")
    logger.warning("odd")

    first, second, mark, odd = [line.split("|") for line in log.text.splitlines()]
    assert first[1:5] == [str(os.getpid()), "4", "5", "new"]
    assert first[5] == (
        "test_logs.py:test_perl_format_has_all_fields_and_repeats_them_for_each_line_of_text"
    )
    assert first[6].isdecimal()
    assert [first[7:], second[7:]] == [["first"], ["second computer=vm1"]]
    assert first[:7] == second[:7]
    assert [mark[1:5], odd[1:5]] == [[str(os.getpid()), "", "", "vcld2"]] * 2
    assert [mark[7], odd[7]] == ["---- WARNING ----", "odd"]
    written = dt.datetime.strptime(first[0], "%Y-%m-%d %H:%M:%S")
    assert abs(written - before) < dt.timedelta(minutes=1)


@pytest.mark.parametrize("form", ["json", "console", "vcld"])
def test_registered_secret_shows_nowhere_in_a_line(log: Log, form: str) -> None:
    secret = Secret(PASSWORD)
    logger = log.configure(form)

    text = f"text with {PASSWORD}"
    logger.info(
        text,
        value=f"-p{PASSWORD}",
        nested={"list": [PASSWORD, {PASSWORD: 1}], "tuple": ((PASSWORD,),)},
        secret=secret,
        thing=Path(f"/tmp/{PASSWORD}"),
        raw=PASSWORD.encode(),
    )
    try:
        raise ValueError(f"login with {PASSWORD!r} failed") from OSError(PASSWORD)
    except ValueError:
        logger.exception("login failed")
    logging.getLogger("library").warning("it is %s", PASSWORD)

    assert "login failed" in log.text
    assert "library message" in log.text
    assert "qZx7" not in log.text
    assert log.text.count("***") >= 9


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "root_password",
        "pw",
        "passwd",
        "wrtPass",
        "jabpass",
        "private_key",
        "api-key",
        "secret",
        "auth_token",
        "Authorization",
        "passphrase",
        "credentials",
        "ssh_key",
    ],
)
def test_value_under_a_name_that_looks_secret_is_hidden(log: Log, name: str) -> None:
    log.configure().info("x", **{name: "letmein"}, deep=[{name: "letmein", "user": "ada"}])

    assert "letmein" not in log.text
    assert log.lines[0]["deep"][0]["user"] == "ada"


def test_that_a_password_is_set_or_not_may_be_told(log: Log) -> None:
    log.configure().info("x", password=None, has_password=True)

    assert log.lines[0]["password"] is None
    assert log.lines[0]["has_password"] is True


def test_exception_is_told_with_its_traceback_but_without_local_variables(log: Log) -> None:
    logger = log.configure()

    def fail() -> None:
        hidden_local = "letme" + "in"
        raise ValueError(f"{len(hidden_local)} is wrong")

    try:
        fail()
    except ValueError:
        logger.exception("it failed")

    trace = log.lines[0]["exception"]
    assert trace.startswith("Traceback (most recent call last)")
    assert "in fail" in trace
    assert trace.endswith("ValueError: 7 is wrong")
    assert "letmein" not in log.text


def test_value_that_holds_itself_does_not_hurt(log: Log) -> None:
    endless: dict[Any, Any] = {(1, 2): "odd key"}
    endless["itself"] = endless

    log.configure().info("x", value=endless)

    assert log.lines[0]["value"]["(1, 2)"] == "odd key"


def test_libraries_are_heard_from_warning_on(log: Log) -> None:
    log.configure(level="debug")
    library = logging.getLogger("paramiko.transport")

    library.info("chatter")
    library.warning("host key %s", "changed")
    library.error("broken")

    assert [(line["level"], line["library"], line["text"]) for line in log.lines] == [
        ("warning", "paramiko.transport", "host key changed"),
        ("error", "paramiko.transport", "broken"),
    ]


def test_library_that_formats_wrongly_does_not_hurt(log: Log) -> None:
    log.configure()

    logging.getLogger("library").warning("%d bytes", "many")

    assert log.lines[0]["text"] == "%d bytes"


def test_traceback_of_a_library_is_kept(log: Log) -> None:
    log.configure()

    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("library").exception("lost")

    assert log.lines[0]["exception"].endswith("OSError: gone")
