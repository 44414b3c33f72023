"""Reading who is connected from what ``ss``, ``who`` and ``ps`` say on the computer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vcld.guest.interface import UserConnection
from vcld.guest.linux.script import Facts
from vcld.snapshot import ConnectMethod

#: Accounts of services, which no user is.
SYSTEM_USERS = frozenset({"root", "sshd", "nobody", "xrdp"})
_PID = re.compile(r'\("([^"]*)",pid=(\d+)')
_NETSTAT_PID = re.compile(r"(\d+)/(\S+)")


@dataclass(frozen=True, slots=True)
class Socket:
    """An established TCP connection to the computer."""

    port: int
    peer: str
    #: (program, pid) of the processes that hold it; empty when that is not known.
    holders: tuple[tuple[str, int], ...] = ()


def parse_socket(line: str) -> Socket | None:
    """A line of ``ss -Htnp state established``; None when it is none."""
    fields = line.split(None, 4)
    if len(fields) < 4:
        return None
    local, peer = fields[2], fields[3]
    try:
        port = int(local.rpartition(":")[2])
        address = ipaddress.ip_address(peer.rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    rest = fields[4] if len(fields) > 4 else ""
    holders = tuple((name, int(pid)) for name, pid in _PID.findall(rest))
    if not holders:
        holders = tuple((name, int(pid)) for pid, name in _NETSTAT_PID.findall(rest))
    return Socket(port, str(mapped or address), holders)


def parse_networks(text: str | None) -> Callable[[str], bool]:
    """A test for the addresses and networks that a site's variable names; nonsense is left out."""
    networks = []
    for word in re.split(r"[\s,;]+", text or ""):
        try:
            networks.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            continue
    return lambda address: any(ipaddress.ip_address(address) in network for network in networks)


def find_user(
    facts: Facts,
    methods: Sequence[ConnectMethod],
    *,
    login: str,
    remote_ip: str | None,
    is_ignored: Callable[[str], bool],
) -> UserConnection | None:
    """The connection of a user by any of the connect methods.

    A connection counts when a process of the user's holds it, from wherever; when it comes
    from the user's address; and, from another, when the user is logged in. One of ``sshd``
    counts only once somebody has authenticated on it.
    """
    ports = {
        port
        for method in methods
        if not method.disabled
        for port, protocol in method.ports
        if protocol.upper() == "TCP"
    }
    owners = _owners(facts.all("process"))
    logged_in = login in {line.split()[0] for line in facts.all("who") if line.split()}
    found = [socket for socket in map(parse_socket, facts.all("socket")) if socket is not None]
    # A connection that nobody has accepted yet has no holder: no program has asked who it is.
    tells_holders = any(socket.holders for socket in found)
    sockets = [
        socket
        for socket in found
        if socket.port in ports
        and not is_ignored(socket.peer)
        and (socket.holders or not tells_holders)
    ]
    for socket in sockets:
        if login in _users(socket, owners):
            return UserConnection(socket.peer, verified=True)
    for socket in sockets:
        users = _users(socket, owners)
        is_ssh = any(program == "sshd" for program, _ in socket.holders)
        if is_ssh and not users - SYSTEM_USERS:
            continue  # still at the password
        if socket.peer == remote_ip or (logged_in and not is_ssh):
            return UserConnection(socket.peer, verified=False)
    return None


def _owners(lines: Iterable[str]) -> dict[int, str]:
    found = {}
    for line in lines:
        pid, _, user = line.partition(" ")
        if pid.isdecimal():
            found[int(pid)] = user.strip()
    return found


def _users(socket: Socket, owners: dict[int, str]) -> set[str]:
    return {owners.get(pid, "root") for _, pid in socket.holders}
