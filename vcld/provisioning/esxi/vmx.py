"""Reading the vmx file that the Perl daemon keeps beside an image as its ``.vmx.reference``."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from pyVmomi import vim

from vcld.provisioning.esxi.marker import Hardware

_LINE = re.compile(r'^\s*([\w.:]+)\s*=\s*"([^"]*)"', re.MULTILINE)
#: Older ones have neither the controllers nor the cards of today (specification §8.6).
OLDEST_VERSION = 7
CONTROLLERS = {
    "pvscsi": "ParaVirtualSCSIController",
    "lsisas1068": "VirtualLsiLogicSASController",
    "lsilogic": "VirtualLsiLogicController",
    "buslogic": "VirtualBusLogicController",
    "ide": "VirtualIDEController",
}
CARDS = {
    "vmxnet3": "VirtualVmxnet3",
    "e1000e": "VirtualE1000e",
    "e1000": "VirtualE1000",
    "vlance": "VirtualPCNet32",
}
#: guestOS of a vmx file → guestId of the API, where no rule below makes it.
GUEST_IDS = {
    "windows7srv-64": "windows7Server64Guest",
    "windows8srv-64": "windows8Server64Guest",
    "windows9srv-64": "windows9Server64Guest",
    "otherlinux-64": "otherLinux64Guest",
    "otherlinux": "otherLinuxGuest",
    "other-64": "otherGuest64",
    "other26xlinux-64": "other26xLinux64Guest",
    "ubuntu-64": "ubuntu64Guest",
    "centos-64": "centos64Guest",
    "windows7-64": "windows7_64Guest",
    "winxppro": "winXPProGuest",
}


def hardware_of(text: str) -> Hardware:
    """What a vmx file says of the VM's hardware."""
    facts = {key.lower(): value.lower() for key, value in _LINE.findall(text)}
    adapter = facts.get("scsi0.virtualdev", "")
    if not adapter and facts.get("ide0:0.filename", "").endswith(".vmdk"):
        adapter = "ide"
    return Hardware(
        guest_id=guest_id_of(facts.get("guestos", "")),
        controller=CONTROLLERS.get(adapter, ""),
        card=CARDS.get(facts.get("ethernet0.virtualdev", ""), ""),
        firmware=facts.get("firmware", ""),
        version=f"vmx-{max(OLDEST_VERSION, int(number)):02d}"
        if (number := facts.get("virtualhw.version", "")).isdigit()
        else "",
    )


def guest_id_of(guestos: str) -> str:
    """The API's name of what a vmx file calls ``guestOS``; empty when it has none."""
    if not guestos:
        return ""
    if guestos in GUEST_IDS:
        return GUEST_IDS[guestos]
    return _ids().get(_plain(f"{guestos}guest"), "")


@functools.cache
def _ids() -> Mapping[str, str]:
    """The API's own list, by ids without what the two ways of writing differ in."""
    return {_plain(one): one for one in vim.vm.GuestOsDescriptor.GuestOsIdentifier.values}


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name.lower())


def text_of(imagename: str, hardware: Hardware) -> str:
    """A vmx file that says no more than what is known of the hardware.

    What ``hardware_of`` makes of it is the hardware again, except for a guest that the API and
    vmx files call by different names which no table holds.
    """
    facts = {
        "displayName": imagename,
        "guestOS": guestos_of(hardware.guest_id),
        "virtualHW.version": hardware.version.removeprefix("vmx-").lstrip("0"),
        "firmware": hardware.firmware,
        "ethernet0.virtualDev": _key_of(CARDS, hardware.card),
        "scsi0.virtualDev": _key_of(CONTROLLERS, hardware.controller),
    }
    if facts["scsi0.virtualDev"] == "ide":
        facts["scsi0.virtualDev"] = ""
        facts["ide0:0.fileName"] = f"{imagename}.vmdk"
    lines = [f'{key} = "{value}"' for key, value in facts.items() if value]
    return "\n".join(["#!/usr/bin/vmware", *lines, ""])


def guestos_of(guest_id: str) -> str:
    """What a vmx file calls a guest of the API."""
    known = _key_of(GUEST_IDS, guest_id)
    plain = guest_id.removesuffix("Guest").lower()
    return known or re.sub(r"_?64$", "-64", plain).replace("_", "-")


def _key_of(table: Mapping[str, str], value: str) -> str:
    return next((key for key, one in table.items() if one == value), "")
