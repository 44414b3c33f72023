"""What is odd around the daemon is told once, not at every look."""

from __future__ import annotations

from typing import Any

from vcld import clock
from vcld.config import Settings
from vcld.schema.check import find_missing_names
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import notices, oddities
from vcld.store.catalog import Catalog

#: How often oddities are looked for.
LOOK_SECONDS = 300.0


class Oddities:
    """Looks for a wrong clock, for rows that are missing, and for leftovers."""

    def __init__(
        self, settings: Settings, database: Database, node: ManagementNode, log: Any
    ) -> None:
        self.settings = settings
        self.catalog: Catalog
        self._database = database
        self._node = node
        self._log = log
        self._told: set[str] = set()
        self._skew_told = False
        self._look_at = float("-inf")

    def look_if_due(self) -> None:
        """Tell of what is new.

        Raises:
            StoreError: the database is away.
        """
        if clock.monotonic() < self._look_at:
            return
        self._look_at = clock.monotonic() + LOOK_SECONDS
        self._look_at_clock()
        found = self._database.run(lambda c: oddities.find_half_requests(c, self._node.id))
        for what in found:
            if what not in self._told:
                self._log.warning("half a request is in the database, it is left alone", what=what)
        missing = find_missing_names(self.catalog.state_ids, self.catalog.loadstate_ids)
        for what in missing:
            if what not in self._told:
                self._log.error("a row that vcld needs is not in the database", what=what)
        self._told = {*found, *missing}
        self._database.run(notices.forget_gone)

    def _look_at_clock(self) -> None:
        there = self._database.run(oddities.database_utc)
        skew = (clock.utc_now().replace(tzinfo=None) - there).total_seconds()
        is_off = abs(skew) > self.settings.max_clock_skew_seconds
        if is_off and not self._skew_told:
            self._log.warning(
                "this machine's clock differs from the database's: set the time",
                skew_seconds=round(skew),
            )
        self._skew_told = is_off
