"""A Windows computer with OpenSSH: the essential path. Not run here on a real Windows.

What it does is the text that ``vcld.guest.windows.commands`` makes; that is tested.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcld.errors import UnsupportedOperationError
from vcld.guest.by_ssh import LOOK_SECONDS, SshGuest
from vcld.guest.interface import EndState, ImageTags, UserConnection
from vcld.guest.linux import addresses, firewall, presence, tags
from vcld.guest.linux.script import Facts
from vcld.guest.windows import commands, powershell
from vcld.snapshot import Account, ConnectMethod

#: Its files are slow to come up after a load (provisioning specification §13).
SCRIPT_SECONDS = 300


class WindowsGuest(SshGuest):
    """Does on the computer, by PowerShell as an administrator, what is asked."""

    user = "root"

    def tags(self) -> ImageTags:
        return tags.parse_tags(self._run(commands.show_tags()).all("tag"))

    def tag_post_load(self) -> None:
        self._run(commands.set_tag("vcld_post_load", "success"))

    def tag_tainted(self, reason: str) -> None:
        before = self.tags().tainted
        if reason not in before.split(", "):
            text = ", ".join(filter(None, (before, reason)))
            self._run(commands.set_tag("vcld_tainted", text))

    def post_load(self) -> str | None:
        self.await_answer()
        node = self.reservation.managementnode
        servers = addresses.time_servers(node, self.tools.variables)
        facts = self._run(
            commands.write_tags(tags.base_text(self.reservation), only_if_missing=True),
            self._firewall(),
            commands.remove_others([]),
            commands.random_administrator_password(),
            commands.set_hostname_and_time(servers),
            commands.find_address(),
        )
        return self._found_address(facts)

    def reserve(self, accounts: Sequence[Account]) -> str | None:
        self._refuse_static()
        facts = self._run(*_accounts(accounts), commands.find_address())
        return self._found_address(facts)

    def sync_accounts(self, accounts: Sequence[Account]) -> None:
        self._run(*_accounts(accounts))

    def grant_access(self, methods: Sequence[ConnectMethod]) -> None:
        enabled = [m.servicename for m in methods if m.servicename and not m.disabled]
        disabled = [m.servicename for m in methods if m.servicename and m.disabled]
        self._run(
            commands.services(enabled, running=True),
            commands.services(disabled, running=False),
            self._firewall(*firewall.openings_for(methods, None)),
        )

    def restrict_access(self, remote_ip: str | None, methods: Sequence[ConnectMethod]) -> None:
        known = firewall.addresses(remote_ip)
        openings = firewall.openings_for(methods, known[0] if known else None)
        self._run(self._firewall(*openings))

    def find_connection(
        self, remote_ip: str | None, methods: Sequence[ConnectMethod]
    ) -> UserConnection | None:
        ports = [o.port for o in firewall.openings_for(methods, None) if o.protocol == "tcp"]
        if not ports:
            return None
        facts = self._run(commands.show_connections(ports), limit_seconds=LOOK_SECONDS)
        return presence.find_user(
            facts,
            methods,
            login=self.reservation.request.user.login.lower(),
            remote_ip=remote_ip,
            is_ignored=presence.parse_networks(self.tools.variables("ignored_remote_ip_addresses")),
        )

    def sanitize(self, accounts: Sequence[Account]) -> None:
        self.refuse_if_root_came(accounts)  # else all of reservations go
        self._run(self._firewall(), commands.remove_others([]))

    def pre_capture(self, end_state: EndState) -> None:
        if not self.is_responding():
            self.tools.power("on")
            self.await_answer()
        self._run(
            commands.remove_others([]),
            commands.clear_traces(),
            commands.write_tags(tags.base_text(self.reservation), only_if_missing=False),
            commands.random_administrator_password(),
            self._firewall(),
            commands.open_ssh(),
        )
        if end_state is EndState.ON:
            return
        if self.reservation.image.meta.sysprep:
            self._run(commands.sysprep())
            self.remote.close()
            if self._is_off():
                return
        self.shutdown()

    def notify_console(self, text: str) -> None:
        self._run(commands.notify(text), limit_seconds=LOOK_SECONDS)

    def find_boot_id(self) -> str | None:
        return self._run(commands.boot_id(), limit_seconds=LOOK_SECONDS).find("boot")

    def begin_restart(self) -> None:
        self._run("shutdown.exe /r /f /t 1", limit_seconds=LOOK_SECONDS)

    def begin_shutdown(self) -> None:
        self._run("shutdown.exe /s /f /t 1", limit_seconds=LOOK_SECONDS)

    def set_fixed_ip(self, address: str) -> None:
        msg = f"{self.name}: fixed addresses ({address}) are not set on Windows computers"
        raise UnsupportedOperationError(msg)

    def _refuse_static(self) -> None:
        if self.reservation.managementnode.publicIPconfiguration == "static":
            msg = f"{self.name}: publicIPconfiguration static is not done on Windows computers"
            raise UnsupportedOperationError(msg)

    def _run(self, *scripts: str, limit_seconds: float = SCRIPT_SECONDS) -> Facts:
        text = "\n".join(script for script in scripts if script) + "\n"
        return powershell.run(self.remote, text, self.tools.log, limit_seconds=limit_seconds)

    def _firewall(self, *openings: firewall.Opening) -> str:
        members: tuple[str, ...] = ()
        if openings:
            others = [s for s in self.reservation.siblings if s.id != self.reservation.id]
            members = firewall.addresses(
                *(s.privateIPaddress for s in others), *(s.IPaddress for s in others)
            )
        nodes = firewall.addresses(*self.node_addresses())
        return commands.firewall(nodes, openings, members)

    def _found_address(self, facts: Facts) -> str | None:
        if self.reservation.managementnode.publicIPconfiguration != "dynamicDHCP":
            return None
        found = firewall.addresses(facts.find("public"))
        return found[0] if found else None


def _accounts(accounts: Sequence[Account]) -> list[str]:
    names = [commands.check_login(account.user.login) for account in accounts]
    return [commands.remove_others(names), *(commands.account(account) for account in accounts)]
