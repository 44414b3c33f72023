"""Does a stand-alone host's licence let programs do anything but read?

The free one does not: the first change is refused with RestrictedVersion, after everything has
looked well. Its edition is ``esxBasic``, and its name ends in "Hypervisor"; paid ones are named
after their editions.
"""

from __future__ import annotations

from typing import Any

from pyVmomi import vmodl

from vcld.provisioning.esxi.client import Client


def check(client: Client) -> tuple[str, bool]:
    """What to tell of the licence, and whether it is enough."""
    try:
        facts = client.read_one(client.content.licenseManager, "licenses")
    except (vmodl.MethodFault, AttributeError):
        facts = {}
    found = facts.get("licenses", ())
    if not found:
        return "the server does not tell it; the first load will", True
    names = ", ".join(one.name or one.editionKey for one in found)
    if all(_is_free(one) for one in found):
        return f"{names}: it lets programs only read, enter another on the host", False
    return names, True


def _is_free(licence: Any) -> bool:
    edition, name = (licence.editionKey or "").lower(), (licence.name or "").lower()
    return edition == "esxbasic" or "free" in edition or name.endswith("hypervisor")
