"""Forwarding public ports of a NAT host to the computer behind it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from vcld.errors import Blame, RemoteError
from vcld.guest.interface import Tools
from vcld.guest.linux.firewall import FORWARDED
from vcld.guest.linux.script import Script
from vcld.guest.linux.script import run as run_script
from vcld.remote.endpoint import Endpoint
from vcld.remote.remote import Remote
from vcld.snapshot import ConnectMethod, NATHost, Reservation

#: Changing rules takes no longer, even while others hold the lock.
LIMIT_SECONDS = 90


class NatForwards:
    """The forwards of one computer on its NAT host, which is reached like a computer."""

    def __init__(self, reservation: Reservation, host: NATHost, tools: Tools) -> None:
        self._reservation = reservation
        self._host = host
        self._tools = tools
        #: Names the computer's table there; a computer has one reservation at a time.
        self._name = f"vcldnat{reservation.computer.id}"

    def open(self, methods: Sequence[ConnectMethod]) -> None:
        """Forward the reservation's public ports of these connect methods.

        Raises:
            RemoteError: the NAT host cannot be reached or takes no rules.
        """
        ports = [
            forward for method in methods if not method.disabled for forward in method.nat_ports
        ]
        if not ports:
            self.close()
            return
        public, inside = self._host.publicIPaddress, self._reservation.computer.IPaddress
        try:
            public, inside = (str(ipaddress.IPv4Address(text)) for text in (public, inside))
        except ValueError as err:
            msg = f"NAT host {public!r} or its computer {inside!r} has no IPv4 address"
            raise RemoteError(msg, blame=Blame.MANAGEMENT_NODE) from err
        numbers = " ".join(str(port) for port, _, _ in ports)
        self._run(
            Script().call(
                "nat_set",
                self._name,
                inside,
                numbers,
                nft(self._name, public, inside, ports),
                iptables(self._name, public, inside, ports),
            )
        )

    def close(self) -> None:
        """Take every forward of the computer away.

        Raises:
            RemoteError: the NAT host cannot be reached.
        """
        self._run(Script().call("nat_remove", self._name))

    def _run(self, script: Script) -> None:
        host, tools = self._host, self._tools
        address = host.privateIPaddress or host.internalIPaddress or host.publicIPaddress
        endpoint = Endpoint(
            name=host.hostname or host.publicIPaddress,
            address=address,
            keys=self._reservation.managementnode.keys,
        )
        id_ = host.computerid
        remote = Remote(
            endpoint,
            tools.host_keys(f"computer {id_}" if id_ else f"nathost {host.id}"),
            tools.cancellation,
            connect_seconds=tools.settings.ssh_connect_timeout_seconds,
            log=tools.log,
        )
        try:
            run_script(remote, script, tools.log, limit_seconds=LIMIT_SECONDS)
        except RemoteError as err:
            # The computer is not at fault.
            raise RemoteError(str(err), blame=Blame.MANAGEMENT_NODE) from err
        finally:
            remote.close()


def nft(name: str, public: str, inside: str, ports: Sequence[tuple[int, int, str]]) -> str:
    """A table of its own; ``ports`` are (public port, the computer's port, protocol)."""
    to = [
        f"ip daddr {public} {protocol.lower()} dport {outer} ct mark set {FORWARDED:#x}"
        f" dnat to {inside}:{inner}"
        for outer, inner, protocol in ports
    ]
    through = [f"ip daddr {inside} {p.lower()} dport {inner} accept" for _, inner, p in ports]
    chains = (
        ("prerouting", "type nat hook prerouting priority -100;", to),
        ("forward", "type filter hook forward priority -5;", through),
        (
            "postrouting",
            "type nat hook postrouting priority 100;",
            [f'ip saddr {inside} oifname != "@DEVICE@" masquerade'],
        ),
    )
    body = "\n".join(
        f"    chain {chain} {{\n        {kind}\n"
        + "".join(f"        {rule}\n" for rule in rules)
        + "    }"
        for chain, kind, rules in chains
    )
    return f"table ip {name}\ndelete table ip {name}\ntable ip {name} {{\n{body}\n}}"


def iptables(name: str, public: str, inside: str, ports: Sequence[tuple[int, int, str]]) -> str:
    """The same for ``iptables-restore --noflush``."""
    lines = ["*nat", f":{name}-in - [0:0]", f":{name}-out - [0:0]"]
    lines += [
        f"-A {name}-in -d {public} -p {protocol.lower()} --dport {outer}"
        f" -j DNAT --to-destination {inside}:{inner}"
        for outer, inner, protocol in ports
    ]
    lines += [f"-A {name}-out -s {inside} ! -o @DEVICE@ -j MASQUERADE", "COMMIT"]
    lines += ["*filter", f":{name}-fwd - [0:0]"]
    lines += [
        f"-A {name}-fwd -d {inside} -p {protocol.lower()} --dport {inner} -j ACCEPT"
        for _, inner, protocol in ports
    ]
    lines += [f"-A {name}-fwd -s {inside} -j ACCEPT", "COMMIT"]
    return "\n".join(lines)
