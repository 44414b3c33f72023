"""What vcld asks of the system that makes computers: hypervisor, xCAT, simulator.

A provisioner knows one reservation. Queries change nothing. Commands may be repeated,
confirm what they did before they return, and raise when it is not so; the error's type says
whether a retry can help, its ``blame`` whose fault it is. Long waits go through
``tools.cancellation``, so that a deleted request stops within seconds.
"""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass
from typing import ClassVar

from vcld.errors import ProvisioningError, UnsupportedOperationError
from vcld.guest.interface import Guest, Tools
from vcld.provisioning.probing import HostProbe
from vcld.snapshot import Reservation


class LoadStatus(enum.Enum):
    """What has to happen before the computer can be handed out (specification §12)."""

    READY = "READY"
    POST_LOAD = "POST_LOAD"
    RELOAD = "RELOAD"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A load status and, in a clause, why."""

    status: LoadStatus
    reason: str


class PowerState(enum.Enum):
    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"


class PowerAction(enum.Enum):
    ON = "on"
    OFF = "off"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and how a computer's system was put, for the accounting."""

    #: What the hypervisor calls the VM.
    deploy_id: str
    #: Folder of the VM on its datastore; empty for a computer that is none.
    folder: str = ""
    #: How the image was placed: ``clone``, ``copy``, ``linked``, ``netboot`` …
    transfer: str = "copy"


def default_placement(reservation: Reservation) -> Placement:
    """What can be said of a placement without asking anybody."""
    computer = reservation.computer
    if computer.vmhost is None:
        return Placement(deploy_id=computer.node_name)
    profile = computer.vmhost.profile
    folder = f"{profile.vmpath or profile.datastorepath}/{computer.node_name}"
    return Placement(deploy_id=computer.node_name, folder=folder)


class Provisioner(abc.ABC):
    """Makes, captures and removes the system on one reserved computer."""

    #: Optional: measures hosts for the accounting.
    probe: ClassVar[type[HostProbe] | None] = None

    def __init__(self, reservation: Reservation, guest: Guest, tools: Tools) -> None:
        self.reservation = reservation
        self.guest = guest
        self.tools = tools

    def node_status(self) -> NodeStatus:
        """Say whether the computer already holds the wanted image revision, and why not.

        The order of the questions is that of the provisioning specification, §3.
        """
        try:
            if not self.guest.is_responding():
                return NodeStatus(LoadStatus.RELOAD, "the computer does not answer")
            tags = self.guest.tags()
            why = self.guest.check_status()
        except ProvisioningError as err:
            return NodeStatus(LoadStatus.RELOAD, f"the computer could not be asked: {err}")
        wanted = self.reservation.imagerevision.id
        if tags.imagerevision_id is None:
            return NodeStatus(LoadStatus.RELOAD, "the computer does not say what it holds")
        if tags.imagerevision_id != wanted:
            return NodeStatus(
                LoadStatus.RELOAD,
                f"the computer holds image revision {tags.imagerevision_id}, not {wanted}",
            )
        if tags.tainted:
            return NodeStatus(LoadStatus.RELOAD, f"the computer was used: {tags.tainted}")
        if not tags.post_load:
            return NodeStatus(LoadStatus.POST_LOAD, "the computer was loaded but not finished")
        if why is not None:
            return NodeStatus(LoadStatus.RELOAD, why)
        return NodeStatus(LoadStatus.READY, "the computer holds the wanted image revision")

    @abc.abstractmethod
    def load(self) -> str | None:
        """Put the image revision on the computer, start it and run the guest's ``post_load``.

        Returns:
            What the guest's ``post_load`` returned: the public IP address if found out.
        """

    @abc.abstractmethod
    def image_exists(self, name: str | None = None) -> bool:
        """True when the image (default: the reservation's) can be loaded from here."""

    def retrieve_image(self, name: str | None = None) -> None:
        """Fetch the image from a partner management node.

        Raises:
            ImageNotFoundError: no partner has it.
        """
        wanted = name or self.reservation.imagerevision.imagename
        msg = f"image {wanted} is not here and this provisioner cannot fetch it from elsewhere"
        raise UnsupportedOperationError(msg)

    def image_size_mib(self, name: str | None = None) -> int:
        """Size of the image in the repository."""
        raise UnsupportedOperationError(f"no image sizes are known here ({name})")

    def check_image_os(self) -> str | None:
        """Optional: the imagename under which a capture must be stored, if it must change."""
        return None

    @abc.abstractmethod
    def capture(self, *, keep_running: bool) -> None:
        """Store the computer's disk as the reservation's image; calls ``guest.pre_capture``.

        Never harms the running disk nor an existing image. With ``keep_running`` (a
        checkpoint) the computer stays; without, it may be removed.
        """

    @abc.abstractmethod
    def power(self, action: PowerAction) -> None:
        """Switch; being in the wanted state already is success."""

    @abc.abstractmethod
    def power_status(self) -> PowerState:
        """Ask the hardware."""

    def unload(self) -> None:
        """Remove what is loaded."""
        raise UnsupportedOperationError("this provisioner cannot unload a computer")

    def post_maintenance(self) -> bool:
        """Optional: the computer goes to maintenance. True when its system was removed."""
        return False

    def close(self) -> None:
        """Optional: the worker ends; close sessions. It must be quick, and never raise."""

    def placement(self) -> Placement:
        """Say where and how ``load`` put the system; it may ask the hypervisor."""
        return default_placement(self.reservation)
