"""Which strings are secret, so that no log line shows one, however it is spelled there."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote, quote_plus

#: What takes the place of a secret.
HIDDEN = "***"
#: Shorter strings occur by chance in ordinary text.
SHORTEST = 4

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


def register(value: str | None) -> None:
    """Hide this value from now on wherever it would be logged."""
    global _pattern  # noqa: PLW0603 - one process, one set of secrets
    if not value or len(value) < SHORTEST or value in _known:
        return
    _known.update(_spellings(value))
    # The longest first: a secret may be a part of another one.
    _pattern = re.compile("|".join(map(re.escape, sorted(_known, key=len, reverse=True))))


def redact(text: str) -> str:
    """The text without known secrets, private keys and passwords in URLs."""
    if _pattern is not None:
        text = _pattern.sub(HIDDEN, text)
    if "PRIVATE KEY-----" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{HIDDEN}@", text)
    return text


def _spellings(value: str) -> set[str]:
    """The value as it looks in Python, JSON, XML, a URL or a shell command."""
    return {
        value,
        repr(value)[1:-1],
        repr(value + "'\"")[1:-4],  # in a text with both quotes, Python escapes one
        repr(value.encode("utf-8", "replace"))[2:-1],
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        html.escape(value, quote=False),
        html.escape(value),
        quote(value, safe="", errors="replace"),
        quote_plus(value, errors="replace"),
        value.replace("'", "'\"'\"'"),
        value.replace("'", "'\\''"),
    }
