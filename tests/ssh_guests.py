"""Linux guests for tests that need a real host, but no daemon and no database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from tests.samples import make_node, make_reservation, make_user
from tests.ssh_hosts import Host
from vcld import snapshot
from vcld.config import Settings
from vcld.guest.interface import Tools
from vcld.guest.linux.guest import LinuxGuest
from vcld.remote.identity import MemoryHostKeys
from vcld.snapshot import Account, ConnectMethod, Reservation
from vcld.waiting import Cancellation

SSH = ConnectMethod(
    id=1, name="SSH", description="", connecttext="", servicename="ext_sshd",
    startupscript="/etc/init.d/ext_sshd", disabled=False, ports=((22, "TCP"),),
)  # fmt: skip
#: A second method, of a service that the tests install.
WEB = ConnectMethod(
    id=9, name="web", description="", connecttext="", servicename="webdesk", startupscript=None,
    disabled=False, ports=((8080, "TCP"),),
)  # fmt: skip
#: Installs and registers the service of WEB: it listens on port 8080 and holds connections.
WEB_SERVICE = """
cat > /etc/init.d/webdesk <<'END'
#!/bin/sh
case $1 in
    start) [ -s /run/webdesk.pid ] || { /usr/bin/python3 -c "
import socket, time
server = socket.create_server(('', 8080))
held = []
while True: held.append(server.accept())" > /dev/null 2>&1 < /dev/null & echo $! > /run/webdesk.pid; } ;;
    stop) [ ! -s /run/webdesk.pid ] || kill $(cat /run/webdesk.pid); rm -f /run/webdesk.pid ;;
esac
END
chmod 755 /etc/init.d/webdesk
"""


def account(
    login: str = "ada", password: str | None = "pw-of-ada", *, root: bool = False, uid: int = 601,
    **user: Any,
) -> Account:  # fmt: skip
    return Account(
        user=make_user(unityid=login, uid=uid, **user), root_access=root, password=password
    )


@dataclass
class Bench:
    """A guest on a host, and what the daemon lends to it."""

    host: Host
    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    #: Actions that the guest asked of the provisioner.
    switched: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    host_keys: dict[str, MemoryHostKeys] = field(
        default_factory=lambda: defaultdict(MemoryHostKeys)
    )
    cancellation: Cancellation = field(default_factory=Cancellation)
    change: Callable[[Reservation], Reservation] = lambda reservation: reservation
    node: dict[str, Any] = field(default_factory=dict)
    #: ``IPaddress`` of the management nodes that the database lets manage the computer.
    managers: list[str] = field(default_factory=list)

    def reservation(self, *, state: str = "new", laststate: str = "new") -> Reservation:
        made = make_reservation(
            user=make_user(unityid="ada", uid=601),
            node=make_node(
                keys=(str(self.host.network.node_key),),
                IPaddress=self.host.network.node_address,
                **self.node,
            ),
            state=state,
        )
        made = replace(
            made,
            computer=replace(
                made.computer,
                hostname=f"{self.host.name}.example.edu",
                privateIPaddress=self.host.private,
                IPaddress=self.host.public or self.host.inside or self.host.private,
            ),
            request=replace(made.request, laststate=laststate),
        )
        return self.change(made)

    def guest(self, **facts: Any) -> LinuxGuest:
        return LinuxGuest(self.reservation(**facts), self.tools())

    def tools(self) -> Tools:
        def power(action: str) -> None:
            self.switched.append(action)
            if action == "reset":
                self.host.restart()
            elif action == "off":
                self.host.power_off()
            elif action == "on":
                self.host.boot()

        settings: dict[str, Any] = {"boot_timeout_seconds": 30, **self.settings}
        return Tools(
            settings=Settings(**settings),
            cancellation=self.cancellation,
            progress=lambda name, text: self.told.append((name, text)),
            variables=self.variables.get,
            log=structlog.get_logger(),
            run=lambda _find_addresses, _computerid: self.managers,
            host_keys=lambda holder: self.host_keys[holder],
            power=power,
            power_status=lambda: "on" if self.host.is_on else "off",
        )


def ready(host: Host, *accounts: Account, **facts: Any) -> LinuxGuest:
    """A guest after post_load and reserve."""
    guest = Bench(host, **facts).guest()
    guest.post_load()
    guest.reserve(accounts or (account(),))
    return guest


__all__ = ["SSH", "WEB", "WEB_SERVICE", "Bench", "account", "ready", "snapshot"]
