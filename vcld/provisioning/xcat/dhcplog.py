"""The DHCP server's messages about one node, from the moment the object is made.

Made before the power cycle, so that no early line is lost. Only a sign of life is taken from
them: a site without them loses nothing but an early "xcatstage1" in the load log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vcld.errors import ProvisioningError
from vcld.provisioning.xcat.runner import Runner
from vcld.waiting import Cancellation

#: Where syslog daemons put the messages.
PLACES = ("/var/log/messages", "/var/log/syslog")
READ_LIMIT_BYTES = 4 << 20
#: Where a machine's journal daemon listens.
JOURNAL = Path("/run/systemd/journal")
ASK_SECONDS = 20.0
#: ``DHCPACK on 10.0.0.5 to MAC via eth1`` of ISC's server, ``DHCPACK(eth1) 10.0.0.5 MAC`` of
#: dnsmasq, ``INFO [kea-dhcp4.leases/812] DHCP4_LEASE_ALLOC [hwtype=1 MAC], …`` of Kea.
_KIND = re.compile(r"\bDHCP[A-Z0-9_]+")


class DhcpLog(Protocol):
    """Reads what is new."""

    def news(self) -> list[str]:
        """Kinds of new messages about the node, such as ``DHCPREQUEST``, oldest first."""


class NoLog:
    """For sites that have none."""

    def news(self) -> list[str]:
        """See ``DhcpLog``."""
        return []


class FileLog:
    """A syslog file, rotated or not."""

    def __init__(self, path: Path, macs: Sequence[str]) -> None:
        self._path, self._macs = path, macs
        self._rest = b""
        facts = path.stat()
        self._inode, self._offset = facts.st_ino, facts.st_size

    def news(self) -> list[str]:
        """See ``DhcpLog``."""
        try:
            with self._path.open("rb") as log:
                facts = os.fstat(log.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._offset:
                    self._inode, self._offset, self._rest = facts.st_ino, 0, b""
                log.seek(self._offset)
                data = log.read(READ_LIMIT_BYTES)
        except OSError:
            return []
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return kinds([line.decode(errors="replace") for line in lines], self._macs)


class JournalLog:
    """The systemd journal of the machine on which xCAT's commands run (journalctl(1))."""

    def __init__(self, runner: Runner, macs: Sequence[str], cancellation: Cancellation) -> None:
        self._runner, self._macs, self._cancellation = runner, macs, cancellation
        # Its end, whoever wrote there: the DHCP server may have said nothing yet.
        self._cursor = self._ask("-n", "0")[1]

    def news(self) -> list[str]:
        """See ``DhcpLog``."""
        after = [f"--after-cursor={self._cursor}"] if self._cursor else []
        try:
            # Of all sources: with a filter journalctl leaves out the first entry that passes it.
            lines, cursor = self._ask(*after)
        except ProvisioningError:
            return []
        self._cursor = cursor or self._cursor
        return kinds(lines, self._macs)

    def _ask(self, *arguments: str) -> tuple[list[str], str]:
        """Messages, and the cursor of the last one, or else that which was given."""
        command = ["/usr/bin/journalctl", "-q", "-o", "cat", "--show-cursor", *arguments]
        output = self._runner.run(
            command, limit_seconds=ASK_SECONDS, cancellation=self._cancellation
        )
        lines, mark = output.out.splitlines(), "-- cursor: "
        cursor = next((line[len(mark) :] for line in lines if line.startswith(mark)), "")
        return lines, cursor


def kinds(lines: Sequence[str], macs: Sequence[str]) -> list[str]:
    """Which DHCP messages a node took part in, by any of its addresses."""
    found = []
    for line in lines:
        text = line.lower()
        if any(mac in text for mac in macs):
            found += _KIND.findall(line)[:1]
    return found


def addresses(mac: str) -> list[str]:
    """The addresses of an attribute ``mac``, in lower case.

    mac(5): ``ADDRESS!HOST|ADDRESS!HOST``, where ``!*NOIP*`` is one without a name.
    """
    return [text for part in mac.split("|") if (text := part.partition("!")[0].strip().lower())]


def open_log(setting: str, mac: str, runner: Runner, cancellation: Cancellation) -> DhcpLog:
    """The site's choice: a file of this machine, ``journal`` or ``none``.

    ``mac``: the node's attribute, of one address or several.

    Without one: a file that syslog daemons write, or the journal. Where xCAT's commands run on
    another machine its journal is read.
    """
    macs = addresses(mac)
    places = (setting,) if setting else PLACES * runner.is_local
    try:
        path = next((p for p in map(Path, places) if p.is_file()), None)
        if path is not None:
            return FileLog(path, macs)
        if setting == "journal" or (not setting and (not runner.is_local or JOURNAL.is_dir())):
            return JournalLog(runner, macs, cancellation)
    except (OSError, ProvisioningError):
        return NoLog()
    return NoLog()
