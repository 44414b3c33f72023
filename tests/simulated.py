"""A simulated computer for tests without a database: script, world and both plugins."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from tests.samples import make_reservation, make_user
from vcld.config import Settings
from vcld.guest.interface import Guest, Tools
from vcld.guest.simulated_world import World
from vcld.guest.simulator import SimulatorGuest
from vcld.provisioning.simulator import SimulatorProvisioner
from vcld.snapshot import Account, ConnectMethod, Reservation
from vcld.waiting import Cancellation

HOME = "198.51.100.7"
ELSEWHERE = "203.0.113.9"
IMAGE = "simulator-first-v1"
REVISION = 14
LOGIN = "mmuster"
SSH = ConnectMethod(
    id=1, name="ssh", description="", connecttext="", servicename=None, startupscript=None,
    disabled=False, ports=((22, "TCP"),),
)  # fmt: skip


def make_accounts(password: str | None = "first-pw") -> list[Account]:
    return [Account(user=make_user(), root_access=True, password=password)]


@dataclass
class Hardware:
    """One computer and what is asked of it."""

    folder: Path
    script: dict[str, Any] = field(default_factory=dict)
    #: Load-log rows: (loadstatename, text).
    told: list[tuple[str, str]] = field(default_factory=list)
    cancellation: Cancellation = field(default_factory=Cancellation)
    on_progress: Callable[[str], None] = lambda name: None

    @property
    def path(self) -> str:
        return str(self.folder / "simulator.json")

    def says(self, **script: Any) -> Hardware:
        """Change what the script says, for plugins that are made later."""
        self.script.update(script)
        (self.folder / "simulator.json").write_text(json.dumps(self.script), encoding="utf-8")
        return self

    @property
    def world(self) -> World:
        return World(self.path)

    def reservation(
        self, *, state: str = "new", kind: str = "virtualmachine", name: str = "vm1", id_: int = 88
    ) -> Reservation:
        made = make_reservation(state=state)
        return replace(
            made,
            id=id_,
            computer=replace(made.computer, hostname=f"{name}.example.edu", type=kind),
            imagerevision=replace(made.imagerevision, id=REVISION, imagename=IMAGE),
        )

    @property
    def tools(self) -> Tools:
        def progress(name: str, text: str) -> None:
            self.told.append((name, text))
            self.on_progress(name)

        return Tools(
            settings=Settings(simulator_config=self.path),
            cancellation=self.cancellation,
            progress=progress,
            variables=lambda name: None,
            log=structlog.get_logger(),
        )

    def guest(self, **facts: Any) -> Guest:
        return SimulatorGuest(self.reservation(**facts), self.tools)

    def provisioner(self, **facts: Any) -> SimulatorProvisioner:
        reservation = self.reservation(**facts)
        return SimulatorProvisioner(
            reservation, SimulatorGuest(reservation, self.tools), self.tools
        )

    def loaded(self) -> Hardware:
        """With the image on the computer, and its user's account."""
        provisioner = self.provisioner()
        provisioner.load()
        provisioner.guest.tag_post_load()
        provisioner.guest.reserve(make_accounts())
        self.told.clear()
        return self


def in_process(work: Callable[[], object]) -> int:
    """Do it in a process of its own; its exit code, negative when a signal ended it."""

    def quietly() -> None:
        faulthandler.disable()  # pytest's would tell of a death that is wanted
        work()

    process = multiprocessing.get_context("fork").Process(target=quietly)
    process.start()
    process.join(30)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        raise AssertionError("the process did not end")
    return code
