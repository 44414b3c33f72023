"""A span of time to report on, and what of a stay lies in it."""

from __future__ import annotations

import calendar
import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.accounting.sqlfacts import earliest, epoch, latest
from vcld.accounting.tables import Tables
from vcld.errors import UsageError

Seconds = sa.ColumnElement[int]
#: 2999-12-31 23:59:59 UTC: far more than the columns hold, and what every calendar can say.
LAST_TIME = 32_503_679_999


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
    days: int | None = None,
    weeks: int | None = None,
    months: int | None = None,
    begin: str | None = None,
    end: str | None = None,
) -> Window:
    """The window that is asked for: so far back from its end, or from one time to another.

    Days, weeks and months add up; a month back is what is asked for by nothing.

    Raises:
        UsageError: a time cannot be read, or the window makes no sense.
    """
    lengths = [length for length in (days, weeks, months) if length is not None]
    if any(length <= 0 for length in lengths):
        raise UsageError("-d, -w and -m say how far back: give a number above 0")
    if begin is not None and lengths:
        raise UsageError("the window begins at --from, or so far back (-d, -w, -m): give one")
    until = now if end is None else _parse(end)
    if begin is not None:
        since = _parse(begin)
    else:
        back = months or 0 if lengths else 1
        since = _months_before(until, back) - ((days or 0) + 7 * (weeks or 0)) * 86400
    since = max(since, 0)
    if since >= until:
        raise UsageError(f"the window ends ({_text(until)}) before it begins ({_text(since)})")
    return Window(start=since, end=until, now=now)


def database_now(connection: Connection) -> int:
    """Seconds since 1970 by the database's clock, which wrote the times."""
    return connection.scalar(sa.select(epoch())) or 0


def _parse(text: str) -> int:
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError as err:
        raise UsageError(
            f"{text!r} is no time; write 2026-01-31, or 2026-01-31T13:00 (both UTC)"
        ) from err
    seconds = int((when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp())
    if not 0 <= seconds <= LAST_TIME:
        raise UsageError(f"{text!r} is not in the years from 1970 to 2999")
    return seconds


def _text(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _months_before(seconds: int, months: int) -> int:
    """The same day of an earlier month, or its last one; nothing is before 1970."""
    when = dt.datetime.fromtimestamp(seconds, dt.UTC)
    year, month = divmod(when.year * 12 + when.month - 1 - months, 12)
    if year < 1970:
        return 0
    day = min(when.day, calendar.monthrange(year, month + 1)[1])
    return int(when.replace(year=year, month=month + 1, day=day).timestamp())
