"""The accounting's part of the heartbeat."""

from __future__ import annotations

from functools import partial

from vcld import clock
from vcld.accounting.keeping import Kept
from vcld.accounting.recorder import OFF, Recorder
from vcld.config import Settings
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode


class Keeper:
    """Keeps hosts and VMs of the accounting up to date, now and then."""

    def __init__(self, settings: Settings, database: Database, node: ManagementNode) -> None:
        self.settings = settings
        self.recorder: Recorder = OFF
        self._database = database
        self._node = node
        self._kept: Kept | None = None
        self._due_at = 0.0

    def keep_if_due(self) -> None:
        """Bring the accounting up to date when its time has come.

        Raises:
            StoreError: the database is away.
        """
        if not self.recorder.is_on or clock.monotonic() < self._due_at:
            return
        self._due_at = clock.monotonic() + self.settings.accounting_interval_seconds
        self._kept = self._database.run(
            partial(
                self.recorder.keep,
                managementnodeid=self._node.id,
                silent_after_seconds=self.settings.takeover_after_seconds or 300,
                last=self._kept,
            )
        )
