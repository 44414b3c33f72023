"""Which strings are secret, so that no log line shows one."""

from __future__ import annotations

_known: set[str] = set()
#: Shorter strings occur by chance in ordinary text.
SHORTEST = 4


def register(value: str | None) -> None:
    """Hide this value from now on wherever it would be logged."""
    if value and len(value) >= SHORTEST:
        _known.add(value)


def redact(text: str) -> str:
    """The text with every known secret replaced."""
    for value in _known:
        if value in text:
            text = text.replace(value, "***")
    return text
