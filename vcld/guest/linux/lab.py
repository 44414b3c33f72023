"""Lab computers: somebody else runs them; vcld only opens and closes their door.

They are reached as ``vclstaff`` on port 24. A daemon of the computer's own waits for
``~/flag``, reads ``~/clientdata`` (``new`` or ``timeout``, the user, the user's address) and
opens or closes port 22 for that user, who has an account already (provisioning specification
§11). Nothing else is ours to change. Not run here against a real lab computer's daemon.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from vcld.errors import RemoteError, UnsupportedOperationError
from vcld.guest.interface import EndState, ImageTags
from vcld.guest.linux import logins, stages
from vcld.guest.linux.guest import LinuxGuest
from vcld.snapshot import Account, ConnectMethod
from vcld.waiting import wait_until

STAFF, STAFF_PORT = "vclstaff", 24
FOLDER = f"/home/{STAFF}"
#: The computer's daemon acts within this time.
DOOR_SECONDS = 30.0


def client_data(action: str, login: str, address: str) -> bytes:
    """What the computer's daemon reads: three lines."""
    return f"{action}\n{logins.check_login(login)}\n{ipaddress.ip_address(address)}\n".encode()


class LabGuest(LinuxGuest):
    """A computer of a lab, with its own users and its own daemon at the door."""

    port = STAFF_PORT
    user = STAFF

    def tags(self) -> ImageTags:
        """It holds what it holds: nobody loads it."""
        return ImageTags(imagerevision_id=self.reservation.imagerevision.id, post_load=True)

    def tag_post_load(self) -> None:
        """It has no tags."""

    def tag_tainted(self, reason: str) -> None:
        """It has no tags: the next user comes after this one by design."""
        del reason

    def post_load(self) -> str | None:
        self.await_answer()
        return None

    def reserve(self, accounts: Sequence[Account]) -> str | None:
        del accounts  # users have their own there
        return None

    def sync_accounts(self, accounts: Sequence[Account]) -> None:
        del accounts

    def grant_access(self, methods: Sequence[ConnectMethod]) -> None:
        del methods
        address = self.reservation.remoteIP
        if address is None:
            raise RemoteError(f"{self.name}: it lets in one address, and none is known")
        self._tell("new", address, is_open=True)

    def restrict_access(self, remote_ip: str | None, methods: Sequence[ConnectMethod]) -> None:
        del methods
        if remote_ip is not None and remote_ip != self.reservation.remoteIP:
            self._tell("new", remote_ip, is_open=True)

    def sanitize(self, accounts: Sequence[Account]) -> None:
        del accounts
        self._tell("timeout", self.reservation.remoteIP or "127.0.0.1", is_open=False)

    def post_reserve(self) -> bool:
        return False

    def post_initial_connection(self) -> None:
        """The site's scripts for computers need root, which we are not there."""
        stages.run_here(self, "post_initial_connection")

    def post_reservation(self) -> None:
        stages.run_here(self, "post_reservation")

    def pre_reload(self) -> None:
        """Nobody loads it."""

    def update_cluster(self) -> None:
        """Its network is not ours."""

    def withdraw(self) -> None:
        self.sanitize(())

    def notify_console(self, text: str) -> None:
        del text

    def reboot(self, *, hard: bool) -> None:
        del hard
        raise UnsupportedOperationError(f"{self.name} is a lab computer: vcld does not restart it")

    def shutdown(self) -> None:
        raise UnsupportedOperationError(f"{self.name} is a lab computer: vcld does not stop it")

    def pre_capture(self, end_state: EndState) -> None:
        del end_state
        raise UnsupportedOperationError(f"{self.name} is a lab computer: no image is made of it")

    def _tell(self, action: str, address: str, *, is_open: bool) -> None:
        data = client_data(action, self.reservation.request.user.login, address)
        self.remote.put(data, f"{FOLDER}/clientdata", mode=0o644)
        self.remote.put(b"1\n", f"{FOLDER}/flag", mode=0o644)
        done = wait_until(
            lambda: self._is_open() == is_open,
            self.tools.cancellation,
            limit_seconds=DOOR_SECONDS,
        )
        if not done:
            wanted = "opened" if is_open else "closed"
            raise RemoteError(f"{self.name}: its daemon has not {wanted} port 22")

    def _is_open(self) -> bool:
        try:
            socket.create_connection((self.remote.endpoint.address, 22), 2).close()
        except OSError:
            return False
        return True
