"""Computers that nobody loads: those of a lab, and those with the provisioning ``none``.

Their system is somebody else's; vcld hands them out as they are (provisioning specification
§11).
"""

from __future__ import annotations

from vcld.errors import Blame, FatalProvisioningError, ProvisioningError, UnsupportedOperationError
from vcld.provisioning.interface import (
    LoadStatus,
    NodeStatus,
    Placement,
    PowerAction,
    PowerState,
    Provisioner,
)


class FixedProvisioner(Provisioner):
    """``base_module``, the provisioning ``none``: a computer that says what it holds."""

    def load(self) -> str | None:
        raise FatalProvisioningError(
            f"{self._name} cannot be loaded: its provisioning is"
            f" {self.reservation.computer.provisioning!r}, so nobody installs images on it",
            blame=Blame.NOBODY,
        )

    def image_exists(self, name: str | None = None) -> bool:
        del name  # what is there is on the computer
        return True

    def capture(self, *, keep_running: bool) -> None:
        del keep_running
        raise UnsupportedOperationError(f"no image can be made of {self._name}: nobody loads it")

    def power(self, action: PowerAction) -> None:
        raise UnsupportedOperationError(f"vcld cannot switch {self._name} {action.value}")

    def power_status(self) -> PowerState:
        return PowerState.UNKNOWN

    def placement(self) -> Placement:
        return Placement(deploy_id=self._name, transfer="none")

    @property
    def _name(self) -> str:
        return self.reservation.computer.node_name


class LabProvisioner(FixedProvisioner):
    """``provisioning_lab``: a computer is loaded when it answers, whatever it holds."""

    def node_status(self) -> NodeStatus:
        try:
            answers = self.guest.is_responding()
        except ProvisioningError as err:
            return NodeStatus(LoadStatus.RELOAD, f"the computer could not be asked: {err}")
        if answers:
            return NodeStatus(LoadStatus.READY, "the lab computer answers")
        return NodeStatus(LoadStatus.RELOAD, "the lab computer does not answer")

    def load(self) -> str | None:
        self.tools.progress("checklabstatus", f"waiting until {self._name} answers")
        return self.guest.post_load()
