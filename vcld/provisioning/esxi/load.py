"""Loading: from whatever the VM host has of the computer to a VM that runs the wanted image.

Every step finds out what is so before it acts, so that a load may be done over after a death at
any point. What is made last says that all is made: a master by its name, a VM by its power.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from vcld.errors import (
    BackendUnavailableError,
    Blame,
    FatalProvisioningError,
    ProvisioningError,
)
from vcld.provisioning.esxi import (
    creating,
    disks,
    leftovers,
    masters,
    naming,
    placing,
    reclaim,
    sources,
    spec,
)
from vcld.provisioning.esxi.disks import DiskMode
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.images import ADAPTERS, MIB, StoredImage
from vcld.provisioning.esxi.inventory import Datastore, Machine, Network
from vcld.provisioning.esxi.machines import POWERED_OFF
from vcld.provisioning.esxi.paths import DatastorePath, parse

#: Loads at one time per VM host, where the site sets no limit.
LOADS = 8
#: Part of an image's size that a linked disk may grow to before the next load.
DELTA_SHARE = 4
DISK_TEXTS = {
    DiskMode.LINKED: "a linked disk",
    DiskMode.COPY: "a disk of its own",
    DiskMode.CLONE: "a linked clone",
}
#: In the order of the cards, each with the MAC address that VCL gives it, if any.
Networks = list[tuple[Network, str | None]]


class Loader:
    """One load."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._reservation = host.reservation
        self._name = host.reservation.computer.shortname
        self._image = host.reservation.imagerevision.imagename

    @cached_property
    def mode(self) -> DiskMode:
        """How the VM gets its disk."""
        return disks.choose(self._host)

    def run(self) -> None:
        """Load, up to a VM that was started.

        Raises:
            ProvisioningError: it could not be done; ``blame`` says whose fault it is.
        """
        host = self._host
        limit = host.limit("loads", host.vmhost.hostname, LOADS)
        what = f"a turn at loading on {host.vmhost.hostname}"
        with (
            host.leases.hold(f"loads:{host.vmhost.computerid}", what, limit=limit),
            host.leases.promise(host.use_name(self._image), 0),
        ):
            self._load()

    def _load(self) -> None:
        host, tell = self._host, self._host.tools.progress
        host.freshen()
        tell("startload", f"preparing the load of {self._image} on {self._name}")
        self._refuse_maintenance()
        nets = spec.networks(self._reservation, host.inventory)
        host.step("load:remove")
        self._remove_old()
        self._check_macs()
        tell("transfervm", f"putting {self._image} on datastore {host.masters.base.datastore}")
        host.step("load:master")
        master = masters.ensure(host, self._image)
        host.freshen()
        host.step("load:space")
        with self._space(master):
            machine = self._make(master, nets)
            host.step("load:check")
            self._check_disks(machine, master)
            tell("startvm", f"starting the virtual machine {self._name}")
            host.step("load:start")
            host.leases.confirm()
            host.machines.power_on(machine)
        host.step("load:started")

    def _make(self, master: StoredImage, nets: Networks) -> Machine:
        host, setting_up = self._host, f"configuring the virtual machine {self._name}"
        master = replace(master, hardware=creating.fit(host, master.hardware))
        if self.mode is DiskMode.CLONE:
            host.tools.progress("vmsetupconfig", setting_up)
            cards = self._cards(master, nets)
            config = spec.clone_config(self._reservation, host.inventory, master, cards)
            return sources.clone(host, master, config)
        host.step("load:folder")
        host.files.make_folder(host.vm_folder)
        if self.mode is DiskMode.COPY:
            host.step("load:disk")
            self._copy_disk(master)
        host.tools.progress("vmsetupconfig", setting_up)
        host.step("load:create")
        return self._create(master, nets)

    def plan(self) -> list[str]:
        """What a load would do, a sentence each; nothing is changed.

        Raises:
            ProvisioningError: the load would fail.
        """
        host = self._host
        self._refuse_maintenance()
        nets = spec.networks(self._reservation, host.inventory)
        self._check_macs()
        lines = [f"remove VM {vm.name} ({vm.power})" for vm in host.machines.own()]
        store = host.datastore_of(host.masters.base)
        found = host.masters.find(self._image)
        source = found or host.find_stored(self._image)
        if source is None:
            where = f"datastore {store.name} nor in the repository"
            raise FatalProvisioningError(
                f"image {self._image} is neither on {where}; a load would ask"
                " the partner management nodes for it, which a plan does not",
                blame=Blame.IMAGE,
            )
        if found is None:
            lines.append(f"copy {source.disk} to {store.name} ({source.size_mib} MiB)")
        for one, needed in self._needs(source).values():
            free = host.space.available_bytes(one)
            verdict = "enough" if free >= needed else "TOO LITTLE"
            lines.append(
                f"datastore {one.name}: {needed // MIB} MiB needed, {max(0, free) // MIB} MiB"
                f" available: {verdict}"
            )
        disk = DISK_TEXTS[self.mode]
        guest = spec.guest_id(self._reservation.image, source.hardware)
        count, _ = spec.processors(self._reservation.image, guest, host.inventory.cores)
        lines.append(
            f"create VM {naming.vm_name(self._reservation)} in {self._folder}: {guest}, {count}"
            f" CPUs, {spec.memory_mib(self._reservation.image)} MiB, {disk}"
        )
        lines += [f"connect {net.name} with MAC {mac or 'of its own'}" for net, mac in nets]
        return [*lines, "start it"]

    @property
    def _base(self) -> DatastorePath:
        base = self._host.vm_base
        return sources.root_of(base) if self.mode is DiskMode.CLONE else base

    @property
    def _folder(self) -> DatastorePath:
        return self._base / naming.vm_folder_name(self._reservation)

    def _refuse_maintenance(self) -> None:
        if self._host.inventory.in_maintenance:
            raise BackendUnavailableError(
                f"{self._host.vmhost.hostname} is in maintenance mode, nothing can be started on"
                " it: end that there"
            )

    def _remove_old(self) -> None:
        machines = self._host.machines
        own = machines.own()
        machines.remove(own)
        folder = self._folder
        if not own:
            # A worker may have died before it registered what it made.
            kept = leftovers.remove(self._host, self._base)
            if kept:
                raise ProvisioningError(
                    f"{kept[0]} is in use by a VM on another host that sees the datastore: if"
                    f" {self._name} was on that host before, remove its VM there",
                    blame=Blame.COMPUTER,
                )
        elif folder not in {vm.path.parent for vm in own if vm.path is not None}:
            self._host.files.delete(folder)

    def _check_macs(self) -> None:
        own = {vm.ref for vm in self._host.machines.own()}
        for vm in self._host.machines.with_our_macs():
            state = "" if vm.ref in own else self._host.machines.power_state(vm)
            if state == POWERED_OFF:
                # Such as the VM that a base image was captured from: no harm while it is off.
                self._host.tools.log.warning(
                    "another VM has the computer's MAC address: it must not be started", vm=vm.name
                )
            elif state:
                raise ProvisioningError(
                    f"VM {vm.name!r} has the MAC address of {self._name}: remove that VM, or"
                    " change the address of one of them",
                    blame=Blame.COMPUTER,
                )

    def _needs(self, master: StoredImage) -> dict[str, tuple[Datastore, int]]:
        image = self._reservation.image
        disk = master.size_bytes
        if self.mode is not DiskMode.COPY:
            disk = max(disk, image.size_mib * MIB) // DELTA_SHARE
        store = self._host.datastore_of(self._host.vm_base)
        # The swap file is as large as the memory.
        return {store.url: (store, disk + spec.memory_mib(image) * MIB)}

    @contextmanager
    def _space(self, master: StoredImage) -> Iterator[None]:
        host = self._host

        def make_room(store: Datastore, missing: int) -> None:
            reclaim.make_room(host, store, missing, self._image)

        with host.space.promise(self._needs(master), make_room):
            yield

    def _copy_disk(self, master: StoredImage) -> None:
        host, folder = self._host, self._host.vm_folder
        tell = masters.copy_teller(host, f"copying {self._image} for {self._name}")
        with masters.copy_turn(host, host.datastore_of(folder)):
            adapter = ADAPTERS.get(master.hardware.controller, "lsiLogic")
            target = folder / f"{folder.name}.vmdk"
            host.files.copy_disk(master.disk, target, tell, adapter=adapter)

    def _cards(self, master: StoredImage, nets: Networks) -> list[Any]:
        client = self._host.client
        return [
            spec.card(
                index,
                network,
                mac,
                master.hardware,
                placing.switch_uuid(client, network) if network.switch else "",
            )
            for index, (network, mac) in enumerate(nets)
        ]

    def _create(self, master: StoredImage, nets: Networks) -> Machine:
        host, folder = self._host, self._host.vm_folder
        capacity = spec.check_disk(master, self._reservation.image)
        if self.mode is DiskMode.LINKED:
            disk = spec.linked_disk(folder, master, capacity)
        else:
            disk = spec.own_disk(folder, capacity)
        cards = self._cards(master, nets)
        config = spec.make_config(self._reservation, host.inventory, folder, master, disk, cards)
        ref = creating.create(host, config, f"the virtual machine {self._name} cannot be made")
        return Machine(
            ref=ref,
            name=config.name,
            path=folder / f"{folder.name}.vmx",
            power="poweredOff",
            connection="connected",
        )

    def _check_disks(self, machine: Machine, master: StoredImage) -> None:
        """Make sure, before it runs, that the VM writes into its own folder only."""
        found = self._host.machines.disks(machine)
        folder = machine.path.parent if machine.path is not None else self._folder
        good = bool(found) and naming.is_folder_of(self._reservation.computer, folder.name)
        for disk in found:
            path: DatastorePath = parse(disk.path)
            good = good and folder.holds(path) and path != master.disk
            if self.mode is DiskMode.COPY:
                good = good and not disk.chain
            else:
                good = good and bool(disk.chain) and parse(disk.chain[-1]) == master.disk
        if good:
            return
        if not self._host.machines.power_state(machine):
            raise BackendUnavailableError(
                f"the virtual machine {self._name} was removed from its VM host, and not by this"
                " load: it is done over",
                blame=Blame.NOBODY,
            )
        self._host.machines.remove([machine])
        raise ProvisioningError(
            f"the VM host did not make the disk of {self._name} as it was told: it would write"
            f" to {', '.join(disk.path for disk in found) or 'nothing'}; the VM was removed",
            blame=Blame.VMHOST,
        )
