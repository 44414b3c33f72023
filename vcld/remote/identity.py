"""What a computer is known by: its SSH host key. Needs no SSH library."""

from __future__ import annotations

import base64
import hashlib
from typing import Protocol


class HostKeys(Protocol):
    """The public key that a computer is known by: kept beyond a worker's life."""

    def find(self) -> str | None:
        """``type base64`` as in known_hosts, or None when the computer is not known yet."""

    def learn(self, key: str) -> None:
        """Keep the key from now on."""

    def forget(self) -> None:
        """The computer was loaded anew: whatever key comes next is right."""


class MemoryHostKeys:
    """For as long as this object lives; enough where nothing outlives the process."""

    def __init__(self) -> None:
        self.key: str | None = None

    def find(self) -> str | None:
        return self.key

    def learn(self, key: str) -> None:
        self.key = key

    def forget(self) -> None:
        self.key = None


def fingerprint(text: str) -> str:
    """What ``ssh-keygen -l`` shows of a key given as ``type base64``."""
    kind, _, data = text.partition(" ")
    digest = hashlib.sha256(base64.b64decode(data)).digest()
    return f"{kind} SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"
