"""The log file: rotation, a full disk, forks."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.simulated import in_process
from vcld import clock, logs
from vcld.log_file import LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vcld.log"


@pytest.fixture
def file(path: Path) -> Iterator[LogFile]:
    file = LogFile(path)
    yield file
    file.use(None)


def test_lines_are_appended_to_what_is_there(path: Path, file: LogFile) -> None:
    path.write_text("old\n")

    file.write("new\n")

    assert path.read_text() == "old\nnew\n"


def test_new_log_is_not_for_everybody(path: Path, file: LogFile) -> None:
    before = os.umask(0)
    try:
        file.write("x\n")
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_log_that_was_moved_away_is_begun_anew(path: Path, file: LogFile) -> None:
    file.write("one\n")
    moved = path.rename(path.with_suffix(".1"))

    file.write("two\n")

    assert (moved.read_text(), path.read_text()) == ("one\n", "two\n")


def test_log_that_another_made_in_its_place_is_taken_up(path: Path, file: LogFile) -> None:
    file.write("one\n")
    path.rename(path.with_suffix(".1"))
    path.touch(mode=0o600)

    file.write("two\n")

    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_log_that_was_cut_to_nothing_goes_on_at_its_beginning(path: Path, file: LogFile) -> None:
    file.write("one\n")
    os.truncate(path, 0)

    file.write("two\n")

    assert path.read_bytes() == b"two\n"


def test_file_closed_behind_the_back_is_opened_again(path: Path, file: LogFile) -> None:
    file.write("one\n")
    assert file._file is not None
    os.close(file._file.fileno())

    file.write("two\n")

    assert path.read_text() == "one\ntwo\n"


def test_line_that_does_not_fit_on_the_disk_goes_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = LogFile(Path("/dev/full"))

    file.write("one\n")
    file.use(None)

    assert capsys.readouterr().err == (
        "vcld: the log /dev/full cannot be written: No space left on device\none\n"
    )


def test_full_disk_is_complained_of_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    file = LogFile(Path("/dev/full"))

    for now in (1000.0, 1001.0, 1059.0, 1060.0, 1061.0):  # noqa: B007 - the clock reads it
        file.write("line\n")
    file.use(None)

    told = capsys.readouterr().err
    assert told.count("cannot be written") == 2
    assert told.count("line\n") == 5


def test_nothing_hurts_when_stderr_is_gone_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(Path("/dev/full"))

    for stderr in (None, open("/dev/full", "w")):  # noqa: SIM115 - closed below
        monkeypatch.setattr(sys, "stderr", stderr)
        file.write("one\n")
    file.use(None)

    assert stderr is not None
    with pytest.raises(OSError, match="No space"):
        stderr.close()


@pytest.mark.parametrize("form", ["json", "vcld", "console"])
def test_log_says_that_it_has_a_gap(path: Path, form: str) -> None:
    logs.configure(form=form, path=path)
    log = structlog.get_logger()
    try:
        log.info("before")
        path.unlink()
        path.mkdir()
        log.info("lost")
        log.info("lost too")
        path.rmdir()
        log.info("after")
        log.info("last")
    finally:
        logs.configure()

    gap, *others = path.read_text().splitlines()[-3:]
    assert "the log has a gap: it could not be written" in gap
    assert "2" in gap.partition("could not be written")[2]
    assert ["after" in others[0], "last" in others[1]] == [True, True]


def test_gap_and_torn_line_of_a_dead_worker_are_told_by_its_parent(path: Path) -> None:
    """A worker has mostly ended when there is space again."""
    file = LogFile(path, tell_gap=lambda lines: f"a gap of {lines}\n")
    file.write("one\n")

    def write_in_vain() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, 6))
        file.write("two\n")
        file.write("three\n")

    assert in_process(write_in_vain) == 0
    file.use(path)  # as when the configuration is read again
    file.write("four\n")
    file.use(None)

    assert path.read_text() == "one\ntw\na gap of 2\nfour\n"


def test_log_goes_on_in_the_file_when_there_is_space_again(
    path: Path, file: LogFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for the full disk: both cut a line in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))
        file.write("one\n")
        file.write("two\n")
        file.write("three\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    file.write("four\n")

    assert path.read_text() == "one\ntw\nfour\n"
    assert capsys.readouterr().err.splitlines()[1:] == ["two", "three"]


def test_folder_that_is_not_there_is_no_reason_to_die(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "later"
    file = LogFile(folder / "vcld.log")
    file.write("one\n")

    folder.mkdir()
    file.write("two\n")
    file.use(None)

    assert "No such file" in capsys.readouterr().err
    assert (folder / "vcld.log").read_text() == "two\n"


def test_bytes_that_are_no_text_are_written_somehow(path: Path, file: LogFile) -> None:
    file.write("na\udcefve\n")

    assert path.read_bytes() == b"na\\udcefve\n"


def test_lines_of_many_processes_stay_whole(path: Path) -> None:
    program = (
        "import os, pathlib, sys, structlog; from vcld import logs\n"
        "logs.configure(form='json', path=pathlib.Path(sys.argv[1]))\n"
        "log = structlog.get_logger(); log.info('before the fork')\n"
        "children = [os.fork() for _ in range(3)]\n"
        "for number in range(40): log.info('x' * 20_000, number=number)\n"
        "if all(children): [os.waitpid(child, 0) for child in children]\n"
    )

    subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=True)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 1 + 8 * 40
    assert {len(line["event"]) for line in lines[1:]} == {20_000}
    assert len({line["pid"] for line in lines}) == 8


def test_logging_starts_no_thread(path: Path) -> None:
    program = (
        "import logging, pathlib, sys, threading, structlog; from vcld import logs\n"
        "logs.configure(path=pathlib.Path(sys.argv[1]))\n"
        "structlog.get_logger().info('x'); logging.getLogger('y').warning('z')\n"
        "print(threading.active_count())"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout.strip() == "1"
