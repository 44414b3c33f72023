"""The other database that holds a copy of the accounting: a file, or a server of its own."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from vcld.accounting.copying import Copied, copy
from vcld.accounting.install import get_installed
from vcld.config import address, redaction
from vcld.errors import ConfigError, StoreError, UsageError
from vcld.schema.engine import Database, make_engine

#: Limit for one statement there: a million rows take their time.
LIMIT_SECONDS = 3600.0


def bring_up_to_date(source: Database, schema: str, place: str) -> Copied:
    """Make the copy in ``place`` hold what the accounting of ``schema`` holds.

    Raises:
        ConfigError: the place cannot be used; the message names it.
        UsageError: it is the one that is to be copied.
        SchemaError: there is nothing to copy, or the place has other tables of these names.
        StoreError: one of the two is away.
    """
    tables = source.run(lambda c: get_installed(c, schema))
    target = open_place(place, source)
    try:
        return source.run(lambda c: copy(c, tables, target))
    finally:
        target.engine.dispose()


def open_place(place: str, source: Database) -> Database:
    """Open the database of the copy: an SQLite file, or ``env:`` and a variable with a URL.

    Raises:
        ConfigError: it cannot be used; the message names it.
        UsageError: it is the one that is to be copied.
    """
    url = _find_url(place)
    if _is_same_file(url, source.engine.url):
        raise UsageError(f"{place} holds the accounting itself; name another file for the copy")
    database = Database(make_engine(url, statement_timeout_seconds=LIMIT_SECONDS))
    try:
        database.run(lambda connection: sa.inspect(connection).get_table_names())
    except StoreError as err:
        raise ConfigError(f"the copy in {place} cannot be opened: {err}") from err
    return database


def _is_same_file(one: URL, other: URL) -> bool:
    """True for one embedded database: reading and writing it would wait for each other."""
    if {one.get_backend_name(), other.get_backend_name()} != {"sqlite"}:
        return False
    return Path(one.database or "").resolve() == Path(other.database or "").resolve()


def _find_url(place: str) -> URL:
    """A URL holds a password, which must stand neither in a command line nor in ``vcld.conf``."""
    scheme, _, name = place.partition(":")
    if scheme != "env":
        return URL.create("sqlite", database=str(Path(place).absolute()))
    text = os.environ.get(name, "")
    if not text:
        raise ConfigError(f"variable {name} is not set: it is to hold the URL of a database")
    try:
        url = address.from_url(text)
    except ValueError as err:
        raise ConfigError(f"variable {name} holds no database URL: {err}") from err
    redaction.register(address.find_password(text))
    return url
