"""The xCAT provisioner without a daemon or a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from tests.fake_xcat import FakeXcat
from tests.samples import make_node, make_reservation
from tests.xcat_blades import QUICK
from vcld.config import Settings
from vcld.guest.interface import Tools
from vcld.guest.simulator import SimulatorGuest
from vcld.provisioning.xcat.provisioner import XcatProvisioner
from vcld.snapshot import Image, Reservation
from vcld.store import leases
from vcld.store.blades import find_others
from vcld.store.partners import Partner, find_partners
from vcld.waiting import Cancellation

IMAGE = "simulator-first-v1"


@dataclass
class Bench:
    """One blade, and what the provisioner is told of the site."""

    xcat: FakeXcat
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    partners: list[Partner] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    cancellation: Cancellation = field(default_factory=Cancellation)

    def reservation(
        self, *, name: str = "blade1", image: str = IMAGE, state: str = "new", **facts: Any
    ) -> Reservation:
        made = make_reservation(
            state=state, node=make_node(installpath=f"{self.xcat.root}/install")
        )
        row: Image = replace(
            made.image, os_name="rh6image", os_installtype="partimage", os_sourcepath="image"
        )
        return replace(
            made,
            computer=replace(made.computer, hostname=f"{name}.example.edu", type="blade"),
            image=replace(row, **facts),
            imagerevision=replace(made.imagerevision, imagename=image),
        )

    def tools(self) -> Tools:
        values = {f"xcat|{key}": str(value) for key, value in (QUICK | self.variables).items()}
        (self.folder / "simulator.json").write_text(f'{{"state_dir": "{self.folder}/hardware"}}')
        return Tools(
            settings=Settings(
                pidfile=str(self.folder / "vcld.pid"),
                simulator_config=str(self.folder / "simulator.json"),
            ),
            cancellation=self.cancellation,
            progress=lambda name, text: self.told.append((name, text)),
            variables={**values, "xcat|root": str(self.xcat.root)}.get,
            log=structlog.get_logger(),
            run=self._run,
        )

    def provisioner(self, **facts: Any) -> XcatProvisioner:
        reservation, tools = self.reservation(**facts), self.tools()
        return XcatProvisioner(reservation, SimulatorGuest(reservation, tools), tools)

    def _run(self, work: Callable[..., Any], *_: Any, **_facts: Any) -> Any:
        answers: dict[Callable[..., Any], Any] = {
            leases.find_claim: 1,
            leases.is_claim: True,
            leases.forget: None,
            leases.join: 1,
            leases.advance: leases.Place(slot=0),
            leases.renew: True,
            leases.release: None,
            find_partners: self.partners,
            find_others: [],
        }
        return answers[work]
