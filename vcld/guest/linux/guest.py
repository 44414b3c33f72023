"""A Linux computer: accounts, firewall, connections, by one script for each thing asked.

For the families of Debian and Red Hat, with systemd or SysV's init. What is asked of a guest:
``vcld.guest.interface``; what the scripts do: ``scripts/``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from vcld.errors import (
    AuthenticationError,
    RemoteError,
    UnsupportedOperationError,
)
from vcld.guest.by_ssh import LOOK_SECONDS, SshGuest
from vcld.guest.interface import EndState, ImageTags, Tools, UserConnection
from vcld.guest.linux import addresses, firewall, logins, presence, stages, tags
from vcld.guest.linux.firewall import Policy
from vcld.guest.linux.methods import method_facts
from vcld.guest.linux.nat import NatForwards
from vcld.guest.linux.script import Facts, Script
from vcld.guest.linux.script import run as run_script
from vcld.snapshot import Account, ConnectMethod, Reservation

#: A script of an image may take this long (provisioning specification §12.3).
LOCAL_SCRIPT_SECONDS = 300


class LinuxGuest(SshGuest):
    """Does on the computer, by SSH as root, what is asked."""

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        super().__init__(reservation, tools)
        host = reservation.computer.nathost
        self.nat = NatForwards(reservation, host, tools) if host is not None else None

    def find_boot_id(self) -> str | None:
        return self._run(Script().call("boot_id"), limit_seconds=LOOK_SECONDS).find("boot")

    def begin_restart(self) -> None:
        self._run(Script().call("restart_system"), limit_seconds=LOOK_SECONDS)

    def begin_shutdown(self) -> None:
        self._run(Script().call("stop_system"), limit_seconds=LOOK_SECONDS)

    def tags(self) -> ImageTags:
        return tags.parse_tags(self._run(Script().call("show_tags")).all("tag"))

    def tag_post_load(self) -> None:
        self._run(Script().call("set_tag", "vcld_post_load", "success"))

    def tag_tainted(self, reason: str) -> None:
        self._run(Script().call("add_taint", reason))

    def post_load(self) -> str | None:
        self.await_answer()
        reservation, node = self.reservation, self.reservation.managementnode
        script = Script().call("check_tools")
        script.call("ensure_group").call("ensure_tags", tags.base_text(reservation))
        self._close_access(script)
        script.call("remove_others")
        self._set_address(script, activate=True)
        script.call("set_time", *addresses.time_servers(node, self.tools.variables))
        script.call("random_root_password").call("remove_private_keys")
        if reservation.image.meta.sethostname is not False:
            script.call("name_public_host")
        script.call("run_local", "vcl_post_load", LOCAL_SCRIPT_SECONDS)
        facts = self._run(script, limit_seconds=2 * LOCAL_SCRIPT_SECONDS + 300)
        if node.publicIPconfiguration == "static":
            self._tell_static(facts.find("public") or reservation.computer.IPaddress)
        self._close_nat()
        stages.run_on_computer(self, "post_load")
        stages.run_here(self, "post_load")
        return self._found_address(facts)

    def reserve(self, accounts: Sequence[Account]) -> str | None:
        script = Script().call("ensure_group")
        self._set_accounts(script, accounts)
        self._set_address(script)
        for share in addresses.shares(self.reservation, self.tools.variables):
            script.call("mount_share", *share)
        return self._found_address(self._run(script, limit_seconds=300))

    def grant_access(self, methods: Sequence[ConnectMethod]) -> None:
        self._open(methods, None, start=True)
        if self.nat is not None:
            self.nat.open(methods)

    def restrict_access(self, remote_ip: str | None, methods: Sequence[ConnectMethod]) -> None:
        self._open(methods, remote_ip, start=False)

    def find_connection(
        self, remote_ip: str | None, methods: Sequence[ConnectMethod]
    ) -> UserConnection | None:
        facts = self._run(Script().call("show_connections"), limit_seconds=LOOK_SECONDS)
        ignored = self.tools.variables("ignored_remote_ip_addresses")
        return presence.find_user(
            facts,
            methods,
            login=self.reservation.request.user.login,
            remote_ip=remote_ip,
            is_ignored=presence.parse_networks(ignored),
        )

    def sync_accounts(self, accounts: Sequence[Account]) -> None:
        script = Script().call("ensure_group")
        self._set_accounts(script, accounts)
        self._run(script, limit_seconds=300)

    def sanitize(self, accounts: Sequence[Account]) -> None:
        if self.nat is not None:
            self.nat.close()
        self.refuse_if_root_came(accounts)  # else all of reservations go, whoever made them
        script = Script()
        if self.reservation.request.laststate == "reserved":
            script.call("refuse_if_in_use")
            if self.reservation.computer.type != "lab":  # those are never loaded anew
                script.call("refuse_if_root_came")
        self._close_access(script)
        script.call("unmount_shares").call("set_roots").call("forget_reservation")
        script.call("remove_all").call("prove_clean").call("clear_taint")
        self._run(script, limit_seconds=900)

    def pre_capture(self, end_state: EndState) -> None:
        if not self.is_responding():
            with contextlib.suppress(UnsupportedOperationError):
                self.tools.power("on")
            self.await_answer()
        stages.run_on_computer(self, "pre_capture")
        stages.run_here(self, "pre_capture")
        script = Script().call("write_exclude_sample")
        script.call("unmount_shares").call("set_roots").call("forget_reservation")
        script.call("remove_all").call("prove_clean")
        script.call("single_sshd").call("forget_static").call("lock_root")
        script.call("remove_private_keys")
        script.call("write_tags", tags.base_text(self.reservation)).call("clear_traces")
        # The image must let a management node in before anybody has told it which.
        image = Policy(openings=(firewall.ANY_SSH,), trusts_node=False)
        script.call("firewall", *firewall.renderings(image))
        self._run(script, limit_seconds=900)
        if end_state is EndState.OFF:
            self.shutdown()

    def pre_reload(self) -> None:
        stages.run_on_computer(self, "pre_reload")
        stages.run_here(self, "pre_reload")

    def post_reserve(self) -> bool:
        data = self.tools.variables(f"userdata|{self.reservation.id}")
        script = Script()
        if data:
            script.call("write_userdata", data)
        script.call("run_local", "vcl_post_reserve", LOCAL_SCRIPT_SECONDS)
        ran = bool(self._run(script, limit_seconds=2 * LOCAL_SCRIPT_SECONDS + 30).all("ran"))
        ran = stages.run_on_computer(self, "post_reserve") or ran
        stages.run_here(self, "post_reserve")
        return ran

    def post_initial_connection(self) -> None:
        stages.run_on_computer(self, "post_initial_connection")
        stages.run_here(self, "post_initial_connection")

    def post_reservation(self) -> None:
        self._close_nat()
        if stages.has_scripts(self, "post_reservation") and self.is_responding():
            stages.run_on_computer(self, "post_reservation")
        stages.run_here(self, "post_reservation")

    def post_capture(self) -> None:
        stages.run_here(self, "post_capture")

    def update_cluster(self) -> None:
        siblings = self.reservation.siblings
        own = self.reservation.id
        lines = [
            f"{'parent' if sibling is siblings[0] else 'child'}="
            f" {sibling.privateIPaddress or sibling.IPaddress}"
            for sibling in siblings
        ]
        self.tools.log.debug("cluster written", reservation=own, members=len(siblings))
        self._run(Script().call("write_cluster", "\n".join(lines)))

    def set_fixed_ip(self, address: str) -> None:
        server = self.reservation.request.server
        fixed = self.tools.variables(f"fixedIPsr{server.id}") if server else None
        network = addresses.fixed_network(address, fixed)
        script = Script().call("set_static", *network)
        script.call("configure_sshd", network[0])
        self._run(script)
        self._tell_static(network[0])

    def withdraw(self) -> None:
        self._close_nat()
        if self.is_responding():
            script = Script()
            self._close_access(script)
            self._run(script)

    def notify_console(self, text: str) -> None:
        self._run(Script().call("tell_users", text), limit_seconds=LOOK_SECONDS)

    def run_script(self, script: Script, limit_seconds: float = 120) -> Facts:
        """Run a script on the computer; see ``vcld.guest.linux.script.run``."""
        return self._run(script, limit_seconds=limit_seconds)

    def _run(self, script: Script, *, limit_seconds: float = 120) -> Facts:
        return run_script(self.remote, script, self.tools.log, limit_seconds=limit_seconds)

    def _close_nat(self) -> None:
        """Take the forwards away; a NAT host that is down is asked again at the next load."""
        if self.nat is None:
            return
        try:
            self.nat.close()
        except (RemoteError, AuthenticationError) as err:
            self.tools.log.warning("the forwards on the NAT host may be left", reason=str(err))

    def _close_access(self, script: Script) -> None:
        """Only the management node gets in."""
        script.call("stop_methods")
        script.call("firewall", *firewall.renderings(self._policy()))

    def _policy(self, *openings: firewall.Opening) -> Policy:
        members: tuple[str, ...] = ()
        if openings and self.reservation.is_cluster:
            siblings = [s for s in self.reservation.siblings if s.id != self.reservation.id]
            members = firewall.addresses(
                *(s.privateIPaddress for s in siblings), *(s.IPaddress for s in siblings)
            )
        nodes = firewall.addresses(*self.node_addresses())
        return Policy(openings=openings, members=members, nodes=nodes)

    def _open(
        self, methods: Sequence[ConnectMethod], remote_ip: str | None, *, start: bool
    ) -> None:
        try:
            openings = firewall.openings_for(methods, remote_ip)
        except ValueError:
            self.tools.log.warning("the user's address is none; any is let in", address=remote_ip)
            openings = firewall.openings_for(methods, None)
        script = Script()
        if start:
            script.call("keep_methods", *method_facts(methods))
            for method in methods:
                action = "stop_method" if method.disabled else "start_method"
                script.call(action, method.servicename or "", method.startupscript or "")
        else:
            script.call("resume_methods")
        script.call("firewall", *firewall.renderings(self._policy(*openings)))
        self._run(script)

    def _set_accounts(self, script: Script, accounts: Sequence[Account]) -> None:
        names = logins.names(accounts)
        roots = [n for account, n in zip(accounts, names, strict=True) if account.root_access]
        # Taken away first, whatever a user does to stop the rest; given when there are accounts.
        script.call("drop_roots", *roots).call("remove_others", *names)
        for account, name in zip(accounts, names, strict=True):
            password = logins.check_password(account.password)
            keys = logins.public_keys(account)
            script.call("account", name, account.user.uid, password, keys)
        script.call("set_roots", *roots).call("refuse_roots", *roots).call("tell_late")

    def _set_address(self, script: Script, *, activate: bool = False) -> None:
        node, computer = self.reservation.managementnode, self.reservation.computer
        mode = node.publicIPconfiguration
        server = self.reservation.request.server
        if server is not None and server.fixedIP:
            public = addresses.public_address(self.name, server.fixedIP)
            script.call("use_public", "manualDHCP", public)
            return
        public = ""
        if mode == "static" or (mode != "dynamicDHCP" and computer.IPaddress):
            public = addresses.public_address(self.name, computer.IPaddress)
        if mode == "static":
            script.call("set_static", *addresses.static_network(public, node))
        elif activate:
            script.call("activate_cards")
        script.call("use_public", mode, public)

    def _tell_static(self, address: str) -> None:
        self.tools.progress("staticIPaddress", f"{self.name} has the fixed address {address}")

    def _found_address(self, facts: Facts) -> str | None:
        server = self.reservation.request.server
        if server is not None and server.fixedIP:
            return None  # the computer's own address must stay known, to be given back
        if self.reservation.managementnode.publicIPconfiguration != "dynamicDHCP":
            return None
        found = firewall.addresses(facts.find("public"))
        if found and found[0] != self.reservation.computer.IPaddress:
            text = f"{self.name} has the public address {found[0]}"
            self.tools.progress("dynamicDHCPaddress", text)
        return found[0] if found else None
