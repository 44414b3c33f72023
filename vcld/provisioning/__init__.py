"""Provisioners, by the module name of the VCL schema."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcld import plugins
from vcld.guest.interface import Guest, Tools
from vcld.provisioning.interface import Provisioner
from vcld.snapshot import Reservation

#: ``module.name`` of provisioning.moduleid → "python.module:Class".
PROVISIONERS: Mapping[str, str] = MappingProxyType(
    {
        "provisioning_simulator": "vcld.provisioning.simulator:SimulatorProvisioner",
    }
)


def make_provisioner(reservation: Reservation, guest: Guest, tools: Tools) -> Provisioner:
    """Make the provisioner of the reservation's computer.

    Raises:
        UnknownModuleError: no plugin has the name.
    """
    name = reservation.computer.provisioning_module
    cls = plugins.find_class("vcld.provisioning", PROVISIONERS, name, Provisioner)  # type: ignore[type-abstract]
    return cls(reservation, guest, tools)
