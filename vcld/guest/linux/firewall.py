"""The firewall of a Linux computer: what a stage lets in, said to nftables, iptables, firewalld.

Only what is named here gets in: the management node, the connect methods' ports, the members
of a cluster, replies, ping and DHCP. Ports of connect methods, and SSH, are closed even to
connections that were open before. ``@NODE4@`` and ``@NODE6@`` become the management node's
address as the computer sees it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from vcld.snapshot import ConnectMethod

SSH = (22, "tcp")
NODE4, NODE6 = "@NODE4@", "@NODE6@"
#: Marks the connections that a NAT host of vcld's forwards.
FORWARDED = 0x76636C
#: Cards of a computer's own containers and machines; what they ask of one another is theirs.
INNER_CARDS = ("docker", "br-", "virbr", "cni", "podman", "lxc", "veth")


@dataclass(frozen=True, slots=True)
class Opening:
    """A port, and the one address it is open to; None: any."""

    port: int
    protocol: str
    source: str | None = None


#: SSH for anybody: only in an image, which does not know its management node yet.
ANY_SSH = Opening(*SSH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a stage lets in."""

    openings: tuple[Opening, ...] = ()
    #: Addresses that may do anything: the other computers of a cluster.
    members: tuple[str, ...] = ()
    #: Further addresses of the management node.
    nodes: tuple[str, ...] = ()
    #: False for an image, which will meet another node.
    trusts_node: bool = True


def openings_for(methods: Sequence[ConnectMethod], source: str | None) -> tuple[Opening, ...]:
    """The ports of the connect methods that are not disabled.

    Raises:
        ValueError: ``source`` is not an address.
    """
    if source is not None:
        source = str(ipaddress.ip_address(source))
    ports = {
        (port, protocol.lower())
        for method in methods
        if not method.disabled
        for port, protocol in method.ports
    }
    return tuple(Opening(port, protocol, source) for port, protocol in sorted(ports))


def addresses(*texts: str | None) -> tuple[str, ...]:
    """Those that are IP addresses, each once, in order."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[str(ipaddress.ip_address((text or "").strip()))] = None
        except ValueError:
            continue
    return tuple(found)


def renderings(policy: Policy) -> tuple[str, str, str, str]:
    """The policy for nftables, iptables, ip6tables and firewalld; the computer takes its own."""
    return nft(policy), iptables(policy, 4), iptables(policy, 6), zone(policy)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _guarded(policy: Policy) -> list[tuple[int, str]]:
    return sorted({SSH, *((o.port, o.protocol) for o in policy.openings)})


def _trusted(policy: Policy, version: int) -> list[str]:
    node = [NODE4 if version == 4 else NODE6] if policy.trusts_node else []
    return [*node, *(a for a in (*policy.nodes, *policy.members) if _version(a) == version)]


def nft(policy: Policy) -> str:
    """A file for ``nft -f``: the table is replaced in one transaction."""
    rules = ['iif "lo" accept']
    for version, family in ((4, "ip"), (6, "ip6")):
        rules += [f"{family} saddr {address} accept" for address in _trusted(policy, version)]
    for opening in policy.openings:
        rules.append(f"{_source(opening)}{opening.protocol} dport {opening.port} accept")
    rules += [f"{protocol} dport {port} drop" for port, protocol in _guarded(policy)]
    rules += [
        "ct state established,related accept",
        "meta l4proto icmp accept",
        "meta l4proto ipv6-icmp accept",
        "udp dport { 68, 546 } accept",
    ]
    chains = (
        ("input", "type filter hook input priority -5; policy drop;", rules),
        ("forward", "type filter hook forward priority -5; policy accept;", _published(policy)),
    )
    body = "\n".join(
        f"    chain {name} {{\n        {kind}\n"
        + "".join(f"        {rule}\n" for rule in lines)
        + "    }"
        for name, kind, lines in chains
    )
    return f"table inet vcld\ndelete table inet vcld\ntable inet vcld {{\n{body}\n}}"


def _published(policy: Policy) -> list[str]:
    """What comes to a port of the computer's that its containers publish is sent on, not let in."""
    rules = ["ct direction reply accept", f"ct mark {FORWARDED:#x} accept"]
    rules += [f'iifname "{card}*" accept' for card in INNER_CARDS]
    for version, family in ((4, "ip"), (6, "ip6")):
        rules += [f"{family} saddr {address} accept" for address in _trusted(policy, version)]
    for opening in policy.openings:
        port = f"meta l4proto {opening.protocol} ct original proto-dst {opening.port} accept"
        rules.append(f"{_source(opening)}{port}")
    return [*rules, "ct status dnat drop"]


def _source(opening: Opening) -> str:
    if not opening.source:
        return ""
    return f"ip{'6' if _version(opening.source) == 6 else ''} saddr {opening.source} "


def iptables(policy: Policy, version: int) -> str:
    """A file for ``iptables-restore --noflush``, or its sister for IPv6."""
    rules = ["-i lo -j ACCEPT"]
    rules += [f"-s {address} -j ACCEPT" for address in _trusted(policy, version)]
    for opening in policy.openings:
        if opening.source and _version(opening.source) != version:
            continue
        source = f"-s {opening.source} " if opening.source else ""
        rules.append(f"{source}-p {opening.protocol} --dport {opening.port} -j ACCEPT")
    rules += [f"-p {protocol} --dport {port} -j DROP" for port, protocol in _guarded(policy)]
    rules += [
        "-m state --state ESTABLISHED,RELATED -j ACCEPT",
        f"-p {'icmp' if version == 4 else 'ipv6-icmp'} -j ACCEPT",
        f"-p udp --dport {68 if version == 4 else 546} -j ACCEPT",
        "-j DROP",
    ]
    lines = ["*filter", ":vcld-input - [0:0]", *(f"-A vcld-input {rule}" for rule in rules)]
    return "\n".join([*lines, "COMMIT"])


def zone(policy: Policy) -> str:
    """A zone of firewalld that every address belongs to."""
    rules = []
    for version in (4, 6):
        rules += [
            f'<rule family="ipv{version}"><source address="{address}"/><accept/></rule>'
            for address in _trusted(policy, version)
        ]
    for opening in policy.openings:
        port = f'<port port="{opening.port}" protocol="{opening.protocol}"/>'
        if opening.source is None:
            rules.append(port)
        else:
            family = f"ipv{_version(opening.source)}"
            source = f'<source address="{opening.source}"/>'
            rules.append(f'<rule family="{family}">{source}{port}<accept/></rule>')
    rules += [
        '<rule><protocol value="icmp"/><accept/></rule>',
        '<rule><protocol value="ipv6-icmp"/><accept/></rule>',
        '<service name="dhcpv6-client"/>',
    ]
    body = "\n".join(f"  {rule}" for rule in rules)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<zone target="DROP">\n'
        "  <short>vcld</short>\n  <description>Made by vcld; changes are lost.</description>\n"
        f'  <source address="0.0.0.0/0"/>\n  <source address="::/0"/>\n{body}\n</zone>'
    )
