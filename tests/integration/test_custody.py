"""Recovery at awkward moments: it never ends the daemon, and is never forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from tests.site import Site
from vcld.config import Settings
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import candidates, claims, nodes, requests
from vcld.supervisor import custody
from vcld.supervisor.children import Children
from vcld.supervisor.custody import Custody
from vcld.supervisor.wakeup import Wakeup


class Scene:
    """A claim whose worker is gone, and the custody that knows of it."""

    def __init__(self, site: Site, state: str = "image") -> None:
        self.site = site
        self.database = Database(site.engine)
        self.request = site.ask(state, 1, laststate="inuse")
        rows = self._run(candidates.load_candidates, site.catalog, 1, [self.request])
        self._run(claims.claim, site.catalog, 1, "gone", rows)
        self.node: ManagementNode = self._run(nodes.get_node, "node1.example.org")
        self.custody = Custody(
            settings=Settings(fqdn="node1.example.org"),
            database=self.database,
            node=self.node,
            daemon="ours",
            children=Children(Wakeup().selector),
            log=structlog.get_logger(),
        )
        self.custody.inherit()

    def _run(self, work: Any, *args: Any) -> Any:
        return self.database.run(lambda connection: work(connection, *args))


def test_request_changed_at_the_moment_of_recovery_is_left_as_it_was_changed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the state machine: the transaction reads the old pair, its update finds the new."""
    scene = Scene(site)
    site.set_state(scene.request, "deleted", "inuse")
    with monkeypatch.context() as patch:
        patch.setattr(requests, "find_pair", lambda *_: ("pending", "image"))
        scene.custody.recover(site.catalog)

    assert len(scene.custody) == 1
    assert site.pair(scene.request) == "deleted/inuse"

    scene.custody.recover(site.catalog)

    assert len(scene.custody) == 0
    assert site.claims() == []
    assert site.pair(scene.request) == "deleted/inuse"


def test_recovery_that_fails_oddly_does_not_end_the_daemon(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(site)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(custody, "recover", fail)
        scene.custody.recover(site.catalog)

    # The claim is still there, so that it is found again.
    assert len(site.claims()) == 1
    scene.custody.take_orphans("is not there")
    scene.custody.recover(site.catalog)
    assert site.claims() == []
    assert site.pair(scene.request) == "maintenance/image"
