"""Commands on another management node of the same image library.

By OpenSSH's client, with the library's own key: it brings files more than twice as fast as SFTP
in Python (docs/xcat.md). What the partner's row in the database says reaches them as data: never
as an option, and quoted for the shell on the other side. Host keys are learnt at first sight and
kept beside the key; one that changes is refused.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Sequence

from vcld import clock
from vcld.errors import AuthenticationError, Blame, FatalProvisioningError, RemoteError
from vcld.guest.interface import Tools
from vcld.programs import Output, Program
from vcld.provisioning.leasing import TELL_SECONDS, Renewing
from vcld.snapshot import ManagementNode
from vcld.store.partners import Partner

DEFAULT_KEY = "/etc/vcl/imagelib.key"
SSH = "/usr/bin/ssh"
CONNECT_SECONDS = 15
#: OpenSSH's exit code for its own failures.
SSH_FAILED = 255
#: Why OpenSSH's client does not use a key; it goes on without it.
_UNUSABLE_KEY = re.compile(r"^(?:Load key|no such identity:) (?P<text>.*\S)", re.M)
#: It goes on all the same, and would take any key the next time.
_NOT_LEARNT = "Failed to add the host to the list of known hosts"


class PartnerNode:
    """A partner management node, by ssh."""

    def __init__(self, tools: Tools, node: ManagementNode, partner: Partner) -> None:
        self.tools = tools
        self.partner = partner
        self._key = node.imagelibkey or DEFAULT_KEY

    def telling(self, what: Callable[[], str]) -> PartnerNode:
        """The same, whose long waits the user and a cluster's parent hear of."""
        tools, told = self.tools, clock.monotonic()

        def tell() -> None:
            nonlocal told
            if clock.monotonic() - told > TELL_SECONDS:
                told = clock.monotonic()
                tools.progress("copyfrompartnerMN", what())

        waits = Renewing(tools.cancellation, tell)
        made = copy.copy(self)
        made.tools = dataclasses.replace(tools, cancellation=waits)
        return made

    def begin(self, command: Sequence[str]) -> Program:
        """Start a command on the partner.

        Raises:
            FatalProvisioningError: ssh is not installed.
        """
        partner = self.partner
        settings = {
            # As an option of its own: before an @ it could be read as part of something else.
            "User": partner.user,
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "15",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "HashKnownHosts": "no",
            "UserKnownHostsFile": _quoted(self._known),
            "IdentityFile": _quoted(self._key),
            # What an administrator has set for other uses must not outlive the command.
            "ControlPath": "none",
        }
        options = [word for item in settings.items() for word in ("-o", "=".join(item))]
        options += ["-p", str(partner.port)]
        # The other side's shell reads the command as text; we read its messages.
        text = shlex.join(["env", "LC_ALL=C", *command])
        full = [SSH, *options, "--", partner.address, text]
        try:
            name = f"{command[0]} on {self.where}"
            return Program(full, {**os.environ, "LC_ALL": "C"}, name=name)
        except OSError as err:
            raise FatalProvisioningError(
                f"{SSH} cannot be run: {err.strerror}; install openssh-client",
                blame=Blame.MANAGEMENT_NODE,
            ) from err

    def ask(self, command: Sequence[str], limit_seconds: float) -> Output:
        """Run a command on the partner.

        Raises:
            ProvisioningError: it failed, or took too long.
        """
        with self.begin(command) as program:
            return self.finish(program, limit_seconds)

    def finish(self, program: Program, limit_seconds: float, good: Sequence[int] = (0,)) -> Output:
        """Wait for the end of a command that was begun.

        Raises:
            ProvisioningError: it failed, or took too long.
        """
        output = program.finish(limit_seconds, self.tools.cancellation)
        self.check(output, good)
        return output

    def check(self, output: Output, good: Sequence[int] = (0,)) -> None:
        """Make sure that a command did what it should.

        Raises:
            AuthenticationError: the partner does not take the key, or it is none.
            FatalProvisioningError: the partner's host key cannot be kept.
            RemoteError: it did not, and why.
        """
        blame = Blame.MANAGEMENT_NODE
        if _NOT_LEARNT in output.err:
            raise FatalProvisioningError(
                f"the host key of {self.partner.hostname} cannot be kept in {self._known}: let the"
                " daemon write there, or put the key into it",
                blame=blame,
            )
        if output.code in good:
            return
        if output.code == SSH_FAILED and "Permission denied" in output.err:
            raise AuthenticationError(self._refusal(output.err), blame=blame)
        if output.code == SSH_FAILED and "Host key verification failed" in output.err:
            raise RemoteError(
                f"{self.partner.hostname} shows another host key than before: if that is right,"
                f" remove its line from {self._known}",
                blame=blame,
            )
        reason = (output.err.strip().splitlines() or ["no reason given"])[-1]
        raise RemoteError(f"{self.where}: {reason}", blame=blame)

    def _refusal(self, said: str) -> str:
        """Why the partner does not let us in, as far as this side can tell."""
        unusable = _UNUSABLE_KEY.search(said)
        if unusable is not None:
            return (
                f"{self._key} cannot be used as a key ({unusable['text']}): it must be a private"
                " key of mode 0600 without a passphrase"
            )
        return (
            f"{self.where} refuses the key {self._key}: its public half must be in authorized_keys"
            " there, and it must have no passphrase"
        )

    @property
    def where(self) -> str:
        """The account, for messages."""
        return f"{self.partner.user}@{self.partner.address}"

    @property
    def _known(self) -> str:
        return f"{self._key}.known_hosts"


def _quoted(path: str) -> str:
    """A path as a value of ssh_config(5): blanks part nothing, % stands for itself."""
    escaped = re.sub(r'(["\\])', r"\\\1", path).replace("%", "%%")
    return f'"{escaped}"'
