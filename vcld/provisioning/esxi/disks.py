"""How a VM gets its disk, as profile and image choose it."""

from __future__ import annotations

import enum

from vcld.errors import Blame, FatalProvisioningError
from vcld.guest.interface import Tools
from vcld.provisioning.esxi.host import Host
from vcld.snapshot import VMHost


class DiskMode(enum.StrEnum):
    """The kinds of disks that a load can make."""

    #: A delta disk whose parent is the master; made with the VM.
    LINKED = "linked"
    #: A copy of the master: what servers always get.
    COPY = "copy"
    #: A linked clone by vCenter, of a VM that stands for the master.
    CLONE = "clone"


def choose(host: Host) -> DiskMode:
    """The kind of disk for the reservation; a server gets one of its own.

    Raises:
        FatalProvisioningError: the site wants what there is not, or clones without a vCenter.
    """
    if host.reservation.request.is_server:
        return DiskMode.COPY
    named = wanted(host.tools, host.vmhost, host.reservation.image.id)
    if named is None:
        return DiskMode.LINKED
    name, mode = named
    if mode is DiskMode.CLONE and not host.session.is_vcenter:
        raise no_vcenter(name, host.vmhost)
    return mode


def wanted(tools: Tools, vmhost: VMHost, imageid: int | None) -> tuple[str, DiskMode] | None:
    """What the site's variables say, and which of them; None when they say nothing.

    The first that is set counts: ``vmware|disk|image|ID``, ``vmware|disk|profile|NAME``,
    ``vmware|disk``.

    Raises:
        FatalProvisioningError: it says what is no kind of disk.
    """
    of_profile = f"vmware|disk|profile|{vmhost.profile.profilename}"
    names = [of_profile, "vmware|disk"]
    if imageid is not None:
        names.insert(0, f"vmware|disk|image|{imageid}")
    for name in names:
        value = (tools.variables(name) or "").strip()
        if not value:
            continue
        try:
            return name, DiskMode(value)
        except ValueError as err:
            raise FatalProvisioningError(
                f"variable {name} is {value!r}, but disks are: {', '.join(DiskMode)}",
                blame=Blame.VMHOST,
            ) from err
    return None


def no_vcenter(variable: str, vmhost: VMHost) -> FatalProvisioningError:
    """The error for a clone that nobody can make."""
    return FatalProvisioningError(
        f"variable {variable} asks for clones, which {vmhost.hostname} cannot make: it is no"
        " vCenter",
        blame=Blame.VMHOST,
    )
