"""Two SQL expressions that each database spells in its own way."""

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
