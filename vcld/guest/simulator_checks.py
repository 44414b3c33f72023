"""Checking the simulator's file: every problem is named, none is guessed away."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from vcld import errors
from vcld.errors import Blame, ConfigError, ProvisioningError, VcldError

T = TypeVar("T")

#: Signals by which a worker may end or stop itself.
SIGNALS = ("KILL", "STOP", "SEGV", "TERM", "ABRT")


def find_error(name: object) -> type[VcldError] | None:
    """The class of vcld.errors that has the name."""
    found = getattr(errors, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, VcldError) else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_range(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(map(_is_seconds, value))
        and value[0] <= value[1]
    )


#: Field of a rule or user → (is the value right?, what it must be).
_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "step": (_is_text, "a step's name or pattern"),
    "computer": (_is_text, "a computer's name or pattern"),
    "image": (_is_text, "an imagename or pattern"),
    "user": (_is_text, "a login name or pattern"),
    "request": (_is_whole, "a request's id"),
    "state": (_is_text, "a request state or pattern"),
    "probability": (lambda value: _is_seconds(value) and value <= 1, "a number from 0 to 1"),
    "times": (_is_whole, "a whole number"),
    "error": (lambda value: find_error(value) is not None, "a class of vcld.errors"),
    "blame": (
        lambda value: value in list(Blame.__members__),
        f"one of {', '.join(Blame.__members__)}",
    ),
    "message": (_is_text, "a text"),
    "hang": (lambda value: isinstance(value, bool), "true or false"),
    "signal": (lambda value: value in SIGNALS, f"one of {', '.join(SIGNALS)}"),
    "connects_after": (_is_seconds, "seconds or never"),
    "address": (_is_text, "an address"),
    "leaves_after": (_is_seconds, "seconds"),
}


class Reading:
    """One reading of the file, which collects the problems."""

    def __init__(self, path: str, data: object) -> None:
        self._path = path
        self._problems: list[str] = []
        self._data: dict[str, Any] = data if isinstance(data, dict) else {}
        self._asked: set[str] = set()
        if self._data is not data:
            self._blame("the file", "keys and values")

    def finish(self) -> None:
        """Raise ConfigError if anything was wrong, keys that nobody asked for included."""
        self._blame_unknown("", self._data, self._asked)
        if self._problems:
            raise ConfigError(
                *(f"simulator_config={self._path}: {problem}" for problem in self._problems)
            )

    def text(self, key: str, default: str) -> str:
        """A text."""
        value = self._value(key, default)
        return value if self._is(_is_text(value), key, "a text") else default

    def seed(self) -> int | None:
        """The seed of everything that is left to chance, or None."""
        value = self._value("seed", None)
        return value if self._is(value is None or _is_whole(value), "seed", "a number") else None

    def names(self, key: str) -> tuple[str, ...]:
        """A list of names."""
        value = self._value(key, [])
        right = isinstance(value, list) and all(map(_is_text, value))
        return tuple(value) if self._is(right, key, "a list of names") else ()

    def texts(self, key: str) -> dict[str, str]:
        """Texts by name."""
        return self._table(key, _is_text, "a text")

    def sizes(self, key: str) -> dict[str, int]:
        """Sizes in MiB by name."""
        return self._table(key, _is_whole, "a whole number of MiB")

    def delays(self, key: str) -> dict[str, tuple[float, float]]:
        """Seconds by step."""
        return self._ranges(key, self._value(key, {}))

    def delays_by(self, key: str) -> dict[str, dict[str, tuple[float, float]]]:
        """Seconds by step, by the name of a computer or image."""
        value = self._value(key, {})
        if not self._is(isinstance(value, dict), key, "delays by name"):
            return {}
        return {str(name): self._ranges(f"{key}: {name}", part) for name, part in value.items()}

    def entries(self, key: str, kind: type[T]) -> tuple[T, ...]:
        """A list of rules or users."""
        value = self._value(key, [])
        if not self._is(isinstance(value, list), key, "a list"):
            return ()
        made = (
            self._entry(f"{key}, entry {n}", entry, kind) for n, entry in enumerate(value, start=1)
        )
        return tuple(entry for entry in made if entry is not None)

    def _entry(self, where: str, entry: object, kind: type[T]) -> T | None:
        if not self._is(isinstance(entry, dict), where, "keys and values"):
            return None
        assert isinstance(entry, dict)
        before = len(self._problems)
        described = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
        self._blame_unknown(f"{where}: ", entry, described)
        facts = {str(name): value for name, value in entry.items()}
        if facts.get("connects_after") == "never":
            facts["connects_after"] = None
        for name in described.keys() & facts.keys():
            right, what = _EXPECTED[name]
            unset = facts[name] is None and described[name].default in {None, 0.0}
            self._is(unset or right(facts[name]), f"{where}: {name}", what)
        needed = [name for name, item in described.items() if item.default is MISSING]
        for name in needed:
            self._is(name in facts, f"{where}: {name}", _EXPECTED[name][1])
        if "error" in described:
            self._check_effect(where, facts)
        return None if len(self._problems) > before else kind(**facts)

    def _check_effect(self, where: str, facts: Mapping[str, Any]) -> None:
        effects = [name for name in ("error", "hang", "signal") if facts.get(name)]
        if len(effects) != 1:
            self._problems.append(f"{where}: needs one of error, hang and signal, to do something")
        kind = find_error(facts.get("error"))
        if facts.get("blame") and (kind is None or not issubclass(kind, ProvisioningError)):
            self._problems.append(f"{where}: only a ProvisioningError has blame")

    def _ranges(self, where: str, value: object) -> dict[str, tuple[float, float]]:
        if not self._is(isinstance(value, dict), where, "seconds by step"):
            return {}
        assert isinstance(value, dict)
        ranges = {}
        for step, seconds in value.items():
            right = _is_seconds(seconds) or _is_range(seconds)
            if self._is(right, f"{where}: {step}", "seconds, or [shortest, longest]"):
                low, high = seconds if isinstance(seconds, list) else (seconds, seconds)
                ranges[str(step)] = (float(low), float(high))
        return ranges

    def _table(self, key: str, right: Callable[[object], bool], what: str) -> dict[str, Any]:
        value = self._value(key, {})
        if not self._is(isinstance(value, dict), key, f"{what} by name"):
            return {}
        return {
            str(name): part
            for name, part in value.items()
            if self._is(right(part), f"{key}: {name}", what)
        }

    def _value(self, key: str, default: object) -> Any:
        self._asked.add(key)
        value = self._data.get(key)
        return default if value is None else value

    def _is(self, right: bool, where: str, what: str) -> bool:
        if not right:
            self._blame(where, what)
        return right

    def _blame(self, where: str, what: str) -> None:
        self._problems.append(f"{where} must be {what}; see docs/simulator.md")

    def _blame_unknown(self, where: str, data: Iterable[object], known: Iterable[str]) -> None:
        known = sorted(known)
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                self._problems.append(f"{where}unknown key {key!r}; {hint}")
