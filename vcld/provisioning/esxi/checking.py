"""Would a load work on this VM host? Questions that change nothing."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vcld.errors import VcldError
from vcld.guest.interface import Tools
from vcld.provisioning.esxi import disks, licence, naming, rights
from vcld.provisioning.esxi.client import Client
from vcld.provisioning.esxi.disks import DiskMode
from vcld.provisioning.esxi.endpoint import make_endpoint
from vcld.provisioning.esxi.files import Files
from vcld.provisioning.esxi.inventory import Inventory
from vcld.provisioning.esxi.paths import parse
from vcld.provisioning.esxi.placing import read_inventory
from vcld.provisioning.esxi.session import Session
from vcld.provisioning.esxi.space import GIB, SPARE_BYTES, free_bytes
from vcld.snapshot import VMHost
from vcld.store import leases, secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    text: str


def check_host(vmhost: VMHost, tools: Tools) -> list[Finding]:
    """Look at everything that a load needs, as far as one thing does not need another."""
    try:
        endpoint = make_endpoint(vmhost, tools.settings, partial(tools.run, secrets.find_for))
    except VcldError as err:
        return [Finding(what="profile", ok=False, text=str(err))]
    session = Session(endpoint, tools.cancellation, tools.log, patience_seconds=0)
    client = Client(session)
    where = f"{endpoint.address}:{endpoint.port}"
    try:
        about = client.content.about
        guard = "pinned" if endpoint.thumbprint else endpoint.ca_file or "the system's authorities"
        found = [
            Finding(what="API", ok=True, text=f"{about.fullName} at {where}"),
            Finding(what="certificate", ok=True, text=f"checked: {guard}"),
            Finding(what="login", ok=True, text=f"as {endpoint.username}"),
        ]
    except VcldError as err:
        return [Finding(what="API", ok=False, text=str(err))]
    try:
        if not session.is_vcenter:
            text, ok = licence.check(client)
            found.append(Finding(what="licence", ok=ok, text=text))
        inventory = read_inventory(client, vmhost)
        if inventory.in_maintenance:
            text = "in maintenance mode: nothing can be started"
            found.append(Finding(what="host", ok=False, text=text))
        mode = _disks(client, vmhost, tools, found)
        text, ok = rights.check(client, inventory, vmhost, clones=mode is DiskMode.CLONE)
        found.append(Finding(what="rights", ok=ok, text=text))
        found += _datastores(client, inventory, vmhost, tools)
        found += _networks(inventory, vmhost)
    except VcldError as err:
        found.append(Finding(what="inventory", ok=False, text=str(err)))
    finally:
        session.close()
    return found


def _disks(client: Client, vmhost: VMHost, tools: Tools, found: list[Finding]) -> DiskMode:
    """How VMs get their disks, as far as no image says otherwise."""
    try:
        name, mode = disks.wanted(tools, vmhost, None) or ("", DiskMode.LINKED)
        if mode is DiskMode.CLONE and not client.session.is_vcenter:
            raise disks.no_vcenter(name, vmhost)
    except VcldError as err:
        found.append(Finding(what="disks", ok=False, text=str(err)))
        return DiskMode.LINKED
    why = f"variable {name}" if name else "no variable says otherwise"
    found.append(Finding(what="disks", ok=True, text=f"{mode.value} ({why})"))
    return mode


def _datastores(
    client: Client, inventory: Inventory, vmhost: VMHost, tools: Tools
) -> list[Finding]:
    profile = vmhost.profile
    paths = {"masters": profile.datastorepath, "VMs": profile.vmpath or profile.datastorepath}
    repository = (profile.repositorypath or "").strip()
    if inventory.has_datastore(repository):
        paths["repository"] = repository
    files = Files(client, inventory, copy_seconds=1)
    found = []
    for what, text in paths.items():
        try:
            path = parse(text)
            store = inventory.datastore(path.datastore)
            path = dataclasses.replace(path, datastore=store.name)
            entries = files.list(path) if path.path else {}
        except ValueError:
            wrong = f"the path {text!r} names no datastore; write [datastore] folder"
            found.append(Finding(what=what, ok=False, text=wrong))
            continue
        except VcldError as err:
            found.append(Finding(what=what, ok=False, text=f"{text}: {err}"))
            continue
        promised: int = tools.run(leases.promised, f"space:{store.url}")
        free = free_bytes(client, store) - promised - SPARE_BYTES
        facts = f"{path}: {free / GIB:.1f} GiB for new loads, {promised / GIB:.1f} GiB promised"
        if entries is None:
            facts += "; the folder is not there yet"
        elif what != "VMs":
            whole = [name for name, one in entries.items() if one.is_folder]
            parts = [name for name in whole if naming.PARTIAL in name]
            facts += f"; {len(whole) - len(parts)} images"
            facts += f", {len(parts)} unfinished copies" if parts else ""
        found.append(Finding(what=what, ok=free > 0, text=facts))
    if repository and "repository" not in paths:
        folder = Path(repository)
        good = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        text = f"{folder} on this management node"
        text += "" if good else " is not there, or cannot be written"
        found.append(Finding(what="repository", ok=good, text=text))
    return found


def _networks(inventory: Inventory, vmhost: VMHost) -> list[Finding]:
    found = []
    for number, name in enumerate(vmhost.profile.virtualswitches):
        if not name:
            continue
        try:
            network = inventory.network(name)
            kind = "distributed port group" if network.switch else "network"
            found.append(Finding(what=f"card {number}", ok=True, text=f"{kind} {name}"))
        except VcldError as err:
            found.append(Finding(what=f"card {number}", ok=False, text=str(err)))
    return found
