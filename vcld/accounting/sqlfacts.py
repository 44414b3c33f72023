"""SQL expressions that each database spells in its own way."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class epoch(FunctionElement[int]):  # noqa: N801 - SQL functions are lower case
    """Seconds since 1970 by the database's clock, or of the site's time that is given."""

    type = sa.Integer()
    inherit_cache = True


class latest(FunctionElement[int]):  # noqa: N801
    """The largest of some numbers."""

    type = sa.Integer()
    inherit_cache = True


class earliest(FunctionElement[int]):  # noqa: N801
    """The smallest of some numbers."""

    type = sa.Integer()
    inherit_cache = True


class element(FunctionElement[str]):  # noqa: N801
    """The text of the first XML element of a name: ``element(document, "NAME")``; or empty."""

    type = sa.Text()
    inherit_cache = True

    def __init__(self, document: sa.ColumnElement[str], name: str) -> None:
        begin, end = sa.literal(f"<{name}>"), sa.literal(f"</{name}>")
        super().__init__(document, begin, end)


@compiles(epoch, "mysql", "mariadb")
def _(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"UNIX_TIMESTAMP({compiler.process(element.clauses, **kw)})"


@compiles(epoch, "sqlite")
def _(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    given = compiler.process(element.clauses, **kw) or "'now'"
    return f"CAST(strftime('%s', {given}) AS INTEGER)"


@compiles(latest, "mysql", "mariadb")
def _(element: latest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"GREATEST({compiler.process(element.clauses, **kw)})"


@compiles(latest, "sqlite")
def _(element: latest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"max({compiler.process(element.clauses, **kw)})"


@compiles(earliest, "mysql", "mariadb")
def _(element: earliest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"LEAST({compiler.process(element.clauses, **kw)})"


@compiles(earliest, "sqlite")
def _(element: earliest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"min({compiler.process(element.clauses, **kw)})"


@compiles(element, "mysql", "mariadb")
def _(found: element, compiler: SQLCompiler, **kw: Any) -> str:
    text, begin, end = (compiler.process(part, **kw) for part in found.clauses)
    rest = f"SUBSTRING_INDEX({text}, {begin}, -1)"
    return f"CASE WHEN INSTR({text}, {begin}) THEN SUBSTRING_INDEX({rest}, {end}, 1) ELSE '' END"


@compiles(element, "sqlite")
def _(found: element, compiler: SQLCompiler, **kw: Any) -> str:
    text, begin, end = (compiler.process(part, **kw) for part in found.clauses)
    start = f"(instr({text}, {begin}) + length({begin}))"
    length = f"(instr({text}, {end}) - {start})"
    return f"CASE WHEN instr({text}, {begin}) THEN substr({text}, {start}, {length}) ELSE '' END"
