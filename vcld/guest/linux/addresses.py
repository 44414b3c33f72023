"""Addresses and names from the site's rows: static networks, time servers, NFS shares."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import yaml

from vcld.errors import Blame, RemoteError
from vcld.snapshot import ManagementNode, Reservation

Variables = Callable[[str], str | None]
#: Prefix of an IPv4 network that the site does not say.
DEFAULT_PREFIX = 24


def _prefix(netmask: str | None) -> int:
    try:
        return ipaddress.ip_network(f"0.0.0.0/{netmask}").prefixlen if netmask else DEFAULT_PREFIX
    except ValueError as err:
        raise RemoteError(f"{netmask!r} is no netmask", blame=Blame.MANAGEMENT_NODE) from err


def _servers(text: str | None) -> list[str]:
    found = []
    for word in re.split(r"[\s,;]+", text or ""):
        try:
            found.append(str(ipaddress.ip_address(word)))
        except ValueError:
            continue
    return found


def public_address(name: str, address: str | None) -> str:
    """The address of a computer's row, which a site's own tools may have filled.

    Raises:
        RemoteError: it is no IPv4 address.
    """
    try:
        return str(ipaddress.IPv4Address((address or "").strip()))
    except ValueError as err:
        msg = f"{address!r}, the public address of {name}, is no IPv4 address: mend its row"
        raise RemoteError(msg, blame=Blame.MANAGEMENT_NODE) from err


def static_network(address: str, node: ManagementNode) -> tuple[str, int, str, str]:
    """Address, prefix, router (or empty) and DNS servers of ``publicIPconfiguration`` static."""
    router = " ".join(_servers(node.publicDefaultGateway)[:1])
    dns = " ".join(_servers(node.publicDNSserver))
    return address, _prefix(node.publicSubnetMask), router, dns


def fixed_network(address: str, variable: str | None) -> tuple[str, int, str, str]:
    """The same of a server request's fixed address, from its variable ``fixedIPsr<id>``.

    Raises:
        RemoteError: the variable is missing or not what the web site writes.
    """
    try:
        facts = yaml.safe_load(variable or "")
        address = str(ipaddress.IPv4Address(address))
    except (yaml.YAMLError, ValueError) as err:
        raise RemoteError("the fixed address is none", blame=Blame.MANAGEMENT_NODE) from err
    if not isinstance(facts, dict):
        msg = f"the site does not say the network of the fixed address {address}"
        raise RemoteError(msg, blame=Blame.MANAGEMENT_NODE)
    dns = facts.get("dns")
    text = " ".join(map(str, dns)) if isinstance(dns, list) else str(dns or "")
    router = " ".join(_servers(str(facts.get("router") or ""))[:1])
    return address, _prefix(str(facts.get("netmask") or "")), router, " ".join(_servers(text))


def time_servers(node: ManagementNode, variables: Variables) -> list[str]:
    """Names of time servers for the node's computers; empty: the image's own are kept."""
    text = variables(f"timesource|{node.hostname}") or variables("timesource|global") or ""
    words = re.split(r"[\s,;]+", text)
    return [word for word in words if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]*", word)]


def shares(reservation: Reservation, variables: Variables) -> list[tuple[str, str]]:
    """NFS shares for the user: (host:path, folder on the computer).

    The variable ``nfsmount|<node id>`` holds ``host:remote,local`` entries separated by ``;``;
    ``[user_login_id]`` stands for the login.
    """
    text = variables(f"nfsmount|{reservation.managementnode.id}") or ""
    login = reservation.request.user.login
    found = []
    for entry in text.replace("[user_login_id]", login).split(";"):
        remote, _, local = entry.strip().partition(",")
        if ":" in remote and local.strip().startswith("/") and not re.search(r"\s", entry.strip()):
            found.append((remote.strip(), local.strip()))
    return found
