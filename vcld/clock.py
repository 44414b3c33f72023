"""The one place that reads the process's clocks."""

from __future__ import annotations

import datetime as dt
import time


def monotonic() -> float:
    """Seconds that only grow; for deadlines and durations."""
    return time.monotonic()


def utc_now() -> dt.datetime:
    """This machine's idea of now, aware. The database's clock decides what is due."""
    return dt.datetime.now(dt.UTC)


def epoch() -> float:
    """Seconds since 1970 by this machine's clock."""
    return time.time()
