"""The VCL tables that vcld does not touch, so that a new database is complete.

Their columns come from ``untyped.json``: name, type as MySQL spells it, ``null``,
``default`` and ``extra``; keys, unique keys and references [column, target, on update, on
delete]. Importing this module puts them into the metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from vcld.schema import columns as c

_INTEGERS: Mapping[str, Callable[..., TypeEngine[int]]] = {
    "tinyint": c.tinyint,
    "smallint": c.smallint,
    "mediumint": c.mediumint,
    "int": c.integer,
}
_OTHERS: Mapping[str, Callable[[], TypeEngine[Any]]] = {
    "text": c.text,
    "mediumtext": c.mediumtext,
    "longtext": c.longtext,
    "blob": c.blob,
    "date": c.date_,
    "datetime": c.datetime_,
    "timestamp": c.timestamp,
}


class written_at(sa.ClauseElement):  # noqa: N801 - an SQL default
    """The moment at which a row is written, and changed too if asked for."""

    inherit_cache = False

    def __init__(self, *, on_update: bool) -> None:
        self.on_update = on_update


@compiles(written_at)
def _(element: written_at, _compiler: SQLCompiler, **_: Any) -> str:
    # Without parentheses, else MySQL keeps it as an expression.
    return f"CURRENT_TIMESTAMP{' ON UPDATE CURRENT_TIMESTAMP' * element.on_update}"


@compiles(written_at, "sqlite")
def _(_element: written_at, _compiler: SQLCompiler, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"


def column_type(text: str) -> TypeEngine[Any]:
    """The type for MySQL's spelling, such as ``smallint(5) unsigned``."""
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?( unsigned)?", text)
    if match is None:
        raise ValueError(f"column type {text!r} is not understood")
    name, argument, unsigned = match.groups()
    if name in _INTEGERS:
        return _INTEGERS[name](int(argument), signed=unsigned is None)
    if name == "varchar":
        return c.varchar(int(argument))
    if name == "enum":
        return c.enum(*re.findall(r"'(.*?)'", argument))
    return _OTHERS[name]()


def _table(name: str, facts: Mapping[str, Any]) -> sa.Table:
    references = {row[0]: row for row in facts.get("references", [])}
    primary = facts.get("unique", {}).get("PRIMARY", [])
    items: list[Any] = []
    for column in facts["columns"]:
        foreign = []
        if column["name"] in references:
            _, target, on_update, on_delete = references[column["name"]]
            foreign.append(
                c.references(target, on_update=_rule(on_update), on_delete=_rule(on_delete))
            )
        items.append(_column(column, foreign, is_primary=column["name"] in primary))
    items += [c.key(key, *names) for key, names in facts.get("keys", {}).items()]
    items += [
        c.unique_key(key, *names)
        for key, names in facts.get("unique", {}).items()
        if key != "PRIMARY"
    ]
    return sa.Table(name, c.Base.metadata, *items)


def _column(facts: Mapping[str, Any], foreign: list[Any], *, is_primary: bool) -> Any:
    default = facts.get("default")
    server_default: Any = None if default is None else sa.text(default)
    if default == "current_timestamp()":
        server_default = written_at(on_update="on update" in facts.get("extra", ""))
    return sa.Column(
        facts["name"],
        column_type(facts["type"]),
        *foreign,
        primary_key=is_primary,
        autoincrement=facts.get("extra") == "auto_increment",
        nullable=facts.get("null", False),
        server_default=server_default,
    )


def _rule(rule: str) -> str | None:
    return None if rule == "RESTRICT" else rule


def load() -> None:
    """Put the tables into the metadata; once is enough."""
    text = files("vcld.schema").joinpath("untyped.json").read_text(encoding="utf-8")
    for name, facts in json.loads(text).items():
        if name not in c.Base.metadata.tables:
            _table(name, facts)


load()
