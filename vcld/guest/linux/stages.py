"""Stage scripts: a site's own, run at named moments on the computer or on this node.

``stage_scripts_dir`` has the layout of VCL's ``tools``: ``Linux/Scripts/STAGE/`` for the
computer, ``ManagementNode/Scripts/STAGE/`` for this node. A script that fails is told of and
fails nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcld import clock

if TYPE_CHECKING:
    from vcld.guest.linux.guest import LinuxGuest

#: Where they are put on the computer while they run.
STAGING = "/root/VCL"
SCRIPT_SECONDS = 300
RUN = 'exec timeout -k 10 "$1" "$2" > /dev/null 2>&1 < /dev/null'
HERE_SECONDS = 300


def scripts(guest: LinuxGuest, where: str, stage: str) -> list[Path]:
    """The scripts of a stage by name; empty when the site has none."""
    root = guest.tools.settings.stage_scripts_dir
    if not root:
        return []
    folder = Path(root) / where / "Scripts" / stage
    found = sorted(folder.glob("*")) if folder.is_dir() else []
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def has_scripts(guest: LinuxGuest, stage: str) -> bool:
    """True when there is something to run on the computer."""
    return bool(scripts(guest, "Linux", stage))


def run_on_computer(guest: LinuxGuest, stage: str) -> bool:
    """Copy the stage's scripts to the computer and run them; True when there were any."""
    found = scripts(guest, "Linux", stage)
    if not found:
        return False
    guest.remote.run(["mkdir", "-p", "-m", "700", STAGING])
    for path in found:
        target = f"{STAGING}/{path.name}"
        guest.remote.put(path, target, mode=0o700)
        # What it leaves running must not hold our connection, nor what it writes flood it.
        command = ["sh", "-c", RUN, "sh", str(SCRIPT_SECONDS), target]
        result = guest.remote.run(command, limit_seconds=SCRIPT_SECONDS + 30)
        if result.status:
            guest.tools.log.warning(
                "a stage script failed", script=path.name, stage=stage, status=result.status
            )
    guest.remote.run(["rm", "-rf", "--", STAGING])
    return True


def run_here(guest: LinuxGuest, stage: str) -> None:
    """Run the stage's scripts on this node, with the reservation's facts in a JSON file."""
    found = scripts(guest, "ManagementNode", stage)
    if not found:
        return
    with tempfile.TemporaryDirectory(prefix="vcld-") as folder:
        facts = Path(folder) / f"{guest.reservation.id}.json"
        facts.write_text(json.dumps(_facts(guest.reservation), default=str), encoding="utf-8")
        for path in found:
            status = _run_here(guest, [str(path), str(facts)])
            if status:
                guest.tools.log.warning(
                    "a stage script failed", script=path.name, stage=stage, status=status
                )


def _run_here(guest: LinuxGuest, command: list[str]) -> int | None:
    """Run a program of the site's; its status, None when its time was over."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as err:
        guest.tools.log.warning("a stage script cannot be run", reason=str(err))
        return 126
    fd = os.pidfd_open(process.pid)
    deadline = clock.monotonic() + HERE_SECONDS
    try:
        while process.poll() is None and clock.monotonic() < deadline:
            guest.tools.cancellation.wait(deadline - clock.monotonic(), fd)
    finally:
        os.close(fd)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


def _facts(reservation: Any) -> Any:
    """The snapshot without what is secret: fields that are hidden from ``repr``."""
    if dataclasses.is_dataclass(reservation):
        return {
            item.name: _facts(getattr(reservation, item.name))
            for item in dataclasses.fields(reservation)
            if item.repr
        }
    if isinstance(reservation, (tuple, list)):
        return [_facts(item) for item in reservation]
    return reservation
