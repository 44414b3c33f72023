"""The accounting's part of the heartbeat."""

from __future__ import annotations

from functools import partial
from typing import Any

from vcld import clock
from vcld.accounting.keeping import STALE_SECONDS, Kept
from vcld.accounting.recorder import OFF, Recorder
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.provisioning import find_probe
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.supervisor.aside import Aside
from vcld.supervisor.children import Child, Children, Ended

#: What such a child is for; see ``Child.purpose``.
PURPOSE = "measuring hosts"
#: What a probing process may need beyond the time of the probes themselves.
PATIENCE_SECONDS = 30.0
#: A host is stale when this many looks have left it out.
STALE_LOOKS = 3


class Keeper:
    """Keeps hosts and VMs of the accounting up to date, now and then.

    What the database tells is done at once; what hosts must be asked for, by a child.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        node: ManagementNode,
        children: Children,
        aside: Aside,
        log: Any,
    ) -> None:
        self.settings = settings
        self.recorder: Recorder = OFF
        self._database = database
        self._node = node
        self._children = children
        self._aside = aside
        self._log = log
        self._kept: Kept | None = None
        self._due_at = 0.0
        self._child: Child | None = None
        self._kill_at = float("inf")

    def keep_if_due(self) -> None:
        """Bring the accounting up to date when its time has come.

        Raises:
            StoreError: the database is away.
        """
        if self._child is not None and clock.monotonic() > self._kill_at:
            self._children.kill(self._child)
        if not self.recorder.is_on or clock.monotonic() < self._due_at:
            return
        interval = self.settings.accounting_interval_seconds
        self._due_at = clock.monotonic() + interval
        self._kept = self._database.run(
            partial(
                self.recorder.keep,
                managementnodeid=self._node.id,
                silent_after_seconds=self.settings.takeover_after_seconds or 300,
                last=self._kept,
                find_probe=find_probe,
                stale_after_seconds=max(STALE_SECONDS, STALE_LOOKS * interval),
            )
        )
        if self._kept is not None and self._kept.probed and self._child is None:
            self._start_probes(self._kept)

    def note_end(self, ended: Ended) -> bool:
        """A child is gone. False when it was not ours."""
        if ended.child is not self._child:
            return False
        self._child = None
        if ended.status != 0:
            self._log.warning("measuring hosts failed", reason=ended.manner)
        return True

    def stop(self) -> None:
        """Nothing is measured from here on: the daemon ends, and waits for nobody's host."""
        self.recorder = OFF
        if self._child is not None:
            self._children.kill(self._child)

    def _start_probes(self, kept: Kept) -> None:
        limit = self.settings.accounting_probe_timeout_seconds
        self._kill_at = clock.monotonic() + limit + PATIENCE_SECONDS
        self._child = self._aside.start(PURPOSE, lambda: self._probe(kept))

    def _probe(self, kept: Kept) -> int:
        self.recorder.probe(self._database, self.settings, kept.probed, find_probe)
        return ExitCode.DONE
