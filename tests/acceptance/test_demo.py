"""``vcld demo``: what it promises to show, on the embedded database and with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vcld.errors import ExitCode


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VCLD_")}
    return subprocess.run(
        [sys.executable, "-m", "vcld", "demo", "--dir", str(folder), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The states that each named request went through."""
    done = demo(tmp_path_factory.mktemp("demo") / "site", "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    requests: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(times == sorted(times) for times in ([at for at, _ in r["path"]] for r in requests))
    return {r["what"]: [state for _, state in r["path"]] for r in requests}


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("a user works and presses End", ["new", "reserved", "inuse", "deleted", "complete"]),
        ("cancelled while it is loaded", ["new", "deleted", "complete"]),
        ("the load fails", ["new", "failed"]),
        ("a cluster of two", ["new", "reserved", "inuse", "deleted", "complete"]),
        ("an image is made of it", ["new", "reserved", "inuse", "image", "complete"]),
        ("the user never connects", ["new", "reserved", "timeout", "complete"]),
        ("prepared for an image", ["imageprep", "complete"]),
        ("put into maintenance", ["tomaintenance", "complete"]),
        ("reloaded with another image", ["reload", "complete"]),
        (
            "a user stays until the end",
            ["new", "reserved", "inuse", "rebootsoft", "inuse", "timeout", "complete"],
        ),
        (
            "the revision becomes production",
            ["new", "reserved", "inuse", "makeproduction", "deleted", "complete"],
        ),
    ],
)
def test_each_request_goes_the_way_it_was_made_for(
    shown: dict[str, list[str]], what: str, path: list[str]
) -> None:
    assert shown[what] == path


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    done = demo(tmp_path)

    assert done.returncode == ExitCode.FAILED
    assert done.stderr.splitlines() == [
        f"vcld: {tmp_path} holds other things; name another folder with --dir"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
