"""The table of states against the schema's rows, the handlers' code and the documentation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from vcld import schedule
from vcld.cli import states as command
from vcld.states.table import STATES, find_handler

ROOT = Path(__file__).parents[2]
HANDLERS = sorted({row.handler for row in STATES.values() if row.handler})


def outcomes_in_code(handler: str) -> set[str]:
    """Request states that a handler's module names in its outcomes."""
    path = ROOT / "vcld" / "states" / f"{handler}.py"
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Outcome":
            for keyword in node.keywords:
                if keyword.arg == "request":
                    found |= {
                        part.value
                        for part in ast.walk(keyword.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    }
    return found


@pytest.mark.parametrize("handler", HANDLERS)
def test_handler_decides_only_what_the_table_says(handler: str) -> None:
    rows = [row for row in STATES.values() if row.handler == handler]
    declared = {state for row in rows for state in (*row.success, *row.failure, *row.other)}

    assert outcomes_in_code(handler) <= declared


def test_every_state_of_the_table_is_one_of_the_schema_and_of_the_rules() -> None:
    seed = yaml.safe_load((ROOT / "vcld/schema/seed.yaml").read_text(encoding="utf-8"))
    names = {row["name"] for row in seed["state"]}

    assert set(STATES) <= names
    assert set(STATES) == schedule.KNOWN_STATES


def test_every_outcome_is_a_state_of_the_table() -> None:
    for name, row in STATES.items():
        for state in (*row.success, *row.failure, *row.other):
            assert state in STATES, f"{name} leads to {state}"


def test_states_with_a_handler_have_one() -> None:
    for name, row in STATES.items():
        assert (find_handler(name) is not None) is (row.handler is not None)


def test_documentation_shows_the_table_as_it_is() -> None:
    assert (ROOT / "docs/states.md").read_text(encoding="utf-8") == command.markdown()
