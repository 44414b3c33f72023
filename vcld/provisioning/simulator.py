"""The simulator: loads, captures and switches computers that exist in files only.

A real plugin behind the registry, for tests, benchmarks and the demonstration, and the
example for authors of others.
"""

from __future__ import annotations

import secrets
from types import MappingProxyType

from vcld.errors import FatalProvisioningError, ImageNotFoundError
from vcld.guest.interface import EndState, Guest, Tools
from vcld.guest.simulated_world import World
from vcld.provisioning.interface import PowerAction, PowerState, Provisioner
from vcld.snapshot import Reservation

#: Steps of a load by type of computer, as in ``computerloadflow``.
FLOWS = MappingProxyType(
    {
        "virtualmachine": (
            ("startload", "preparing the load"),
            ("transfervm", "copying the image"),
            ("vmsetupconfig", "writing the configuration"),
            ("startvm", "starting the virtual machine"),
            ("machinebooted", "the machine boots"),
        ),
        "blade": (
            ("rinstall", "preparing the installation"),
            ("xcatstage2", "restarting for the installation"),
            ("xcatstage5", "installing"),
            ("bootstate", "writing the image"),
            ("machinebooted", "the machine boots"),
        ),
        "lab": (),
    }
)
IMAGE_SIZE_MIB = 1450


class SimulatorProvisioner(Provisioner):
    """Does to files what a real provisioner does to machines."""

    def __init__(self, reservation: Reservation, guest: Guest, tools: Tools) -> None:
        super().__init__(reservation, guest, tools)
        self.world = World(tools.settings.simulator_config)
        self.name = reservation.computer.shortname

    def load(self) -> str | None:
        with self.world.change(self.name) as machine:
            # From here on the computer holds nothing, whenever the worker dies.
            machine.imagerevision_id = None
            machine.post_load = False
            machine.tainted = ""
            machine.accounts = []
            machine.connected_from = machine.open_to = None
            machine.power = "off"
        for step, text in FLOWS[self.reservation.computer.type]:
            self.tools.progress(step, f"{text}: {self.name}")
            self._pass(step)
        with self.world.change(self.name) as machine:
            machine.imagerevision_id = self.reservation.imagerevision.id
            machine.disk = secrets.token_hex(8)
            machine.power = "on"
            machine.loads += 1
        return self.guest.post_load()

    def image_exists(self, name: str | None = None) -> bool:
        wanted = name or self.reservation.imagerevision.imagename
        if wanted in self.world.images():
            return True
        if self.reservation.request.state in {"image", "checkpoint"}:
            return False  # a name that is only being made
        return wanted not in self.world.script.missing_images

    def retrieve_image(self, name: str | None = None) -> None:
        wanted = name or self.reservation.imagerevision.imagename
        self._pass("retrieve")
        if wanted not in self.world.script.partner_images:
            raise ImageNotFoundError(f"no partner management node has image {wanted}")
        self.world.add_image(wanted, IMAGE_SIZE_MIB)

    def image_size_mib(self, name: str | None = None) -> int:
        wanted = name or self.reservation.imagerevision.imagename
        return self.world.images().get(wanted, IMAGE_SIZE_MIB)

    def capture(self, *, keep_running: bool) -> None:
        wanted = self.reservation.imagerevision.imagename
        if wanted in self.world.images():
            raise FatalProvisioningError(f"image {wanted} exists already")
        self.guest.pre_capture(EndState.OFF)
        self._pass("capture")
        self.world.add_image(wanted, IMAGE_SIZE_MIB)
        with self.world.change(self.name) as machine:
            machine.imagerevision_id = self.reservation.imagerevision.id
            machine.post_load = False
            if not keep_running:
                machine.imagerevision_id = None

    def power(self, action: PowerAction) -> None:
        self._pass(f"power-{action.value}")
        with self.world.change(self.name) as machine:
            machine.power = "off" if action is PowerAction.OFF else "on"

    def power_status(self) -> PowerState:
        return PowerState(self.world.machine(self.name).power)

    def unload(self) -> None:
        self._pass("unload")
        self._remove()

    def post_maintenance(self) -> bool:
        self._pass("post-maintenance")
        if self.reservation.computer.type != "virtualmachine":
            return False
        self._remove()
        return True

    def _remove(self) -> None:
        with self.world.change(self.name) as machine:
            machine.power = "off"
            machine.imagerevision_id = None
            machine.accounts = []
            machine.connected_from = machine.open_to = None

    def _pass(self, step: str) -> None:
        self.world.pass_step(step, self.reservation, self.tools.cancellation)
