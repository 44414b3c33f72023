"""Creating VMs, on hosts that may be older than the one that an image was made on."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from pyVmomi import vmodl

from vcld.errors import BackendUnavailableError, Blame, ProvisioningError
from vcld.provisioning.esxi import faults, spec
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.marker import Hardware

_VERSION = re.compile(r"vmx-(\d+)")


def fit(host: Host, hardware: Hardware) -> Hardware:
    """The hardware with the version that a VM can be created with here.

    It is the image's own, or else the newest before it, or else the oldest that there is: one
    that a host does not know is refused, and not always with a word about why.
    """
    if not hardware.version:
        return hardware
    place = host.inventory
    known = {
        one.key: _number(one.key)
        for one in place.browser.QueryConfigOptionDescriptor()
        if one.createSupported is not False
        and (place.host is None or not one.host or place.host in one.host)
    }
    if not known or hardware.version in known:
        return hardware
    wanted = _number(hardware.version)
    older = [key for key, number in known.items() if number < wanted]
    chosen = max(older, key=known.__getitem__) if older else min(known, key=known.__getitem__)
    host.tools.log.info(
        "the VM host does not make the image's version of virtual hardware",
        version=hardware.version,
        taken=chosen,
    )
    return dataclasses.replace(hardware, version=chosen)


def create(host: Host, config: Any, what: str) -> Any:
    """Create a VM and return its reference; a guest id that the host does not know is replaced.

    Raises:
        BackendUnavailableError: a disk it is to have has gone meanwhile.
        ProvisioningError: it cannot be made.
    """
    try:
        return _create(host, config, what)
    except ProvisioningError as err:
        if "guestid" not in str(getattr(err.__cause__, "invalidProperty", "")).lower():
            raise
    generic = spec.generic_guest(host.reservation.image, config.guestId)
    host.tools.log.warning(
        "the VM host does not know the image's guest operating system",
        guest_id=config.guestId,
        taken=generic,
    )
    config.guestId = generic
    return _create(host, config, what)


def _create(host: Host, config: Any, what: str) -> Any:
    place = host.inventory
    try:
        return host.client.run_task(
            lambda: place.folder.CreateVM_Task(config, place.pool, place.host),
            what,
            limit_seconds=host.tools.settings.vsphere_task_timeout_seconds,
        )
    except faults.GONE as fault:
        # The master was removed between look and link: look again.
        text = f"{what}: {faults.describe(fault)}"
        raise BackendUnavailableError(text, blame=Blame.NOBODY) from fault
    except vmodl.MethodFault as fault:
        raise faults.translate(fault, what) from fault


def _number(version: str) -> int:
    found = _VERSION.fullmatch(version)
    return int(found[1]) if found else 0
