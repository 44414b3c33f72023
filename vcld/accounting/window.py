"""A span of time to report on, and what of a stay lies in it."""

from __future__ import annotations

import calendar
import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.sqlfacts import earliest, epoch, latest
from vcld.accounting.tables import Tables
from vcld.errors import ConfigError

Seconds = sa.ColumnElement[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From ``start`` to ``end``, in seconds since 1970; what is still open counts to ``now``."""

    start: int
    end: int
    now: int

    def runs(self, tables: Tables) -> sa.ColumnElement[bool]:
        """True for a stay that runs in the window (accounting specification, "Reading it")."""
        stay = tables.history.c
        return sa.and_(
            stay.rstime > 0,
            stay.rstime <= self.end,
            sa.or_(stay.retime == 0, stay.retime > self.start),
        )

    def transfers(self, tables: Tables) -> sa.ColumnElement[bool]:
        """True for a stay whose image is placed in the window."""
        stay = tables.history.c
        return sa.and_(
            stay.pstime > 0,
            stay.pstime <= self.end,
            sa.or_(stay.petime == 0, stay.petime > self.start),
        )

    def running_seconds(self, tables: Tables) -> Seconds:
        """How long it runs in the window; 0 when it does not."""
        stay = tables.history.c
        seconds = self._clipped(stay.rstime, stay.retime, stay.etime)
        return sa.case((self.runs(tables), seconds), else_=0)

    def transfer_seconds(self, tables: Tables) -> Seconds:
        """How long its image is placed in the window; 0 when it is not."""
        stay = tables.history.c
        seconds = self._clipped(stay.pstime, stay.petime, stay.etime)
        return sa.case((self.transfers(tables), seconds), else_=0)

    def _clipped(self, begin: Seconds, end: Seconds, closed: Seconds) -> Seconds:
        until = sa.case((end > 0, end), (closed > 0, closed), else_=self.now)
        return latest(0, earliest(until, self.end) - latest(begin, self.start))


def window_of(
    now: int,
    *,
    days: int = 0,
    weeks: int = 0,
    months: int = 0,
    begin: str | None = None,
    end: str | None = None,
) -> Window:
    """The window that is asked for: so far back from now, or from one time to another.

    Raises:
        ConfigError: a time cannot be read, or the end comes before the begin.
    """
    until = _parse(end) if end else now
    if begin:
        since = _parse(begin)
    elif days or weeks or months:
        since = _months_before(until, months) - (days + 7 * weeks) * 86400
    else:
        since = _months_before(until, 1)
    if since >= until:
        raise ConfigError(f"the window ends ({_text(until)}) before it begins ({_text(since)})")
    return Window(start=max(since, 0), end=until, now=now)


def database_now(connection: Connection) -> int:
    """Seconds since 1970 by the database's clock, which wrote the times."""
    return connection.scalar(sa.select(epoch())) or 0


def _parse(text: str) -> int:
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError as err:
        raise ConfigError(
            f"{text!r} is no time; write 2026-01-31, or 2026-01-31T13:00 (both UTC)"
        ) from err
    return int((when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp())


def _text(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _months_before(seconds: int, months: int) -> int:
    """The same day of an earlier month, or its last one."""
    when = dt.datetime.fromtimestamp(seconds, dt.UTC)
    year, month = divmod(when.year * 12 + when.month - 1 - months, 12)
    day = min(when.day, calendar.monthrange(year, month + 1)[1])
    return int(when.replace(year=year, month=month + 1, day=day).timestamp())
