"""How one key of ``vcld.conf`` is described, read and checked."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, field
from typing import Any

from vcld.config.address import split_server


class Kind(enum.Enum):
    """What the value of a key may be."""

    TEXT = "a text"
    #: Names of processes and files: no slash, bar or space.
    NAME = "a name of letters, digits and . _ -"
    #: Where accounting tables may be: a schema takes part in the transactions of the VCL
    #: database, another database is kept up to date.
    ACCOUNTS = (
        "the name of a schema on the server of the VCL database, the absolute path of an SQLite"
        " file, or env:NAME for the database URL in that variable"
    )
    HOST = "a host name such as node1.example.org"
    SERVER = "a host, host:port or the absolute path of a socket"
    #: The daemon leaves the folder it was started in.
    PATH = "an absolute path"
    WEB_ADDRESS = "an address that begins with http:// or https://"
    CHOICE = "one of its choices"
    YES_NO = "yes or no"
    WHOLE = "a whole number"
    NUMBER = "a number"
    SECRET = "a password"  # noqa: S105 - not one itself


_PATTERNS = {
    Kind.NAME: re.compile(r"[A-Za-z0-9._-]+"),
    Kind.ACCOUNTS: re.compile(r"[A-Za-z0-9_$-]{1,64}|/.+|env:[A-Za-z_][A-Za-z0-9_]*"),
    Kind.HOST: re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+"),
    Kind.PATH: re.compile(r"/.*"),
    Kind.WEB_ADDRESS: re.compile(r"https?://\S+"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the file."""

    name: str = ""
    #: The field of ``Settings``.
    field: str = ""
    kind: Kind = Kind.TEXT
    default: Any = ""
    #: What it means, without a full stop.
    text: str
    unit: str = ""
    #: What the value 0 means, where it may be 0.
    zero: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def default_text(self) -> str:
        """The default as it is written in the file; empty for none."""
        if self.kind is Kind.YES_NO:
            return "yes" if self.default else "no"
        if self.kind is Kind.NUMBER:
            return f"{self.default:g}"
        return "" if self.default is None else str(self.default)

    def describe(self) -> str:
        """Meaning, unit, limits and what 0 means, in sentences for the file."""
        facts = [fact for fact in (self.unit, self._limits()) if fact]
        if self.zero:
            facts.append(f"0: {self.zero}")
        sentence = "; ".join(facts)
        return f"{self.text}. {sentence[:1].upper()}{sentence[1:]}." if facts else f"{self.text}."

    def _limits(self) -> str:
        if self.maximum is not None:
            return f"{self.minimum or 0:g} to {self.maximum:g}"
        return f"at least {self.minimum:g}" if self.minimum else ""

    def expected(self) -> str:
        """What a right value looks like, in a clause."""
        if self.kind is Kind.CHOICE:
            return f"one of {', '.join(self.choices)}"
        if self.kind in {Kind.WHOLE, Kind.NUMBER}:
            unit = f" of {self.unit}" if self.unit else ""
            limits = self._limits() or ("0 or more" if self.minimum is not None else "")
            return f"{self.kind.value}{unit}{', ' if limits else ''}{limits}"
        return str(self.kind.value)

    def convert(self, value: str) -> Any:
        """Read the value as it is written in the file; not for secrets.

        Raises:
            ValueError: it is not what ``expected`` says.
        """
        if self.kind is Kind.SERVER:
            split_server(value)
        elif self.kind is Kind.YES_NO:
            return is_true(value)
        elif self.kind is Kind.CHOICE:
            if value.lower() not in self.choices:
                raise ValueError(value)
            return value.lower()
        elif self.kind in {Kind.WHOLE, Kind.NUMBER}:
            return self._number(value)
        elif self.kind in _PATTERNS and not _PATTERNS[self.kind].fullmatch(value):
            raise ValueError(value)
        return value

    def _number(self, value: str) -> float:
        number = int(value) if self.kind is Kind.WHOLE else float(value)
        too_small = self.minimum is not None and number < self.minimum
        too_big = self.maximum is not None and number > self.maximum
        if too_small or too_big or not math.isfinite(number):
            raise ValueError(value)
        return number


#: Values that say no to people, but said yes to the Perl daemon.
ODD_NO = frozenset({"0", "false", "off"})
#: Values that say yes to people. The rest says yes too, but may be a slip.
PLAIN_YES = frozenset({"yes", "y", "1", "true", "on"})


def is_true(value: str) -> bool:
    """As in VCL: anything with "no" in it is false; and so is what plainly says no."""
    return "no" not in value.lower() and value.lower() not in ODD_NO


def key(kind: Kind, default: Any, text: str, *, name: str = "", **facts: Any) -> Any:
    """A field of ``Settings``; ``name`` is its key where that differs."""
    described = Key(name=name, kind=kind, default=default, text=text, **facts)
    return field(default=default, metadata={"key": described})


def seconds(name: str, default: float, text: str, minimum: float = 0, *, zero: str = "") -> Any:
    """A duration; ``zero`` says what 0 means."""
    return key(Kind.NUMBER, default, text, name=name, unit="seconds", minimum=minimum, zero=zero)
