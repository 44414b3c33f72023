"""Provisioners, by the module name of the VCL schema."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from vcld import plugins
from vcld.errors import UnknownModuleError
from vcld.guest.interface import Guest, Tools
from vcld.provisioning.interface import Provisioner
from vcld.provisioning.probing import HostProbe
from vcld.snapshot import Reservation

#: ``module.name`` of provisioning.moduleid → "python.module:Class".
PROVISIONERS: Mapping[str, str] = MappingProxyType(
    {
        "base_module": "vcld.provisioning.fixed:FixedProvisioner",
        "provisioning_lab": "vcld.provisioning.fixed:LabProvisioner",
        "provisioning_vmware": "vcld.provisioning.esxi.provisioner:EsxiProvisioner",
        "provisioning_simulator": "vcld.provisioning.simulator:SimulatorProvisioner",
        "provisioning_xcat": "vcld.provisioning.xcat.provisioner:XcatProvisioner",
    }
)


def make_provisioner(reservation: Reservation, guest: Guest, tools: Tools) -> Provisioner:
    """Make the provisioner of the reservation's computer.

    Raises:
        UnknownModuleError: no plugin has the name.
    """
    cls = _find_class(reservation.computer.provisioning_module)
    return cls(reservation, guest, tools)


def find_probe(module: str) -> type[HostProbe] | None:
    """The probe of a provisioner, by the module's name; None where there is no such thing."""
    try:
        return _find_class(module).probe
    except UnknownModuleError:  # told of by the reservation that needs it
        return None


def _find_class(module: str | None) -> type[Provisioner]:
    found = plugins.find_class("vcld.provisioning", PROVISIONERS, module, Provisioner)  # type: ignore[type-abstract]
    return cast("type[Provisioner]", found)
