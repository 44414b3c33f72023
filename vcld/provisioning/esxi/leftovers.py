"""Folders that a computer's VMs have left on a datastore."""

from __future__ import annotations

from vcld.provisioning.esxi import usage
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.paths import DatastorePath


def remove(host: Host, base: DatastorePath) -> list[DatastorePath]:
    """Delete the computer's folders that no VM uses any more.

    A host does not know what the others have registered that see the same datastore: a computer
    that was given to another host may still have its VM on the old one. A host that cannot be
    asked keeps nothing: it would keep every computer from being loaded that a worker's death has
    left a folder of, and hosts lock the disks of what runs.

    Returns:
        Those that VMs on other hosts use; they stay.
    """
    left = host.machines.left_folders(base)
    theirs = (usage.used_elsewhere(host, base) or set()) if left else set()
    for folder in left:
        if folder not in theirs:
            host.files.delete(folder)
    kept = [folder for folder in left if folder in theirs]
    if kept:
        host.tools.log.warning(
            "a VM on another host uses the computer's folder, which stays", folder=str(kept[0])
        )
    return kept
