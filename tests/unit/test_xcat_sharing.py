"""One command for many workers, whoever of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.daemon import eventually
from tests.simulated import in_process
from vcld import clock
from vcld.errors import ConfigError, WorkerStopped
from vcld.provisioning.xcat.failures import XcatUnavailableError
from vcld.provisioning.xcat.sharing import Answer, Shared, private_folder
from vcld.waiting import Cancellation


class Asked:
    """Counts the questions; an answer takes a moment."""

    def __init__(self, folder: Path, seconds: float = 0.2) -> None:
        self.folder, self.seconds = folder, seconds
        self.questions: list[list[str]] = []

    def ask(self, names: Sequence[str]) -> dict[str, Answer]:
        self.questions.append(list(names))
        time.sleep(self.seconds)
        return {name: {"number": len(self.questions)} for name in names if name != "lost"}

    def shared(self, keep: float = 0.0) -> Shared:
        return Shared(self.folder, "power", self.ask, Cancellation(), keep_seconds=keep)


def test_many_at_once_are_answered_by_few_commands(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    found: dict[str, Answer | None] = {}

    def want(name: str) -> None:
        found[name] = asked.shared().get(name)

    threads = [threading.Thread(target=want, args=(f"n{i}",)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(found.values())
    assert len(asked.questions) <= 5


def test_a_fresh_answer_is_taken_and_an_old_one_is_not(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 0)
    assert asked.shared().get("a") == {"number": 1}
    assert asked.shared().get("a", max_age=60) == {"number": 1}
    assert asked.shared().get("a", max_age=60, since=clock.monotonic()) == {"number": 2}


def test_nodes_that_are_watched_are_asked_for_together(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 0)
    for _ in range(3):
        for name in ("a", "b", "c"):
            asked.shared(keep=60).get(name, max_age=60 if name != "a" else 0)
    assert asked.questions[-1] == ["a", "b", "c"]
    assert len(asked.questions) <= 5


def test_a_node_that_the_answer_leaves_out_is_none(tmp_path: Path) -> None:
    assert Asked(tmp_path, 0).shared().get("lost") is None


def test_a_failure_is_told_to_those_who_wait_with(tmp_path: Path) -> None:
    asked = Asked(tmp_path)

    def fail(names: Sequence[str]) -> dict[str, Answer]:
        asked.questions.append(list(names))
        time.sleep(0.2)
        raise XcatUnavailableError("away")

    errors: list[str] = []

    def want(name: str) -> None:
        try:
            Shared(tmp_path, "power", fail, Cancellation()).get(name)
        except XcatUnavailableError as err:
            errors.append(str(err))

    threads = [threading.Thread(target=want, args=(f"n{i}",)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["away"] * 20
    assert len(asked.questions) <= 5


def test_the_lease_ends_with_its_holder(tmp_path: Path) -> None:
    def die(names: Sequence[str]) -> dict[str, Answer]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    dead = Shared(tmp_path, "power", die, Cancellation())
    assert in_process(lambda: dead.get("a")) == -signal.SIGKILL
    assert Asked(tmp_path, 0).shared().get("b") == {"number": 1}


def test_who_asks_and_is_stopped_does_not_hold_the_others_for_ever(tmp_path: Path) -> None:
    """By a signal, or by a debugger."""
    begun = tmp_path / "begun"

    def hang(_names: Sequence[str]) -> dict[str, Answer]:
        begun.touch()
        time.sleep(60)
        return {}

    asker = Shared(tmp_path, "power", hang, Cancellation())
    process = multiprocessing.get_context("fork").Process(target=asker.get, args=("a",))
    process.start()
    pid = process.pid
    assert pid is not None
    try:
        eventually(begun.exists)
        os.kill(pid, signal.SIGSTOP)
        waiting = Shared(tmp_path, "power", lambda _: {}, Cancellation(), limit_seconds=0.3)
        with pytest.raises(XcatUnavailableError, match=rf"process {pid} has asked xCAT for others"):
            waiting.get("b")
    finally:
        process.kill()
        process.join()


def test_what_a_dead_worker_wanted_is_not_done(tmp_path: Path) -> None:
    notes = tmp_path / "power.wanted"
    notes.mkdir()
    old = clock.monotonic() - 3
    (notes / "a").write_text(f"{old} {old}")
    asked = Asked(tmp_path, 0)
    asked.shared().get("b")
    assert asked.questions == [["b"]]
    assert list(notes.iterdir()) == []


def test_what_was_done_is_not_done_again_for_a_note_that_was_renewed_meanwhile(
    tmp_path: Path,
) -> None:
    asked = Asked(tmp_path, 0)
    start = clock.monotonic()
    asked.shared().get("a")
    (tmp_path / "power.wanted" / "a").write_text(f"{start} {clock.monotonic()}")
    asked.shared().get("b")
    assert asked.questions == [["a"], ["b"]]


def test_each_of_many_is_done_once(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 0.7)  # longer than a note waits for its renewal
    threads = [threading.Thread(target=asked.shared().get, args=(f"n{i}",)) for i in range(40)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    done = [name for question in asked.questions for name in question]
    assert sorted(done) == sorted(f"n{i}" for i in range(40))


def test_what_a_stopped_worker_wanted_is_not_done(tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.stop("the request was deleted")
    asked = Asked(tmp_path, 0)
    with pytest.raises(WorkerStopped):
        Shared(tmp_path, "power", asked.ask, cancellation).get("a")
    assert list((tmp_path / "power.wanted").iterdir()) == []


def test_a_file_of_another_boot_or_of_rubbish_counts_as_none(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 0)
    asked.shared().get("a")
    text = (tmp_path / "power.json").read_text()
    for broken in (text.replace('"boot": "', '"boot": "other'), "{", "[]", ""):
        (tmp_path / "power.json").write_text(broken)
        before = len(asked.questions)
        asked.shared().get("a", max_age=60)
        assert len(asked.questions) == before + 1


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="not ours alone"):
        private_folder(folder)
