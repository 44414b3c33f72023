"""Processes, told apart for certain: a pid together with the moment it started.

A pid alone proves nothing, because the kernel uses it again.
"""

from __future__ import annotations

import os
import signal as signals
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for certain. ``started`` is field 22 of /proc/PID/stat, in clock ticks."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        """True while exactly this process runs; a zombie does not."""
        return started_at(self.pid) == self.started

    def open_pidfd(self) -> int | None:
        """A descriptor that becomes readable at the process's end; None if it is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.is_alive():
            return fd
        os.close(fd)
        return None

    def send(self, number: signals.Signals) -> bool:
        """Signal the process; False if it is gone. Never hits a successor with the same pid."""
        fd = self.open_pidfd()
        if fd is None:
            return False
        try:
            signals.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


def started_at(pid: int) -> int | None:
    """The start of a live process in ticks since boot, None for a dead one or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command may hold spaces and brackets: fields count from the last bracket.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def titles() -> Iterator[tuple[int, str]]:
    """Pid and command line of all processes of this machine, as they call themselves."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue  # it has just ended
        yield int(folder.name), line.decode("utf-8", "replace")


def own() -> ProcessId:
    """This process."""
    pid = os.getpid()
    started = started_at(pid)
    if started is None:
        msg = f"/proc/{pid}/stat cannot be read: is /proc mounted?"
        raise OSError(msg)
    return ProcessId(pid, started)


def is_gone(host: str, kernel_boot: str, process: ProcessId) -> bool:
    """True if it was a process of this machine and has ended; False for other machines'."""
    if host != socket.gethostname():
        return False
    return kernel_boot != kernel_boot_id() or not process.is_alive()


def kernel_boot_id() -> str:
    """The kernel's random id of this boot: pids of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
