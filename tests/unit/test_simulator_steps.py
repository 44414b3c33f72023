"""What happens as a worker passes a step of the simulator's script."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import Hardware, in_process
from vcld.errors import (
    BackendUnavailableError,
    Blame,
    LoadTimeoutError,
    RemoteError,
    StoreError,
    WorkerStopped,
)
from vcld.guest.simulated_steps import pass_step


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(tmp_path).says()


def pass_(hardware: Hardware, step: str, **facts: Any) -> None:
    pass_step(hardware.world, step, hardware.reservation(**facts), hardware.cancellation)


def fails(hardware: Hardware, step: str, **facts: Any) -> bool:
    try:
        pass_(hardware, step, **facts)
    except RemoteError:
        return True
    return False


def soon(hardware: Hardware, act: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(0.05, act)
    timer.start()
    return timer


def test_error_has_the_class_blame_and_message_of_the_rule(hardware: Hardware) -> None:
    hardware.says(
        rules=[
            {"step": "a", "error": "LoadTimeoutError", "blame": "VMHOST", "message": "too slow"},
            {"step": "b", "error": "BackendUnavailableError"},
            {"step": "c", "error": "StoreError"},
        ]
    )

    with pytest.raises(LoadTimeoutError, match="too slow") as caught:
        pass_(hardware, "a")
    assert caught.value.blame is Blame.VMHOST
    with pytest.raises(BackendUnavailableError) as unavailable:
        pass_(hardware, "b")
    assert unavailable.value.blame is Blame.VMHOST
    with pytest.raises(StoreError):
        pass_(hardware, "c")


@pytest.mark.parametrize(
    ("narrowed", "facts", "expected"),
    [
        ({}, {}, True),
        ({"step": "guest:*"}, {}, True),
        ({"step": "guest"}, {}, False),
        ({"computer": "vm[12]"}, {}, True),
        ({"computer": "vm2"}, {}, False),
        ({"image": "simulator-first-*"}, {}, True),
        ({"image": "other"}, {}, False),
        ({"request": 77}, {}, True),
        ({"request": 78}, {}, False),
        ({"state": "re*"}, {"state": "reload"}, True),
        ({"state": "re*"}, {"state": "new"}, False),
        ({"probability": 0}, {}, False),
        ({"times": 0}, {}, False),
    ],
)
def test_rule_happens_only_to_what_it_names(
    hardware: Hardware, narrowed: dict[str, Any], facts: dict[str, Any], expected: bool
) -> None:
    hardware.says(rules=[{"step": "guest:reserve", "error": "RemoteError", **narrowed}])

    assert fails(hardware, "guest:reserve", **facts) is expected


def test_rule_with_times_is_counted_over_all_processes(hardware: Hardware) -> None:
    hardware.says(rules=[{"step": "startvm", "times": 3, "error": "RemoteError"}])

    def ask() -> None:
        raise SystemExit(int(fails(hardware, "startvm")))

    assert [in_process(ask) for _ in range(5)] == [1, 1, 1, 0, 0]


def test_rule_that_kills_is_counted_before_the_death(hardware: Hardware) -> None:
    hardware.says(rules=[{"step": "new:load", "times": 1, "signal": "KILL"}])

    codes = [in_process(lambda: pass_(hardware, "new:load")) for _ in range(2)]

    assert codes == [-signal.SIGKILL, 0]


def test_another_rule_in_the_same_place_is_counted_anew(hardware: Hardware) -> None:
    for message in ("one", "two"):
        hardware.says(rules=[{"step": "a", "times": 1, "error": "RemoteError", "message": message}])
        assert [fails(hardware, "a"), fails(hardware, "a")] == [True, False]


def test_probability_with_a_seed_gives_the_same_failures_in_every_run(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> list[bool]:
        folder = tmp_path / name
        folder.mkdir()
        hardware = Hardware(folder).says(
            seed=seed, rules=[{"step": "a", "probability": 0.5, "error": "RemoteError"}]
        )
        return [fails(hardware, "a", id_=id_) for id_ in range(1, 21) for _ in range(2)]

    first = run("first", 1)

    assert True in first
    assert False in first
    assert first != [again for again in first[::2] for _ in range(2)], "a retry may succeed"
    assert run("second", 1) == first
    assert run("third", 2) != first


@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT", "TERM"])
def test_worker_ends_itself_by_the_signal_at_that_point(hardware: Hardware, name: str) -> None:
    hardware.says(rules=[{"step": "startvm", "signal": name}])

    code = in_process(lambda: pass_(hardware, "startvm"))

    assert code == -signal.Signals[f"SIG{name}"]


def test_stopped_worker_goes_on_when_it_is_continued(hardware: Hardware) -> None:
    import multiprocessing  # noqa: PLC0415

    hardware.says(rules=[{"step": "startvm", "signal": "STOP"}])
    process = multiprocessing.get_context("fork").Process(target=lambda: pass_(hardware, "startvm"))
    process.start()
    assert process.pid is not None
    limit = time.monotonic() + 20
    while " (State:\tT" not in f" ({_state(process.pid)}" and time.monotonic() < limit:
        time.sleep(0.01)
    assert process.is_alive()

    import os  # noqa: PLC0415

    os.kill(process.pid, signal.SIGCONT)

    process.join(20)
    assert process.exitcode == 0


def _state(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("State:"))


@pytest.mark.parametrize(
    "script",
    [{"delays": {"startvm": 3600}}, {"rules": [{"step": "startvm", "hang": True}]}],
    ids=["delay", "hang"],
)
def test_cancellation_ends_a_delay_and_a_hang_at_once(
    hardware: Hardware, script: dict[str, Any]
) -> None:
    hardware.says(**script)
    timer = soon(hardware, lambda: hardware.cancellation.stop("the request was deleted"))

    with pytest.raises(WorkerStopped, match="deleted"):
        pass_(hardware, "startvm")
    timer.join()


def test_every_step_is_a_point_to_stop_at_even_without_a_delay(hardware: Hardware) -> None:
    hardware.cancellation.stop("the daemon stops")

    with pytest.raises(WorkerStopped):
        pass_(hardware, "startvm")


def test_delay_lasts_as_long_as_the_script_says(hardware: Hardware) -> None:
    hardware.says(delays={"startvm": 0.2})
    started = time.monotonic()

    pass_(hardware, "startvm")

    assert time.monotonic() - started >= 0.2


def test_long_delay_is_told_of_in_percent_and_a_short_one_is_not(hardware: Hardware) -> None:
    told: list[int] = []
    hardware.says(delays={"transfervm": 1.05, "startvm": 0.9})
    for step in ("startvm", "transfervm"):
        pass_step(hardware.world, step, hardware.reservation(), hardware.cancellation, told.append)

    assert told == [25, 50, 75]
