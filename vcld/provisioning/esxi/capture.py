"""Capturing: a VM's disk becomes a master and, where there is one, an image in the repository.

The VM's own disk is only read. Copies are made beside their places and get their names last,
so that whatever fails leaves the VM, and every image that was there, as they were.
"""

from __future__ import annotations

from contextlib import ExitStack

from vcld.errors import (
    Blame,
    FatalProvisioningError,
    LoadTimeoutError,
    ProvisioningError,
    WorkerStopped,
)
from vcld.guest.interface import EndState, Guest
from vcld.provisioning.esxi import masters, reclaim
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.images import MIB, Draft, ImageFolder
from vcld.provisioning.esxi.inventory import Datastore, Machine
from vcld.provisioning.esxi.machines import POWERED_ON, Disk
from vcld.provisioning.esxi.marker import Hardware
from vcld.provisioning.esxi.paths import parse
from vcld.waiting import wait_until

#: Time that a guest has for shutting itself down.
OFF_SECONDS = 600.0
#: Time that a guest has to answer after it was started for its capture.
ANSWER_SECONDS = 300.0


class Capture:
    """One capture."""

    def __init__(self, host: Host, guest: Guest) -> None:
        self._host = host
        self._guest = guest
        self._name = host.reservation.computer.shortname
        self._image = host.reservation.imagerevision.imagename

    def run(self, *, keep_running: bool) -> None:
        """Capture; without ``keep_running`` the VM is removed in the end.

        Raises:
            ProvisioningError: it failed; the VM runs again, if that was possible.
        """
        host = self._host
        machine = host.machines.get()
        self._only_disk(machine)
        what = f"the capture of {self._image}"
        with host.leases.hold(host.master_lease(self._image), what):
            self._refuse_taken()
            try:
                host.step("capture:shut-down")
                self._shut_down(machine)
                host.step("capture:off")
                # Not as it was before: whoever makes backups makes snapshots, and what is written
                # goes to another file then.
                self._store(machine, self._only_disk(machine))
            except (Exception, WorkerStopped) as err:
                self._wake(machine, err)
                raise
        host.step("capture:stored")
        if not keep_running:
            self._remove(machine)

    def _remove(self, machine: Machine) -> None:
        """Remove the VM, whose disk is stored; the next load removes what is left of it."""
        machines = self._host.machines
        try:
            machines.remove(vm for vm in machines.own() if vm.ref == machine.ref)
        except ProvisioningError as err:
            self._host.tools.log.warning(
                "the captured VM is left to the next load", reason=str(err)
            )

    def _refuse_taken(self) -> None:
        found = self._host.masters.find(self._image) or self._host.find_stored(self._image)
        if found is not None:
            where = found.folder if found.folder.datastore else "the repository"
            raise FatalProvisioningError(
                f"image {self._image} exists already in {where}; nothing was captured: if it is"
                " left from a capture that did not end, remove it there and capture again",
                blame=Blame.IMAGE,
            )
        for place in (self._host.masters, self._host.repository, self._host.local_repository):
            if place is not None:
                place.refuse_incomplete(self._image)

    def _only_disk(self, machine: Machine) -> Disk:
        disks = self._host.machines.disks(machine)
        if len(disks) != 1:
            raise FatalProvisioningError(
                f"VM {machine.name!r} has {len(disks)} disks; only a VM with one can be captured",
                blame=Blame.NOBODY,
            )
        if "nonpersistent" in disks[0].mode:
            raise FatalProvisioningError(
                f"the disk of VM {machine.name!r} is {disks[0].mode}: what its user did is not on"
                " it",
                blame=Blame.NOBODY,
            )
        return disks[0]

    def _shut_down(self, machine: Machine) -> None:
        """Let the guest prepare itself and switch itself off.

        One that is off already may not have been prepared: it is started for that.
        """
        machines = self._host.machines
        if machines.power_state(machine) != POWERED_ON:
            machines.power_on(machine)
            if not wait_until(
                self._guest.is_responding,
                self._host.tools.cancellation,
                limit_seconds=ANSWER_SECONDS,
            ):
                raise LoadTimeoutError(f"{self._name} was off, and does not answer when started")
        self._guest.pre_capture(EndState.OFF)
        if not machines.wait_off(machine, OFF_SECONDS):
            self._host.tools.log.warning("the guest did not shut down, it is switched off")
            machines.power_off(machine)

    def _store(self, machine: Machine, disk: Disk) -> None:
        host = self._host
        places = [host.masters]
        if host.repository is not None and host.repository.base != host.masters.base:
            places.insert(0, host.repository)
        hardware, reference = self._hardware(machine, disk), self._reference(machine)
        size = self._size_bytes(disk)
        local = host.local_repository
        if local is not None:
            local.refuse_full(self._image, size)
        needs: dict[str, tuple[Datastore, int]] = {}
        for place in places:
            store = host.datastore_of(place.base)
            before = needs.get(store.url, (store, 0))[1]
            needs[store.url] = (store, before + size)
        drafts: list[Draft] = []
        with ExitStack() as undo:
            undo.enter_context(
                host.space.promise(
                    needs,
                    lambda store, missing: reclaim.make_room(host, store, missing, self._image),
                )
            )
            undo.callback(_discard, drafts)
            for place in places:
                host.step("capture:copy")
                drafts.append(self._copy(place, disk, hardware, reference))
            if local is not None:
                host.step("capture:fetch")
                fetched = local.store(self._image, drafts[-1].folder)
                host.leases.confirm()
                local.publish(self._image, fetched)
            host.leases.confirm()
            while drafts:
                host.step("capture:publish")
                drafts[0].publish()
                drafts.pop(0)

    def _size_bytes(self, disk: Disk) -> int:
        """What a copy may need: all that the disk and its parents hold now."""
        held = 0
        for text in (disk.path, *disk.chain):
            path = parse(text)
            stem = path.name.removesuffix(".vmdk")
            entries = self._host.files.list(path.parent) or {}
            held += sum(
                facts.size_bytes
                for name, facts in entries.items()
                if name.startswith(stem) and name.endswith(".vmdk")
            )
        return max(self._host.reservation.image.size_mib * MIB, held)

    def _reference(self, machine: Machine) -> str:
        """The VM's own vmx file; empty when the host does not give it."""
        if machine.path is None:
            return ""
        try:
            return self._host.files.read_text(machine.path) or ""
        except ProvisioningError as err:
            self._host.tools.log.info("the vmx file cannot be read", reason=str(err))
            return ""

    def _copy(self, place: ImageFolder, disk: Disk, hardware: Hardware, reference: str) -> Draft:
        host = self._host
        store = host.datastore_of(place.base)
        with masters.copy_turn(host, store):
            return place.add(
                self._image,
                parse(disk.path),
                hardware=hardware,
                reference=reference,
                capacity_kib=disk.capacity_kib or None,
                expected_bytes=None,
                on_progress=masters.copy_teller(
                    host, f"copying {self._image} to {store.name}", "info"
                ),
                confirm=host.leases.confirm,
            )

    def _hardware(self, machine: Machine, disk: Disk) -> Hardware:
        facts = self._host.client.read_one(
            machine.ref, "config.guestId", "config.firmware", "config.version"
        )
        return Hardware(
            guest_id=facts.get("config.guestId", ""),
            controller=disk.controller,
            card=self._host.machines.card(machine),
            firmware=facts.get("config.firmware", ""),
            version=facts.get("config.version", ""),
        )

    def _wake(self, machine: Machine, why: BaseException) -> None:
        """After a failure the computer runs as before, for its user or an administrator."""
        self._host.tools.log.warning("the capture failed, the VM is started again", reason=str(why))
        with self._host.session.farewell():
            try:
                self._host.machines.power_on(machine)
            except ProvisioningError as err:
                self._host.tools.log.error("the VM could not be started again", reason=str(err))


def _discard(drafts: list[Draft]) -> None:
    for draft in drafts:
        draft.discard()
