"""What computers reached by SSH have in common: connection, restart, shutdown."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from vcld import clock
from vcld.errors import (
    AuthenticationError,
    Blame,
    FatalProvisioningError,
    ProvisioningError,
    RemoteError,
)
from vcld.guest.interface import Guest, Tools
from vcld.remote.endpoint import Endpoint
from vcld.remote.remote import Remote
from vcld.snapshot import Account, Reservation
from vcld.store import resources
from vcld.waiting import wait_until

#: A restart, and a shutdown, are over after this (provisioning specification §12.11).
RESTART_SECONDS = 300
#: A look at the computer that a user waits for.
LOOK_SECONDS = 30


class SshGuest(Guest):
    """A computer that is reached by SSH on its private address."""

    port = 22
    user = "root"

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        super().__init__(reservation, tools)
        computer, node = reservation.computer, reservation.managementnode
        self.name = computer.shortname
        self._nodes: list[str] | None = None
        self.remote = Remote(
            Endpoint(
                name=self.name,
                address=computer.privateIPaddress or computer.hostname,
                port=self.port,
                user=self.user,
                keys=node.keys,
            ),
            tools.host_keys(f"computer {computer.id}"),
            tools.cancellation,
            connect_seconds=tools.settings.ssh_connect_timeout_seconds,
            log=tools.log,
        )

    def is_responding(self) -> bool:
        return self.remote.is_up()

    def node_addresses(self) -> list[str]:
        """``IPaddress`` of this node and of those that may take the computer over from it."""
        if self._nodes is None:
            others = self.tools.run(resources.find_node_addresses, self.reservation.computer.id)
            self._nodes = [self.reservation.managementnode.IPaddress, *others]
        return self._nodes

    def refuse_if_root_came(self, accounts: Sequence[Account]) -> None:
        """By what the database says: of a computer on which somebody was root, nothing is true.

        Raises:
            RemoteError: access may have been granted to a user with root rights.
        """
        reservation = self.reservation
        asked = reservation.remoteIP is not None or reservation.request.is_server
        if reservation.computer.type == "lab" or reservation.request.laststate != "reserved":
            return  # the first are never loaded anew
        roots = [account.user.login for account in accounts if account.root_access]
        if asked and roots:
            msg = (
                f"access to {self.name} was granted to a user with root rights ({roots[0]});"
                " nobody knows what they left"
            )
            raise RemoteError(msg, blame=Blame.NOBODY)

    def expect_new_system(self) -> None:
        self.remote.close()
        self.remote.host_keys.forget()
        self.remote.learns = False

    def reboot(self, *, hard: bool) -> None:
        before = self._boot_id()
        if not hard:
            if before is None:
                msg = f"{self.name} cannot be restarted: it does not answer"
                raise RemoteError(msg, blame=Blame.NOBODY)
            self.begin_restart()
            if self._await_restart(before):
                return
            self.tools.log.warning("the computer did not restart, it is reset")
        self.tools.power("reset")
        if not self._await_restart(before):
            msg = f"{self.name} did not come back within {RESTART_SECONDS} s after a reset"
            raise RemoteError(msg)

    def shutdown(self) -> None:
        try:
            self.begin_shutdown()
        except RemoteError as err:
            self.tools.log.info("the computer could not be told to stop", reason=str(err))
            if self.tools.power_status() == "off":
                return
        else:
            self.remote.close()
            if self._is_off():
                return
        self.tools.log.warning("the computer did not stop, it is switched off")
        self.tools.power("off")

    @abc.abstractmethod
    def find_boot_id(self) -> str | None:
        """Something that differs from one start of the system to the next.

        Raises:
            RemoteError: the computer could not be asked.
        """

    @abc.abstractmethod
    def begin_restart(self) -> None:
        """Make the system restart, soon after this has returned."""

    @abc.abstractmethod
    def begin_shutdown(self) -> None:
        """Make the system stop, soon after this has returned."""

    def await_answer(self) -> None:
        """Wait for the computer, and from here on take its host key for the right one."""
        if not self.remote.endpoint.keys:
            node = self.reservation.managementnode.hostname
            msg = f"managementnode.keys of {node} names no private key: nothing opens {self.name}"
            raise FatalProvisioningError(msg, blame=Blame.MANAGEMENT_NODE)
        if not self.remote.learns:
            self.remote.learns = True
            self.remote.close()
        if not self.is_responding():
            self.remote.wait_until_up(self.tools.settings.boot_timeout_seconds)

    def _boot_id(self) -> str | None:
        try:
            return self.find_boot_id()
        except (RemoteError, AuthenticationError):
            return None

    def _await_restart(self, before: str | None) -> bool:
        """Wait until the computer answers as one that was started anew."""
        deadline = clock.monotonic() + RESTART_SECONDS
        while True:
            left = deadline - clock.monotonic()
            if left <= 0:
                return False
            try:
                self.remote.wait_until_up(left)
            except ProvisioningError as err:
                self.tools.log.info("the computer is not back", reason=str(err))
                return False
            now = self._boot_id()
            if now is not None and now != before:
                return True
            self.remote.close()
            self.tools.cancellation.wait(0.2)

    def _is_off(self) -> bool:
        """Wait for the power to go; without a way to ask, for the answers to stop."""

        def off() -> bool:
            state = self.tools.power_status()
            return state == "off" or (state == "unknown" and not self.is_responding())

        return wait_until(
            off, self.tools.cancellation, limit_seconds=RESTART_SECONDS, longest_pause_seconds=5
        )
