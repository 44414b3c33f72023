"""How a VM gets its disk, as profile and image choose it."""

from __future__ import annotations

import enum

from vcld.errors import Blame, FatalProvisioningError
from vcld.provisioning.esxi.host import Host


class DiskMode(enum.StrEnum):
    """The kinds of disks that a load can make."""

    #: A delta disk whose parent is the master; made with the VM.
    LINKED = "linked"
    #: A copy of the master: what servers always get.
    COPY = "copy"
    #: A linked clone by vCenter, of a VM that stands for the master.
    CLONE = "clone"


def choose(host: Host) -> DiskMode:
    """The kind of disk for the reservation.

    A server gets a disk of its own. Else the site decides by a variable for the image, or for
    the profile, or for all: ``vmware|disk|image|ID``, ``vmware|disk|profile|NAME``,
    ``vmware|disk``.

    Raises:
        FatalProvisioningError: the variable says what is none, or a clone without a vCenter.
    """
    if host.reservation.request.is_server:
        return DiskMode.COPY
    profile = host.vmhost.profile
    for name in (
        f"vmware|disk|image|{host.reservation.image.id}",
        f"vmware|disk|profile|{profile.profilename}",
        "vmware|disk",
    ):
        value = (host.tools.variables(name) or "").strip()
        if not value:
            continue
        try:
            mode = DiskMode(value)
        except ValueError as err:
            raise FatalProvisioningError(
                f"variable {name} is {value!r}, but disks are: {', '.join(DiskMode)}",
                blame=Blame.VMHOST,
            ) from err
        if mode is DiskMode.CLONE and not host.session.is_vcenter:
            raise FatalProvisioningError(
                f"variable {name} asks for clones, which {host.vmhost.hostname} cannot make: it"
                " is no vCenter",
                blame=Blame.VMHOST,
            )
        return mode
    return DiskMode.LINKED
