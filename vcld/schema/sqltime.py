"""The database's clock in SQL, for MySQL, MariaDB and SQLite alike.

Two clocks, because VCL's own columns hold local times of the session's zone while our
tables hold UTC, which no daylight-saving change moves. Everything is to the second.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from vcld.schema.columns import SiteTime


class site_now(FunctionElement[Any]):  # noqa: N801 - SQL functions are lower case
    """Now plus some seconds, in the session's time zone: the clock of VCL's columns."""

    type = SiteTime()
    inherit_cache = True


class utc_now(FunctionElement[Any]):  # noqa: N801
    """Now plus some seconds, in UTC: the clock of our own tables."""

    type = SiteTime()
    inherit_cache = True


class seconds_between(FunctionElement[int]):  # noqa: N801
    """Whole seconds from the first datetime to the second; negative when it is earlier."""

    type = sa.Integer()
    inherit_cache = True


class site_age(FunctionElement[int]):  # noqa: N801
    """Whole seconds since a datetime of VCL's, which is in local time.

    At a change to or from daylight saving time two local times may be an hour further apart
    than the moments are, or nearer. The smaller of two reckonings is taken: nothing is ever
    thought older than it is, and for the hour after the change in autumn some things younger.
    """

    type = sa.Integer()
    inherit_cache = True


def after_site_now(seconds: float | ColumnElement[Any]) -> ColumnElement[Any]:
    """The site's now plus ``seconds`` (negative: before)."""
    return site_now(sa.literal(int(seconds)) if isinstance(seconds, float | int) else seconds)


def after_utc_now(seconds: float | ColumnElement[Any]) -> ColumnElement[Any]:
    """UTC now plus ``seconds`` (negative: before)."""
    return utc_now(sa.literal(int(seconds)) if isinstance(seconds, float | int) else seconds)


def _mysql(now: str, element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> str:
    if not len(element.clauses):
        return now
    return f"{now} + INTERVAL {compiler.process(element.clauses, **kw)} SECOND"


@compiles(site_now, "mysql", "mariadb")
def _(element: site_now, compiler: SQLCompiler, **kw: Any) -> str:
    return _mysql("NOW()", element, compiler, **kw)


@compiles(utc_now, "mysql", "mariadb")
def _(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    return _mysql("UTC_TIMESTAMP()", element, compiler, **kw)


@compiles(site_now, "sqlite")
@compiles(utc_now, "sqlite")
def _(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> str:
    if not len(element.clauses):
        return "datetime('now')"
    return f"datetime('now', ({compiler.process(element.clauses, **kw)}) || ' seconds')"


@compiles(seconds_between, "mysql", "mariadb")
def _(element: seconds_between, compiler: SQLCompiler, **kw: Any) -> str:
    return f"TIMESTAMPDIFF(SECOND, {compiler.process(element.clauses, **kw)})"


@compiles(site_age, "mysql", "mariadb")
def _(element: site_age, compiler: SQLCompiler, **kw: Any) -> str:
    then = compiler.process(element.clauses, **kw)
    by_the_wall = f"TIMESTAMPDIFF(SECOND, {then}, NOW())"
    return f"LEAST({by_the_wall}, UNIX_TIMESTAMP() - UNIX_TIMESTAMP({then}))"


@compiles(site_age, "sqlite")
def _(element: site_age, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(strftime('%s', 'now') - strftime('%s', {compiler.process(element.clauses, **kw)}))"


@compiles(seconds_between, "sqlite")
def _(element: seconds_between, compiler: SQLCompiler, **kw: Any) -> str:
    first, second = element.clauses
    parts = [f"strftime('%s', {compiler.process(part, **kw)})" for part in (second, first)]
    return f"({' - '.join(parts)})"
