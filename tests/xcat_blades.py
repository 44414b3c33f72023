"""A site whose computers are fake blades: the fake xCAT, and guests that follow its nodes."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, Daemons
from tests.fake_xcat import FakeXcat, Node, Times
from tests.fake_xcat.nodes import Hooks
from tests.site import NEW_REVISION, OTHER_REVISION, REVISION, Site

REVISIONS = {
    "simulator-first-v1": REVISION,
    "simulator-first-v2": NEW_REVISION,
    "simulator-second-v1": OTHER_REVISION,
}
#: Everything is quick, so that a test need not wait.
QUICK = {
    "poll": 0.2,
    "retry_pause": 0.05,
    "power_wait": 3,
    "boot_wait": 20,
    "no_progress": 20,
    "load_limit": 60,
    "capture_poll": 0.1,
    "command_timeout": 20,
    "daemon_patience": 40,
}


@dataclass
class Blades:
    """The site, its fake xCAT and what a test does with them."""

    site: Site
    xcat: FakeXcat
    daemons: Daemons
    revisions: dict[str, int] = field(default_factory=lambda: dict(REVISIONS))

    def start(self, **keys: Any) -> Daemon:
        daemon = self.daemons.make(**keys)
        daemon.environ["XCATROOT"] = str(self.xcat.root)
        return daemon.start()

    def set(self, **variables: object) -> None:
        """Set ``xcat|NAME`` variables; before the daemon starts."""
        for name, value in variables.items():
            self.site.variable(f"xcat|{name}", value)

    def node(self, number: int = 1) -> Node:
        return self.xcat.nodes[f"blade{number}"]

    def loaded(self, *numbers: int, image: str = "simulator-first-v1") -> None:
        """Let blades run an image, as if loaded and finished long ago."""
        for number in numbers:
            node = self.node(number)
            node.power, node.phase, node.disk = "on", "booted", image
            node.set_status("booted")
            self._up(node, image)
            with self.site.world.change(node.name) as computer:
                computer.post_load = True

    def _down(self, node: Node, wiped: bool) -> None:
        with self.site.world.change(node.name) as computer:
            if wiped:
                computer.wipe()
            computer.set_power("off")

    def _runs(self, node: Node) -> bool:
        return self.site.world.computer(node.name).power == "on"

    def _up(self, node: Node, image: str) -> None:
        with self.site.world.change(node.name) as computer:
            if computer.imagerevision_id is None:
                computer.imagerevision_id = self.revisions.get(image)
                computer.disk = secrets.token_hex(8)
                computer.loads += 1
            computer.set_power("on")


@contextlib.contextmanager
def blades_for(
    site: Site, daemons: Daemons, root: Path, *, times: Times | None = None
) -> Iterator[Blades]:
    """Turn the site's computers into fake blades until the block ends."""
    xcat = FakeXcat(root, times=times or Times())
    made = Blades(site, xcat, daemons)
    xcat.hooks = Hooks(
        log=xcat.hooks.log,
        capture=xcat.hooks.capture,
        down=made._down,
        up=made._up,
        runs=made._runs,
    )
    site.execute(
        "UPDATE computer SET hostname = REPLACE(hostname, 'vm', 'blade'), type = 'blade',"
        " provisioningid = (SELECT id FROM provisioning WHERE name = 'xcat')"
    )
    site.execute(f"UPDATE managementnode SET installpath = '{root}/install'")
    made.set(**QUICK, syslog=xcat.syslog)
    for number in range(1, site.computers + 1):
        xcat.add_node(f"blade{number}")
    for name in REVISIONS:
        xcat.add_osimage(name)
    with xcat:
        yield made
