"""Being the one daemon of a management node: start, heartbeat, and succession."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from vcld import __version__, clock, processes
from vcld.config import Settings
from vcld.errors import VcldError
from vcld.schema.engine import Connection, Database
from vcld.snapshot import ManagementNode
from vcld.store import blocks, nodes
from vcld.store.nodes import DaemonRow, Identity, SilentNode


class NodeTakenError(VcldError):
    """Another daemon acts for this management node. Nothing was touched."""


class FencedError(VcldError):
    """Another daemon has taken this one's place: stop everything at once."""


class Lease:
    """The right to act for a management node, kept by its heartbeat.

    ``managementnode.lastcheckin`` is the heartbeat, as the web site reads it; the row of
    ``vcld_daemon`` says whose it is.
    """

    def __init__(
        self, settings: Settings, database: Database, node: ManagementNode, log: Any
    ) -> None:
        self.settings = settings
        self._database = database
        self._node = node
        self._log = log
        self.identity = Identity(
            daemon=secrets.token_hex(16),
            hostname=socket.gethostname(),
            kernel_boot=processes.kernel_boot_id(),
            process=processes.own(),
            version=__version__,
        )
        self.interval_seconds = float(node.checkininterval_seconds)
        self._beaten_at = clock.monotonic()
        self._told_silent: set[int] = set()

    def acquire(self) -> None:
        """Become the node's daemon.

        Raises:
            NodeTakenError: another one is alive.
        """

        def acquire(connection: Connection) -> None:
            old = nodes.find_daemon(connection, self._node.id)
            if old is not None and old.identity.daemon != self.identity.daemon:
                self._check_dead(old)
            if not nodes.become_daemon(connection, self._node.id, self.identity, old):
                raise NodeTakenError(
                    f"another vcld started for {self._node.hostname} at the same moment"
                )

        self._database.run(acquire)
        self._beaten_at = clock.monotonic()

    def _check_dead(self, old: DaemonRow) -> None:
        if old.stopped:
            return
        them = f"vcld {old.identity.process.pid} on {old.identity.hostname}"
        if old.identity.kernel_boot == self.identity.kernel_boot:
            if old.identity.process.is_alive():
                raise NodeTakenError(
                    f"{them} already acts for {self._node.hostname}; stop it first"
                )
            return
        if old.identity.hostname == self.identity.hostname:
            return  # the same machine, started anew: nothing of then is alive
        limit = self.settings.takeover_after_seconds or 300
        if old.silent_seconds is not None and old.silent_seconds < limit:
            raise NodeTakenError(
                f"{them} acted for {self._node.hostname} {old.silent_seconds} s ago; stop it,"
                f" or wait until it has been silent for {limit:.0f} s"
            )

    def beat_if_due(self) -> bool:
        """Write the heartbeat when its time has come; True when it was written.

        Raises:
            FencedError: another daemon acts for the node now.
        """
        if clock.monotonic() - self._beaten_at < self.interval_seconds:
            return False
        daemon = self.identity.daemon
        if not self._database.run(lambda c: nodes.beat(c, self._node.id, daemon)):
            raise FencedError(f"another daemon acts for {self._node.hostname} now")
        late = clock.monotonic() - self._beaten_at - self.interval_seconds
        if late > self.interval_seconds:
            self._log.warning("heartbeat was late", late_seconds=round(late, 1))
        self._beaten_at = clock.monotonic()
        return True

    @property
    def silent_after_seconds(self) -> float | None:
        """When other nodes count as dead; None when their work is not ours to take."""
        limit = self.settings.takeover_after_seconds
        return limit if limit and self.settings.takeover else None

    def is_lost(self) -> bool:
        """True when the heartbeat has failed for so long that others may take over."""
        limit = self.settings.takeover_after_seconds
        return bool(limit) and clock.monotonic() - self._beaten_at > limit * 0.9

    def seconds_to_beat(self) -> float:
        return max(0.0, self._beaten_at + self.interval_seconds - clock.monotonic())

    def take_over_silent(self) -> list[int]:
        """Take the reservations of nodes that have died; return their former ids."""
        limit = self.silent_after_seconds
        if limit is None:
            return []

        silent = self._database.run(lambda c: nodes.silent_nodes(c, self._node.id, limit))
        self._tell_silent(silent)
        taken = []
        for node in silent:
            self._take_over_blocks(node)
            if node.reservations:
                moved = self._database.run(
                    partial(
                        nodes.take_over,
                        managementnodeid=self._node.id,
                        silent=node.id,
                        daemon=self.identity.daemon,
                    )
                )
                self._log.warning(
                    "management node is silent, its work is taken over",
                    management_node=node.hostname,
                    reservations=moved,
                )
                taken.append(node.id)
        return taken

    def _take_over_blocks(self, node: SilentNode) -> None:
        """Only the web site, which this node must be able to ask, can prepare them."""
        if not self.settings.xmlrpc_url or self.settings.xmlrpc_pass is None:
            return
        ours = self._node.id
        moved = self._database.run(lambda c: blocks.take_over(c, ours, silent=node.id))
        if moved:
            self._log.warning(
                "management node is silent, its block allocations are taken over",
                management_node=node.hostname,
                blocks=moved,
            )

    def _tell_silent(self, silent: Sequence[SilentNode]) -> None:
        """Once for each, while it lasts: a node of which nothing is ours to take."""
        for node in silent:
            if node.id not in self._told_silent and not node.reservations:
                self._log.warning(
                    "management node is silent, nothing of its work can be taken over here",
                    management_node=node.hostname,
                )
        self._told_silent = {node.id for node in silent}

    def resign(self) -> None:
        """Say that the stop is on purpose."""
        self._database.run(lambda c: nodes.resign(c, self._node.id, self.identity.daemon))
