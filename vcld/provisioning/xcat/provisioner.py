"""The xCAT provisioner: what vcld asks of blades."""

from __future__ import annotations

import contextlib

from vcld.errors import UnsupportedOperationError
from vcld.guest.interface import Guest, Tools
from vcld.provisioning.interface import (
    Placement,
    PowerAction,
    PowerState,
    Provisioner,
)
from vcld.provisioning.xcat import capture, plan, power
from vcld.provisioning.xcat.failures import NodeUndefinedError
from vcld.provisioning.xcat.load import Load
from vcld.provisioning.xcat.plan import captured_name
from vcld.provisioning.xcat.retrieval import Retrieval
from vcld.provisioning.xcat.site import XcatSite
from vcld.snapshot import Reservation


class XcatProvisioner(Provisioner):
    """Loads, captures and switches bare metal by xCAT 2."""

    def __init__(self, reservation: Reservation, guest: Guest, tools: Tools) -> None:
        super().__init__(reservation, guest, tools)
        self.site = XcatSite(reservation, tools)

    def load(self) -> str | None:
        """Install the image, wait until it has booted, then let the guest finish it."""
        Load(self.site, self.guest).run()
        return self.guest.post_load()

    def image_exists(self, name: str | None = None) -> bool:
        """True when there is a way to load it; changes nothing."""
        return plan.make_plan(self.site, name) is not None

    def image_size_mib(self, name: str | None = None) -> int:
        """Space that a captured image takes on this management node."""
        wanted = name or self.reservation.imagerevision.imagename
        if not self.site.repository.files(wanted) and self.image_exists(wanted):
            raise UnsupportedOperationError(f"{wanted} is installed from packages: it has no size")
        return self.site.repository.size_mib(wanted)

    def retrieve_image(self, name: str | None = None) -> None:
        """Fetch a captured image from a management node of the same library."""
        Retrieval(self.site, name or self.reservation.imagerevision.imagename).run()

    def check_image_os(self) -> str | None:
        """A captured kickstart system is no longer one: it gets the name of its image OS."""
        return captured_name(self.reservation)

    def capture(self, *, keep_running: bool) -> None:
        """Store the disk. The blade needs no other state for a user who keeps it."""
        del keep_running
        wanted = self.check_image_os() or self.reservation.imagerevision.imagename
        capture.capture(self.site, self.guest, wanted)

    def power(self, action: PowerAction) -> None:
        """Switch, and see that it happened."""
        self.site.facts.definition_now()
        power.switch(self.site, action)

    def power_status(self) -> PowerState:
        """Ask the controller, together with others who ask now."""
        return self.site.facts.power()

    def unload(self) -> None:
        """Switch it off. A node that xCAT no longer knows holds nothing of ours."""
        with contextlib.suppress(NodeUndefinedError):
            self.power(PowerAction.OFF)

    def close(self) -> None:
        """End the connection to a service node."""
        self.site.runner.close()

    def placement(self) -> Placement:
        """A blade is where it is."""
        return Placement(deploy_id=self.site.node, transfer="install")
