"""Whom to connect to, and with which keys."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

import paramiko

from vcld.errors import Blame, FatalProvisioningError

SSH_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One SSH server and the identity files that open it."""

    #: What people call the computer, for messages.
    name: str
    address: str
    port: int = SSH_PORT
    user: str = "root"
    #: Paths of private keys, in the order to try.
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.address} port {self.port})"


def key_text(key: paramiko.PKey) -> str:
    """A public key as known_hosts has it."""
    return f"{key.get_name()} {key.get_base64()}"


def load_key(path: str) -> paramiko.PKey:
    """Read a private key (ed25519, rsa or ecdsa).

    Raises:
        FatalProvisioningError: it cannot be read, others can read it, or it has a passphrase.
    """
    blame = Blame.MANAGEMENT_NODE
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o077:
            msg = f"private key {path} can be read by others (mode {mode:o}): chmod 600 {path}"
            raise FatalProvisioningError(msg, blame=blame)
        return paramiko.PKey.from_path(path)
    except OSError as err:
        msg = f"private key {path} cannot be read: {err.strerror}"
        raise FatalProvisioningError(msg, blame=blame) from err
    except (paramiko.SSHException, ValueError, TypeError, IndexError) as err:
        # TypeError: an encrypted key without a passphrase. The library's text may quote data.
        msg = f"{path} is not a private key without a passphrase (ed25519, rsa or ecdsa)"
        raise FatalProvisioningError(msg, blame=blame) from err
