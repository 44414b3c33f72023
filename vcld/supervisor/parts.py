"""The daemon's parts, each with a job of its own, and what is passed to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vcld.accounting.recorder import Recorder
from vcld.config import Settings
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store.catalog import Catalog
from vcld.supervisor import blocks
from vcld.supervisor.accounting import Keeper
from vcld.supervisor.aside import Aside
from vcld.supervisor.blocks import BlockRunner
from vcld.supervisor.children import Children, Ended
from vcld.supervisor.custody import Custody
from vcld.supervisor.dispatch import Dispatcher
from vcld.supervisor.lease import Lease
from vcld.supervisor.mirror import Mirror
from vcld.supervisor.oddities import Oddities
from vcld.supervisor.problems import Problems


class Parts:
    """What the loop calls in its turns."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        node: ManagementNode,
        children: Children,
        leave_parent: Callable[[], None],
        log: Any,
    ) -> None:
        self.aside = Aside(settings, database, children, leave_parent, log)
        self.lease = Lease(settings, database, node, log)
        self.problems = Problems(settings, database, node)
        daemon = self.lease.identity.daemon
        self.custody = Custody(
            settings=settings,
            database=database,
            node=node,
            daemon=daemon,
            children=children,
            problems=self.problems,
            log=log,
        )
        self.dispatcher = Dispatcher(
            settings=settings, database=database, node=node, daemon=daemon, log=log
        )
        self.blocks = BlockRunner(settings, database, node, log)
        self.oddities = Oddities(settings, database, node, log)
        self.keeper = Keeper(settings, database, node, children, self.aside, log)
        self.mirror = Mirror(settings, database, children, self.aside, log)

    def use_settings(self, settings: Settings) -> None:
        """The configuration was read again."""
        for part in (
            self.aside,
            self.lease,
            self.problems,
            self.custody,
            self.dispatcher,
            self.blocks,
            self.oddities,
            self.keeper,
            self.mirror,
        ):
            part.settings = settings

    def use_node(self, node: ManagementNode) -> None:
        """The management node's row was read again: its keys, its mail, its network."""
        for part in (self.problems, self.custody, self.dispatcher, self.blocks):
            part.node = node

    def use_recorder(self, recorder: Recorder) -> None:
        """Accounting was installed, or removed."""
        for part in (self.custody, self.dispatcher, self.keeper, self.mirror):
            part.recorder = recorder

    def use_catalog(self, catalog: Catalog) -> None:
        """The site's names and timings were read again."""
        for part in (self.custody, self.dispatcher, self.oddities):
            part.catalog = catalog

    def beat(self) -> None:
        """What is done now and then, in long turns too.

        Raises:
            StoreError: the database is away.
            FencedError: another daemon acts for the node.
        """
        self.lease.beat_if_due()
        self.keeper.keep_if_due()
        self.mirror.copy_if_due()

    def note_end(self, ended: Ended) -> bool:
        """Tell the part whose child has ended; whether requests may be concerned."""
        if self.keeper.note_end(ended) or self.mirror.note_end(ended):
            return False
        if ended.child.purpose == blocks.PURPOSE:
            self.blocks.note_end(ended)
        else:
            self.custody.note_end(ended)
        return True
