"""Images from newer hosts.

vcsim says that it makes version 13 of virtual hardware. It takes any guest id when it creates a
VM; here its front refuses one, as hosts do that do not know it.
"""

from __future__ import annotations

from typing import Any

import pytest
from pyVim.connect import Disconnect
from pyVmomi import vim

from tests import esxi_fixtures
from tests.daemon import Daemons, eventually
from tests.esxi_site import FIRST, EsxiSite, daemon_keys

mode, hosts, site = esxi_fixtures.mode, esxi_fixtures.hosts, esxi_fixtures.site
daemons = esxi_fixtures.daemons


def load_with_reference(site: EsxiSite, daemons: Daemons, *lines: str) -> tuple[str, str]:
    """Load an image with a vmx file of these lines; hardware version and guest id of the VM."""
    (site.repository / FIRST / f"{FIRST}.vmx.reference").write_text("\n".join(lines) + "\n")
    daemon = daemons.start(**daemon_keys(site))
    request = site.ask("reload", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available", daemon.describe()
    session = site.vcsim.connect()
    try:
        content = session.RetrieveContent()
        kind: Any = vim.VirtualMachine
        view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
        (found,) = (vm.config for vm in view.view if vm.name == f"vm1_{FIRST}")
        return found.version, found.guestId
    finally:
        Disconnect(session)


@pytest.mark.parametrize(("version", "made"), [("19", "vmx-13"), ("13", "vmx-13"), ("7", "vmx-13")])
@esxi_fixtures.both_modes
def test_vm_gets_a_version_of_hardware_that_its_host_makes(
    site: EsxiSite, daemons: Daemons, version: str, made: str
) -> None:
    found = load_with_reference(site, daemons, f'virtualHW.version = "{version}"')

    assert found[0] == made


@pytest.mark.parametrize("disk", ["linked", "clone"])
@pytest.mark.parametrize("mode", ["vc"], indirect=True)
def test_vm_of_a_guest_that_its_host_does_not_know_is_of_a_generic_one(
    site: EsxiSite, daemons: Daemons, disk: str
) -> None:
    site.variable("vmware|disk", disk)
    site.vcsim.rules(
        {
            "method": "C*VM_Task",
            "match": "debian12_64Guest",
            "action": "error",
            "fault": "InvalidArgument:configSpec.guestId",
        }
    )

    _, guest = load_with_reference(site, daemons, 'guestOS = "debian12-64"')

    assert guest == "otherLinux64Guest"


def test_vm_of_a_guest_that_its_host_knows_is_of_that(site: EsxiSite, daemons: Daemons) -> None:
    assert load_with_reference(site, daemons, 'guestOS = "rhel7-64"')[1] == "rhel7_64Guest"
