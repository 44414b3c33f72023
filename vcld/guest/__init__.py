"""Operating systems on the computers, by the module name of the VCL schema."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vcld import plugins
from vcld.guest.interface import Guest, Tools
from vcld.snapshot import Reservation

#: ``module.name`` of OS.moduleid → "python.module:Class".
GUESTS: Mapping[str, str] = MappingProxyType(
    {
        "os_simulator": "vcld.guest.simulator:SimulatorGuest",
        "os_linux": "vcld.guest.linux.guest:LinuxGuest",
        "os_linux_ubuntu": "vcld.guest.linux.guest:LinuxGuest",
        "os_unix_lab": "vcld.guest.linux.lab:LabGuest",
        **dict.fromkeys(
            (
                "os_windows",
                "os_winxp",
                "os_win2003",
                "os_winvista",
                "os_win2008",
                "os_win7",
                "os_win8",
                "os_win2012",
                "os_win10",
                "os_win2016",
            ),
            "vcld.guest.windows.guest:WindowsGuest",
        ),
    }
)


def make_guest(reservation: Reservation, tools: Tools) -> Guest:
    """Make the guest of the reservation's image.

    Raises:
        UnknownModuleError: no plugin has the name, or the OS row names none.
    """
    cls = plugins.find_class("vcld.guest", GUESTS, reservation.image.os_module, Guest)  # type: ignore[type-abstract]
    return cls(reservation, tools)
