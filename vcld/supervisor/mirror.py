"""The copy of the accounting in another database, kept up to date beside the loop."""

from __future__ import annotations

from typing import Any

from vcld import clock
from vcld.accounting.elsewhere import bring_up_to_date
from vcld.accounting.recorder import OFF, Recorder
from vcld.config import Settings
from vcld.errors import ExitCode
from vcld.schema.engine import Database
from vcld.supervisor.aside import Aside
from vcld.supervisor.children import Child, Children, Ended

#: What such a child is for; see ``Child.purpose``.
PURPOSE = "copying the accounting"
#: A copy reads both sides whole; it may take one part in so many of a processor's time.
REST = 20


class Mirror:
    """Starts a child for each copy; one at a time."""

    def __init__(
        self, settings: Settings, database: Database, children: Children, aside: Aside, log: Any
    ) -> None:
        self.settings = settings
        self.recorder: Recorder = OFF
        self._database = database
        self._children = children
        self._aside = aside
        self._log = log
        self._child: Child | None = None
        self._began_at = 0.0
        self._due_at = 0.0

    def copy_if_due(self) -> None:
        """Start a copy when its time has come; it waits for nothing."""
        is_wanted = self.recorder.is_on and self.settings.accounting_place
        if not is_wanted or self._child is not None or clock.monotonic() < self._due_at:
            return
        self._began_at = clock.monotonic()
        self._due_at = self._began_at + self.settings.accounting_interval_seconds
        self._child = self._aside.start(PURPOSE, self._copy)

    def note_end(self, ended: Ended) -> bool:
        """A child is gone. False when it was not ours."""
        if ended.child is not self._child:
            return False
        self._child = None
        now = clock.monotonic()
        self._due_at = max(self._due_at, now + REST * (now - self._began_at))
        if ended.status != 0:
            self._log.warning("the accounting's copy is not up to date", reason=ended.manner)
        return True

    def stop(self) -> None:
        """The daemon ends: a copy that is not whole leaves the other database as it was."""
        self.recorder = OFF
        if self._child is not None:
            self._children.kill(self._child)

    def _copy(self) -> int:
        settings = self.settings
        done = bring_up_to_date(
            self._database, settings.accounting_schema, settings.accounting_place
        )
        self._log.debug(
            "accounting copied", added=done.added, changed=done.changed, removed=done.removed
        )
        return ExitCode.DONE
