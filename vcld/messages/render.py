"""Putting facts into the text of a message. Pure: no database, no mail, no log."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vcld.messages.identifiers import canonical, identifiers
from vcld.snapshot import Reservation

_PLACEHOLDER = re.compile(r"\[([A-Za-z_]\w*)\]", re.ASCII)
#: Conditions are VCL's for later; they stay in the text as they are (specification §11.3).
_CONDITIONS = frozenset({"if", "endif"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A message with placeholders."""

    #: Name of the variable that holds it.
    name: str
    subject: str
    message: str
    #: For a line on the user's screen; None where the site wrote none.
    short_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A message as a person reads it."""

    subject: str
    message: str
    short_message: str
    #: True when the message is a web page: decided by the template, not by what was put in.
    html: bool = False
    #: Identifiers that have no value and were left in the text.
    unknown: tuple[str, ...] = ()


def find_identifiers(text: str) -> list[str]:
    """The identifiers of a text, as written, in the order of their first occurrence."""
    names = dict.fromkeys(match[1] for match in _PLACEHOLDER.finditer(text))
    return [name for name in names if name.lower() not in _CONDITIONS]


def render(
    template: Template, reservation: Reservation, extra: Mapping[str, str] | None = None
) -> Rendered:
    """Replace every identifier that has a value.

    A value is never looked at again, so brackets in somebody's name stay what they are. In
    a web page the values are escaped.

    Args:
        template: The text.
        reservation: Where the values come from.
        extra: Further values; they win over those of the reservation.
    """
    facts = identifiers(reservation)
    facts |= {canonical(name): value for name, value in (extra or {}).items()}
    unknown: dict[str, None] = {}

    def fill(text: str) -> str:
        escaped = _is_html(text)

        def value(match: re.Match[str]) -> str:
            found = facts.get(canonical(match[1]))
            if found is None:
                if match[1].lower() not in _CONDITIONS:
                    unknown[match[1]] = None
                return match[0]
            return html.escape(found) if escaped else found

        return _PLACEHOLDER.sub(value, text).strip("\r\n")

    message = fill(template.message)
    short = template.short_message
    return Rendered(
        subject=fill(template.subject),
        message=message,
        short_message=fill(short) if short else message,
        html=_is_html(template.message),
        unknown=tuple(unknown),
    )


def _is_html(text: str) -> bool:
    return "<html" in text.lower()
