"""What DHCP servers say of a node."""

from __future__ import annotations

import pytest

from vcld.provisioning.xcat.dhcplog import addresses, kinds

MAC = "42:20:0a:04:1e:0d"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"Nov 21 08:00:00 mn dhcpd[812]: DHCPACK on 10.0.0.5 to {MAC} via eth1", "DHCPACK"),
        (f"Nov 21 08:00:00 mn dhcpd: DHCPDISCOVER from {MAC.upper()} via eth1", "DHCPDISCOVER"),
        (f"dnsmasq-dhcp[9]: DHCPREQUEST(eth1) 10.0.0.5 {MAC}", "DHCPREQUEST"),
        (
            f"INFO  [kea-dhcp4.leases/812.1404] DHCP4_LEASE_ALLOC [hwtype=1 {MAC}], cid=[no info],"
            " tid=0x1: lease 10.0.0.5 has been allocated for 43200 seconds",
            "DHCP4_LEASE_ALLOC",
        ),
    ],
)
def test_each_servers_messages_are_seen(line: str, kind: str) -> None:
    assert kinds([line, f"kernel: {MAC} martian source"], addresses(MAC)) == [kind]
    assert kinds([line], addresses("42:20:0a:04:1e:ff")) == []
    assert kinds([line], addresses("")) == []


def test_a_node_of_several_interfaces_is_known_by_each() -> None:
    """As lsdef shows one in xCAT's issue 6311."""
    mac = f"02:00:00:00:00:01|{MAC.upper()}!*NOIP*|42:92:0a:04:1e:0d!blade1-ib"
    assert addresses(mac) == ["02:00:00:00:00:01", MAC, "42:92:0a:04:1e:0d"]
    assert kinds([f"DHCPACK on 10.0.0.5 to {MAC} via eth1"], addresses(mac)) == ["DHCPACK"]
