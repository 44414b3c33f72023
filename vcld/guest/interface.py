"""What vcld asks of the operating system on a computer.

Every method is safe to repeat. A method returns when the thing is so, or raises; it never
returns a failure. Methods marked "optional" do nothing unless a guest needs them.
Failures are RemoteError or another ProvisioningError, whose ``blame`` decides whether the
computer is at fault.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vcld.config import Settings
from vcld.errors import StoreError, UnsupportedOperationError
from vcld.remote.identity import HostKeys, MemoryHostKeys
from vcld.snapshot import Account, ConnectMethod, Reservation
from vcld.waiting import Cancellation


class EndState(enum.Enum):
    """How the computer is to be left by ``pre_capture``."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTags:
    """What ``currentimage.txt`` on the computer says about itself."""

    imagerevision_id: int | None
    post_load: bool
    #: Why the computer may not be handed out again; empty when clean.
    tainted: str = ""


@dataclass(frozen=True, slots=True)
class UserConnection:
    """A user found on the computer. ``remote_ip`` is None when it cannot be told."""

    remote_ip: str | None
    #: True when the connection is certainly the user's own: a process of theirs holds it.
    verified: bool = False


def _no_power(action: str) -> None:
    raise UnsupportedOperationError(f"the computer cannot be switched {action} from here")


def _no_database(*_: Any) -> Any:
    raise StoreError("there is no database here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the daemon lends to a guest or provisioner for one reservation."""

    settings: Settings
    cancellation: Cancellation
    #: Writes a row of the load log: (loadstatename, text for the user). Also tells the
    #: cluster's parent that work goes on, so call it at least every 30 minutes.
    progress: Callable[[str, str], None]
    #: A site's ``variable`` rows by name, as of the start of the worker.
    variables: Callable[[str], str | None]
    log: Any
    #: Runs a function of ``vcld.store`` in a transaction of its own: (function, arguments …).
    run: Callable[..., Any] = _no_database
    #: The public key that a holder is known by: ``computer ID`` or ``nathost ID``.
    host_keys: Callable[[str], HostKeys] = lambda _holder: MemoryHostKeys()
    #: Switches the computer by its provisioner: ``on``, ``off`` or ``reset``.
    power: Callable[[str], None] = _no_power
    #: Asks the provisioner: ``on``, ``off``, ``suspended`` or ``unknown``.
    power_status: Callable[[], str] = lambda: "unknown"


class Guest(abc.ABC):
    """The operating system of one reserved computer."""

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        self.reservation = reservation
        self.tools = tools

    @abc.abstractmethod
    def is_responding(self) -> bool:
        """True when the computer takes commands right now. One quick look, no waiting."""

    @abc.abstractmethod
    def tags(self) -> ImageTags:
        """Read ``currentimage.txt``."""

    @abc.abstractmethod
    def tag_post_load(self) -> None:
        """Note that ``post_load`` has succeeded."""

    @abc.abstractmethod
    def tag_tainted(self, reason: str) -> None:
        """Note that somebody may have used the computer."""

    @abc.abstractmethod
    def post_load(self) -> str | None:
        """Make a freshly loaded computer ours: firewall, time, random root password, name.

        Returns:
            The computer's public IP address if it had to be found out, else None.
        """

    @abc.abstractmethod
    def reserve(self, accounts: Sequence[Account]) -> str | None:
        """Prepare the computer for its user without opening the firewall.

        Returns:
            The computer's public IP address if it had to be found out, else None.
        """

    @abc.abstractmethod
    def grant_access(self, methods: Sequence[ConnectMethod]) -> None:
        """Open the connect methods to any address: the user has asked to connect."""

    @abc.abstractmethod
    def restrict_access(self, remote_ip: str | None, methods: Sequence[ConnectMethod]) -> None:
        """Narrow the connect methods to the address the user comes from."""

    @abc.abstractmethod
    def find_connection(
        self, remote_ip: str | None, methods: Sequence[ConnectMethod]
    ) -> UserConnection | None:
        """Look whether the user is connected right now."""

    @abc.abstractmethod
    def sync_accounts(self, accounts: Sequence[Account]) -> None:
        """Add, change and remove accounts until they are exactly these."""

    @abc.abstractmethod
    def sanitize(self, accounts: Sequence[Account]) -> None:
        """Remove every trace of the user so that the next may have the computer.

        Raises:
            RemoteError: it could not be made sure; the computer must be reloaded.
        """

    @abc.abstractmethod
    def reboot(self, *, hard: bool) -> None:
        """Restart and wait until the computer answers again."""

    @abc.abstractmethod
    def shutdown(self) -> None:
        """Stop the computer and wait until it is off."""

    @abc.abstractmethod
    def pre_capture(self, end_state: EndState) -> None:
        """Take everything off the computer that must not be in an image."""

    def await_answer(self) -> None:
        """Optional: wait until a computer that was just started takes commands."""

    def check_status(self) -> str | None:
        """Optional: why the computer must be reloaded although its tags are right, or None."""
        return None

    def expect_new_system(self) -> None:
        """Optional: a load begins; what is known of the old system counts no more."""

    def pre_reload(self) -> None:
        """Optional: the old system's last moment before the computer is loaded anew."""

    def post_reserve(self) -> bool:
        """Optional: stage scripts once access is granted. True when one ran (taints)."""
        return False

    def post_initial_connection(self) -> None:
        """Optional: stage scripts at the first connection."""

    def post_reservation(self) -> None:
        """Optional: stage scripts at the end of a reservation."""

    def post_capture(self) -> None:
        """Optional: stage scripts after a capture."""

    def update_cluster(self) -> None:
        """Optional: tell the computers of a cluster request of one another."""

    def set_fixed_ip(self, address: str) -> None:
        """Optional: give a server request its fixed address."""
        del address

    def withdraw(self) -> None:
        """Optional: the user's time is over, or never began; close what was opened."""

    def notify_console(self, text: str) -> None:
        """Optional: show a short text to whoever is logged in."""
        del text

    def on_step(self, step: str) -> None:
        """Optional: called as the worker reaches each named step of its handler."""
        del step
