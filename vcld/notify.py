"""Telling systemd how the daemon is (sd_notify); silent where nobody listens."""

from __future__ import annotations

import contextlib
import os
import socket

from vcld import clock

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
#: systemd, busy for so long, does without the message: the loop must not wait for it.
SEND_SECONDS = 1.0


def notify(state: str) -> None:
    """Send a state such as ``READY=1`` to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.settimeout(SEND_SECONDS)
        channel.sendto(state.encode("utf-8", "replace"), address)


def status(text: str) -> str:
    """The state for a line that ``systemctl status`` shows."""
    return f"STATUS={' '.join(text.split())}"


def reloading() -> str:
    """The state while the configuration is read again; READY must follow."""
    return f"RELOADING=1\nMONOTONIC_USEC={int(clock.monotonic() * 1_000_000)}"
