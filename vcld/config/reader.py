"""Reading ``vcld.conf``: every problem is found and told at once, with file and line."""

from __future__ import annotations

import difflib
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from vcld.config.secret import Secret
from vcld.config.settings import Key, Settings, keys
from vcld.errors import ConfigError

DEFAULT_PATH = Path("/etc/vcl/vcld.conf")
_CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("auto", "console", "json", "vcld"),
}


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration.

    The file is ``path``, else ``VCLD_CONFIG``, else /etc/vcl/vcld.conf. ``VCLD_DATABASE_URL``
    takes the place of the database keys.

    Raises:
        ConfigError: with every problem as "file:line: what is wrong and what to do".
    """
    environ = os.environ if environ is None else environ
    path = path or Path(environ.get("VCLD_CONFIG") or DEFAULT_PATH)
    url = environ.get("VCLD_DATABASE_URL")
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as err:
        raise ConfigError(
            f"{path}: cannot be read ({err.strerror}); name the file with --config or VCLD_CONFIG"
        ) from err
    reading = _Reading(path)
    reading.read(text)
    if reading.has_password:
        reading.check_mode()
    reading.check_needed(has_url=bool(url))
    if url:
        reading.use_url(url)
    if reading.problems:
        raise ConfigError(*reading.problems)
    return Settings(**reading.values, path=path, warnings=tuple(reading.warnings))


def parse_line(line: str) -> tuple[str, str] | None:
    """Split a line into key and value; None for an empty line or a comment.

    A ``#`` starts a comment at the beginning of a line or after white space, so that a
    password may contain one.
    """
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    name, separator, value = text.partition("=")
    if not separator:
        return name.strip().lower(), ""
    for position, character in enumerate(value):
        if character == "#" and (position == 0 or value[position - 1].isspace()):
            value = value[:position]
            break
    return name.strip().lower(), value.strip()


class _Reading:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.has_password = False

    def read(self, text: str) -> None:
        known = keys()
        for number, line in enumerate(text.splitlines(), start=1):
            pair = parse_line(line)
            if pair is None:
                continue
            where = f"{self.path}:{number}"
            name, value = pair
            if "=" not in line:
                self.problems.append(f"{where}: {name!r} has no value; write {name}=VALUE")
            elif name not in known:
                self.warnings.append(f"{where}: unknown key {name!r} is ignored{_near(name)}")
            else:
                self._take(where, known[name], value)

    def _take(self, where: str, key: Key, value: str) -> None:
        if key.type.startswith("Secret"):
            if value:
                self.has_password = True
                self.values[key.field] = Secret(value)
            return
        if not value and key.type != "str":
            return  # an empty value means the default
        try:
            self.values[key.field] = _convert(key, value)
        except ValueError as err:
            self.problems.append(f"{where}: {key.name}={value}: {err}")

    def check_mode(self) -> None:
        """A file with a password is for its owner only."""
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o077:
            self.problems.append(
                f"{self.path}: holds a password but others may read it (mode {mode:04o});"
                f" run: chmod 600 {self.path}"
            )

    def check_needed(self, *, has_url: bool) -> None:
        needed = ["fqdn"] if has_url else ["fqdn", "lockerwrtuser"]
        for name in needed:
            if not self.values.get(name):
                self.problems.append(f"{self.path}: key {name} is missing; add {name}=VALUE")
        server = str(self.values.get("server", ""))
        if server.count(":") == 1 and not server.rpartition(":")[2].isdecimal():
            self.problems.append(f"{self.path}: server={server}: the port must be a number")

    def use_url(self, url: str) -> None:
        try:
            make_url(url)
        except ArgumentError:
            self.problems.append(
                "VCLD_DATABASE_URL is not a database URL such as"
                " mysql+pymysql://user:password@host/vcl"
            )
            return
        self.values["url"] = Secret(url)
        password = make_url(url).password
        if password:
            Secret(str(password))  # registers it for redaction


def _near(name: str) -> str:
    close = difflib.get_close_matches(name, keys(), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _convert(key: Key, value: str) -> Any:
    if key.type == "bool":
        # As in VCL: empty or anything with "no" in it is false.
        return "no" not in value.lower() and value.lower() not in {"0", "false", "off"}
    if key.type == "str":
        allowed = _CHOICES.get(key.name)
        if allowed and value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower() if allowed else value
    kind = int if key.type == "int" else float
    try:
        number = kind(value)
    except ValueError:
        raise ValueError("must be a whole number" if kind is int else "must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    if key.minimum is not None and number < key.minimum:
        raise ValueError(f"must be at least {key.minimum:g}")
    return number
