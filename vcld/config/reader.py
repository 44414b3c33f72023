"""Reading ``vcld.conf``: every problem is found and told at once, with file and line."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcld.config import address, redaction
from vcld.config.keys import ODD_NO, PLAIN_YES, Key, Kind, is_true
from vcld.config.secret import Secret
from vcld.config.settings import Settings, keys
from vcld.errors import ConfigError

DEFAULT_PATH = Path("/etc/vcl/vcld.conf")
_COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration.

    The file is ``path``, else ``VCLD_CONFIG``, else /etc/vcl/vcld.conf. ``VCLD_DATABASE_URL``
    takes the place of the database keys.

    Raises:
        ConfigError: with every problem as "file:line: what is wrong and what to do".
    """
    environ = os.environ if environ is None else environ
    # The daemon leaves the folder it was started in, and reads the file again later.
    path = (path or Path(environ.get("VCLD_CONFIG") or DEFAULT_PATH)).absolute()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except OSError as err:
        raise ConfigError(
            f"{path}: cannot be read ({err.strerror}); name the file with --config or VCLD_CONFIG"
        ) from err
    url = environ.get("VCLD_DATABASE_URL")
    reading = _Reading(path)
    reading.read(content.removeprefix(b"\xef\xbb\xbf"))
    reading.check_mode(mode)
    reading.check_needed("fqdn", *([] if url else ["lockerwrtuser"]))
    if url:
        reading.use_url(url)
    if reading.problems:
        raise ConfigError(*reading.problems)
    return Settings(**reading.values, path=path, warnings=tuple(reading.warnings))


def parse_line(line: str) -> tuple[str, str | None] | None:
    """Split a line into key and value; None for an empty line or a comment.

    A ``#`` starts a comment at the beginning of a line or after white space only, and a
    value may hold ``=``: a password may contain both. The value is None without a ``=``.
    """
    text = _COMMENT.sub("", line).strip()
    if not text:
        return None
    name, separator, value = text.partition("=")
    return name.strip().lower(), value.strip() if separator else None


class _Reading:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        #: Where each key was first given.
        self._lines: dict[str, int] = {}
        self._refused: set[str] = set()
        self._has_secret = False

    def read(self, content: bytes) -> None:
        known = keys()
        for number, raw in enumerate(content.split(b"\n"), start=1):
            pair = parse_line(raw.decode("utf-8", "surrogateescape"))
            if pair is None:
                continue
            name, value = pair
            where = f"{self.path}:{number}"
            if value is None:
                # The text may be a password: it is not repeated unless it is a key.
                named = f"key {name} has no value" if name in known else "this is no key=value"
                self.problems.append(f"{where}: {named}; write KEY=VALUE, or # before a comment")
            elif name not in known:
                self.warnings.append(f"{where}: unknown key {name} is ignored{_near(name)}")
            elif name in self._lines:
                self.warnings.append(
                    f"{where}: key {name} is ignored: it is set in line {self._lines[name]}"
                )
            else:
                self._lines[name] = number
                self._take(where, known[name], value)

    def _take(self, where: str, key: Key, value: str) -> None:
        if not value:
            return  # an empty value means the default
        if any("\udc80" <= character <= "\udcff" for character in value):
            self._refuse(where, key, "not UTF-8; save the file as UTF-8")
        elif key.kind is Kind.SECRET:
            self._has_secret = True
            self.values[key.field] = Secret(value)
        else:
            self._convert(where, key, value)

    def _convert(self, where: str, key: Key, value: str) -> None:
        try:
            self.values[key.field] = key.convert(value)
        except ValueError:
            default = f" (default {key.default_text})" if key.default_text else ""
            self._refuse(
                where,
                key,
                f"{redaction.redact(repr(value))} is not {key.expected()}; correct it, or remove"
                f" the line{default}",
            )
        if key.kind is Kind.YES_NO:
            self._doubt(where, key, value)

    def _doubt(self, where: str, key: Key, value: str) -> None:
        """Warn where people may mean another thing than what is understood."""
        if value.lower() in ODD_NO:
            means = "no here, but meant yes to the Perl daemon"
        elif is_true(value) and value.lower() not in PLAIN_YES:
            means = "yes here"
        else:
            return
        told = redaction.redact(value)
        self.warnings.append(f"{where}: key {key.name}: {told} means {means}; write yes or no")

    def _refuse(self, where: str, key: Key, why: str) -> None:
        self._refused.add(key.name)
        self.problems.append(f"{where}: key {key.name}: {why}")

    def check_mode(self, mode: int) -> None:
        """A file with a password is for its owner only."""
        if self._has_secret and mode & 0o077:
            self.problems.append(
                f"{self.path}: holds a password but others may use it (mode {mode:04o});"
                f" run: chmod 600 {self.path}"
            )

    def check_needed(self, *names: str) -> None:
        for name in names:
            if name in self.values or name in self._refused:
                continue
            line = self._lines.get(name)
            where = f"{self.path}:{line}" if line else str(self.path)
            self.problems.append(
                f"{where}: key {name} is missing: {keys()[name].text}; add {name}=VALUE"
            )

    def use_url(self, text: str) -> None:
        try:
            address.from_url(text)
        except ValueError as err:
            self.problems.append(
                f"VCLD_DATABASE_URL: {err}; write it like"
                " mysql+pymysql://user:password@host/vcl, or unset it"
            )
            return
        self.values["url"] = Secret(text)
        redaction.register(address.find_password(text))


def _near(name: str) -> str:
    close = difflib.get_close_matches(name, keys(), n=1)
    return f"; did you mean {close[0]}?" if close else ""
