"""Block allocations beside the loop: one child at a time does what is due."""

from __future__ import annotations

import signal as signals
from typing import Any

import setproctitle

from vcld import clock
from vcld.config import Settings
from vcld.errors import ExitCode, WorkerStopped
from vcld.logs import visible
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.states import blockrequest
from vcld.store import blocks
from vcld.store.blocks import DueBlock
from vcld.supervisor.aside import Aside
from vcld.supervisor.children import Ended
from vcld.waiting import Cancellation

#: After a failure, and so that a block that cannot be ended is not tried every second.
PAUSE_SECONDS = 60.0
#: What such a child is for; see ``Child.purpose``.
PURPOSE = "block allocations"


class BlockRunner:
    """Starts a child for the block allocations of the node."""

    def __init__(
        self, settings: Settings, database: Database, node: ManagementNode, log: Any
    ) -> None:
        self.settings = settings
        self._database = database
        self.node = node
        self._log = log
        self._running = False
        self._not_before = 0.0

    def start(self, aside: Aside) -> None:
        """Start the child unless it runs or has just failed."""
        if self._running or clock.monotonic() < self._not_before:
            return
        if aside.start(PURPOSE, self._work) is None:
            self._not_before = clock.monotonic() + PAUSE_SECONDS
            return
        self._running = True

    def note_end(self, ended: Ended) -> None:
        """The child is gone; if it failed, wait before the next."""
        self._running = False
        if ended.status != 0:
            self._not_before = clock.monotonic() + PAUSE_SECONDS
            self._log.warning("work on block allocations failed", reason=ended.manner)

    def _work(self) -> int:
        cancellation = Cancellation()
        signals.signal(signals.SIGTERM, lambda *_: cancellation.stop("the daemon stops"))
        due = self._database.run(lambda c: blocks.load_due(c, self.node.id))
        done = True
        for block in due:
            self._set_title(block)
            try:
                done &= blockrequest.process(
                    self.settings, self._database, self.node, block, cancellation, self._log
                )
            except WorkerStopped as stopped:
                self._log.info("work on block allocations handed back", reason=stopped.reason)
                return ExitCode.HANDED_BACK
        return ExitCode.DONE if done else ExitCode.TRY_LATER

    def _set_title(self, block: DueBlock) -> None:
        """The form that VCL's own tools look for (VCL daemon specification §4.2)."""
        times = f"{block.blockrequestid}:{block.blocktimeid or -1}"
        setproctitle.setproctitle(f"{self.settings.processname} {times} '{visible(block.name)}'")
