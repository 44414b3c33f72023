"""The file that says what happens to the simulated hardware."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.simulated import Hardware
from vcld.errors import ConfigError
from vcld.guest.simulator_script import load_script

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulator.md"


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(tmp_path)


def delay(hardware: Hardware, step: str, **facts: Any) -> float:
    return load_script(hardware.path).delay_seconds(step, hardware.reservation(**facts))


def test_without_a_file_nothing_takes_time_and_nothing_fails(hardware: Hardware) -> None:
    script = load_script("")

    assert script.rules == ()
    assert script.delay_seconds("transfervm", hardware.reservation()) == 0.0
    assert script.folder.name == f"vcld-simulator-{os.getuid()}"


def test_state_lies_next_to_the_file_unless_the_file_says_where(tmp_path: Path) -> None:
    file = tmp_path / "hardware.yaml"

    file.write_text("")
    assert load_script(str(file)).folder == tmp_path / "simulator"
    file.write_text("state_dir: elsewhere")
    assert load_script(str(file)).folder == tmp_path / "elsewhere"
    file.write_text("state_dir: /var/tmp/world")
    assert load_script(str(file)).folder == Path("/var/tmp/world")


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    said = {
        "delays": {"transfervm": [1, 2]},
        "rules": [{"step": "startvm", "error": "LoadTimeoutError"}],
        "users": [{"computer": "vm1", "connects_after": "never"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(said))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(said))

    assert load_script(str(tmp_path / "a.json")) == load_script(str(tmp_path / "a.yaml"))


def test_delay_of_the_computer_goes_before_the_image_and_both_before_all(
    hardware: Hardware,
) -> None:
    hardware.says(
        delays={"transfervm": 1, "start*": 2, "*": 3},
        delays_by_image={"simulator-first-*": {"transfervm": 4}},
        delays_by_computer={"vm1": {"transfervm": 5}},
    )

    assert delay(hardware, "transfervm") == 5
    assert delay(hardware, "transfervm", name="vm2") == 4
    assert delay(hardware, "startvm") == 2
    assert delay(hardware, "machinebooted") == 3


def test_range_of_a_delay_is_drawn_from_and_repeatable_with_a_seed(hardware: Hardware) -> None:
    hardware.says(seed=7, delays={"transfervm": [2, 5]})

    drawn = [delay(hardware, "transfervm", id_=n) for n in range(20)]

    assert all(2 <= seconds < 5 for seconds in drawn)
    assert len(set(drawn)) > 1
    assert drawn == [delay(hardware, "transfervm", id_=n) for n in range(20)]


def test_file_changed_twice_within_a_moment_is_read_as_it_is(hardware: Hardware) -> None:
    for seconds in range(1, 6):
        hardware.says(delays={"transfervm": seconds})
        assert delay(hardware, "transfervm") == seconds


def test_unchanged_yaml_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hardware.yaml"
    file.write_text("delays: {startvm: 1}")
    first = load_script(str(file))
    monkeypatch.setattr(yaml, "load", lambda *_, **__: pytest.fail("parsed again"))

    assert load_script(str(file)) is first


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"ruels": []}, "did you mean rules?"),
        ({"rules": [{"step": "a", "eror": "RemoteError"}]}, "rules, entry 1: unknown key 'eror'"),
        ({"rules": [{"error": "RemoteError"}]}, "entry 1: step must be"),
        ({"rules": [{"step": "a"}]}, "needs one of error, hang and signal"),
        ({"rules": [{"step": "a", "hang": True, "signal": "KILL"}]}, "needs one of"),
        ({"rules": [{"step": "a", "error": "NoSuchError"}]}, "a class of vcld.errors"),
        ({"rules": [{"step": "a", "error": "WorkerStopped"}]}, "a class of vcld.errors"),
        ({"rules": [{"step": "a", "signal": "HUP"}]}, "one of KILL, STOP, SEGV"),
        ({"rules": [{"step": "a", "error": "RemoteError", "blame": "you"}]}, "one of COMPUTER"),
        (
            {"rules": [{"step": "a", "error": "StoreError", "blame": "IMAGE"}]},
            "only a ProvisioningError has blame",
        ),
        ({"rules": [{"step": "a", "hang": True, "probability": 2}]}, "a number from 0 to 1"),
        ({"rules": [{"step": "a", "hang": True, "times": -1}]}, "a whole number"),
        ({"rules": {"step": "a"}}, "rules must be a list"),
        ({"users": [{"connects_after": "soon"}]}, "seconds or never"),
        ({"delays": {"startvm": -1}}, "delays: startvm must be seconds"),
        ({"delays": {"startvm": [3, 1]}}, "shortest, longest"),
        ({"delays_by_computer": {"vm1": 3}}, "seconds by step"),
        ({"missing_images": "one"}, "a list of names"),
        ({"image_sizes_mib": {"one": "big"}}, "a whole number of MiB"),
        (["rules"], "the file must be keys and values"),
    ],
)
def test_what_means_nothing_is_refused_with_place_and_remedy(
    tmp_path: Path, said: Any, complaint: str
) -> None:
    file = tmp_path / "hardware.json"
    file.write_text(json.dumps(said))

    with pytest.raises(ConfigError) as caught:
        load_script(str(file))

    assert complaint in str(caught.value)
    assert str(file) in str(caught.value)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "hardware.json"
    file.write_text(json.dumps({"delays": {"a": -1}, "seed": "x", "typo": 1}))

    with pytest.raises(ConfigError) as caught:
        load_script(str(file))

    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("content", ["{", "a: [", None])
def test_unreadable_file_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "hardware.yaml"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigError, match=f"simulator_config={file}: cannot be read"):
        load_script(str(file))


def test_examples_of_the_documentation_are_right(tmp_path: Path) -> None:
    examples = DOCUMENT.read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert examples
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example.partition("```")[0])

        load_script(str(file))
