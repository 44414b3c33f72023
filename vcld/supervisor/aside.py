"""Work that the loop may not wait for: a child process each, which holds no claim."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable
from typing import Any

from vcld.config import Settings
from vcld.errors import ExitCode, VcldError
from vcld.schema.engine import Database
from vcld.supervisor.children import Child, Children


class Aside:
    """Starts such children."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        children: Children,
        leave_parent: Callable[[], None],
        log: Any,
    ) -> None:
        self.settings = settings
        self._database = database
        self._children = children
        self._leave_parent = leave_parent
        self._log = log

    def start(self, purpose: str, work: Callable[[], int]) -> Child | None:
        """Run ``work`` in a child with a database connection of its own.

        SIGTERM ends it; what it raises is logged. None when the system has no room for
        another process, which is logged, too.
        """
        try:
            return self._children.spawn(purpose, None, lambda: self._live(purpose, work))
        except OSError as err:
            self._log.error("no worker could be started", purpose=purpose, reason=str(err))
            return None

    def _live(self, purpose: str, work: Callable[[], int]) -> int:
        self._leave_parent()
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
        self._database.after_fork()
        self._database.patience_seconds = self.settings.database_patience_seconds
        try:
            return work()
        except VcldError as err:
            self._log.error("work beside the loop failed", purpose=purpose, reason=str(err))
            return err.exit_code
        except Exception:  # noqa: BLE001 - it would be lost with the process
            self._log.exception("work beside the loop failed", purpose=purpose)
            return ExitCode.BUG
