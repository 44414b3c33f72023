"""The simulator: loads, captures and switches computers that exist in files only.

A real plugin behind the registry, for tests, benchmarks and the demonstration, and the
example for authors of others.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from types import MappingProxyType

from vcld.errors import (
    Blame,
    FatalProvisioningError,
    ImageNotFoundError,
    ProvisioningError,
    UnsupportedOperationError,
)
from vcld.guest.interface import EndState, Guest, Tools
from vcld.guest.simulated_steps import pass_step
from vcld.guest.simulated_world import StoredImage, World
from vcld.guest.simulator_script import IMAGE_SIZE_MIB
from vcld.provisioning.interface import PowerAction, PowerState, Provisioner
from vcld.provisioning.simulated_probe import SimulatorProbe
from vcld.snapshot import Reservation

#: Phases of a load by type of computer, as in ``computerloadflow``. A lab computer has none.
FLOWS = MappingProxyType(
    {
        "virtualmachine": (
            ("startload", "preparing the load"),
            ("transfervm", "copying the image"),
            ("vmsetupconfig", "writing the configuration"),
            ("startvm", "starting the virtual machine"),
            ("machinebooted", "waiting until the computer answers"),
        ),
        "blade": (
            ("rinstall", "preparing the installation"),
            ("xcatstage2", "restarting for the installation"),
            ("xcatstage5", "installing"),
            ("bootstate", "ending the installation"),
            ("machinebooted", "waiting until the computer answers"),
        ),
        "lab": (),
    }
)
#: The phase that takes long enough to tell how much of it is over.
COPYING = "transfervm"


class SimulatorProvisioner(Provisioner):
    """Does to files what a real provisioner does to computers."""

    probe = SimulatorProbe

    def __init__(self, reservation: Reservation, guest: Guest, tools: Tools) -> None:
        super().__init__(reservation, guest, tools)
        self.world = World(tools.settings.simulator_config)
        self.name = reservation.computer.node_name

    def load(self) -> str | None:
        kind = self.reservation.computer.type
        if kind not in FLOWS:
            raise UnsupportedOperationError(f"the simulator cannot load {self.name}, a {kind}")
        if not self.image_exists():
            raise ImageNotFoundError(f"image {self._own_image} is not in the repository")
        load = secrets.token_hex(8)
        with self.world.change(self.name) as computer:
            # From here on the computer holds nothing, whenever the worker dies.
            computer.wipe()
            computer.loading = load
        for phase, text in FLOWS[kind]:
            self._run_phase(phase, f"{text}: {self._own_image} on {self.name}")
        with self.world.change(self.name) as computer:
            if computer.loading != load:
                msg = f"somebody else loads or removes {self.name} at the same time"
                raise ProvisioningError(msg, blame=Blame.NOBODY)
            computer.imagerevision_id = self.reservation.imagerevision.id
            computer.disk, computer.loading = load, ""
            computer.set_power("on")
            computer.loads += 1
        return self.guest.post_load()

    def image_exists(self, name: str | None = None) -> bool:
        self._pass("image-exists")
        return self._is_stored(name or self._own_image)

    def retrieve_image(self, name: str | None = None) -> None:
        wanted = name or self._own_image
        self._pass("retrieve")
        if wanted not in self.world.script.partner_images:
            raise ImageNotFoundError(f"no partner management node has image {wanted}")
        self.world.add_image(wanted, StoredImage(size_mib=self._size_mib(wanted)))

    def image_size_mib(self, name: str | None = None) -> int:
        wanted = name or self._own_image
        self._pass("image-size")
        stored = self.world.images().get(wanted)
        if stored is not None:
            return stored.size_mib
        if not self._is_stored(wanted):
            raise ImageNotFoundError(f"image {wanted} is not in the repository")
        return self._size_mib(wanted)

    def check_image_os(self) -> str | None:
        return self.world.script.capture_as.get(self._own_image)

    def capture(self, *, keep_running: bool) -> None:
        # The disk is only read, so the computer is as good afterwards, running or not.
        del keep_running
        wanted = self.check_image_os() or self._own_image
        if self._is_stored(wanted):
            raise self._taken(wanted)
        self._pass("capture-prepare")
        self.guest.pre_capture(EndState.OFF)
        self._pass("capture")
        disk = self.world.computer(self.name).disk
        self._pass("capture-store")
        image = StoredImage(size_mib=self._size_mib(wanted), disk=disk)
        if not self.world.add_image(wanted, image):
            raise self._taken(wanted)
        self._pass("capture-finish")

    def power(self, action: PowerAction) -> None:
        self._pass(f"power-{action.value}")
        if action is PowerAction.RESET:
            self.world.set_power(self.name, PowerState.OFF.value)
        state = PowerState.OFF if action is PowerAction.OFF else PowerState.ON
        self.world.set_power(self.name, state.value)

    def power_status(self) -> PowerState:
        self._pass("power-status")
        return PowerState(self.world.computer(self.name).power)

    def unload(self) -> None:
        self._pass("unload")
        self._remove()

    def post_maintenance(self) -> bool:
        self._pass("post-maintenance")
        if self.reservation.computer.type != "virtualmachine":
            return False
        self._remove()
        return True

    @property
    def _own_image(self) -> str:
        return self.reservation.imagerevision.imagename

    def _run_phase(self, phase: str, text: str) -> None:
        """Tell of a phase as it begins, then let it happen."""
        self.tools.progress(phase, text)
        if phase == COPYING:
            self._pass(phase, lambda percent: self.tools.progress(phase, f"{text}, {percent} %"))
        else:
            self._pass(phase)

    def _is_stored(self, name: str) -> bool:
        if name in self.world.images():
            return True
        if self.reservation.request.state in {"image", "checkpoint"}:
            return False  # a name that is only being made
        return name not in self.world.script.missing_images

    def _size_mib(self, name: str) -> int:
        return self.world.script.image_sizes_mib.get(name, IMAGE_SIZE_MIB)

    def _taken(self, name: str) -> FatalProvisioningError:
        return FatalProvisioningError(f"image {name} exists already", blame=Blame.IMAGE)

    def _remove(self) -> None:
        with self.world.change(self.name) as computer:
            computer.wipe()

    def _pass(self, step: str, tell: Callable[[int], None] | None = None) -> None:
        pass_step(self.world, step, self.reservation, self.tools.cancellation, tell)
