"""The VMs of one computer: found by registration, folder and MAC, switched, and removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from vcld.errors import Blame, LoadTimeoutError, ProvisioningError
from vcld.provisioning.esxi import faults, naming
from vcld.provisioning.esxi.client import Client
from vcld.provisioning.esxi.files import Files
from vcld.provisioning.esxi.inventory import Inventory, Machine
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.provisioning.esxi.spec import OWNER_KEY
from vcld.snapshot import Reservation
from vcld.waiting import pauses

device: Any = vim.vm.device
POWERED_ON, POWERED_OFF, SUSPENDED = "poweredOn", "poweredOff", "suspended"
#: The last pause between two attempts at removing a VM from the register.
LAST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of a VM."""

    path: str
    mode: str
    capacity_kib: int
    #: The disks it is a delta of, the nearest first.
    chain: tuple[str, ...]
    controller: str

    @property
    def parent(self) -> str | None:
        """The disk it is a delta of."""
        return self.chain[0] if self.chain else None


class Machines:
    """What one reservation's computer has on the VM host."""

    def __init__(
        self,
        client: Client,
        inventory: Inventory,
        files: Files,
        reservation: Reservation,
        *,
        task_seconds: float,
    ) -> None:
        self._client = client
        self._inventory = inventory
        self._files = files
        self._computer = reservation.computer
        self._reservation = reservation
        self._task_seconds = task_seconds

    def own(self) -> list[Machine]:
        """VMs that were made for the computer, valid ones first.

        Name or folder must be the computer's, and the VM must not say that it is another's. One
        that does not say whose it is, as those of the Perl daemon, must lie in a folder that is
        the computer's: whoever made ``vm1_backup`` by hand wants to keep it. So does who cloned
        it of the computer's VM, and with that what this says: its name must end as VCL's do.
        """
        alike = [vm for vm in self._inventory.machines if self._is_alike(vm)]
        if not alike:
            return []
        owners = self._owners([vm.ref for vm in alike if vm.is_valid])
        mine = str(self._computer.id)
        found = [
            vm
            for vm in alike
            if owners.get(vm.ref, mine) == mine
            and (
                self._is_in_own_folder(vm)
                or (vm.ref in owners and naming.is_vm_of(self._computer, vm.name))
            )
        ]
        return sorted(found, key=lambda vm: not vm.is_valid)

    def find(self) -> Machine | None:
        """The computer's VM: one that was made for it, or else the one that has its MACs."""
        own = [vm for vm in self.own() if vm.is_valid]
        if own:
            wanted = naming.vm_name(self._reservation)
            return next((vm for vm in own if vm.name == wanted), own[0])
        return next(iter(self.with_our_macs()), None)

    def get(self) -> Machine:
        """As ``find``.

        Raises:
            ProvisioningError: there is none; the computer is at fault.
        """
        found = self.find()
        if found is None:
            raise ProvisioningError(f"{self._computer.shortname} has no VM on its VM host")
        return found

    def with_our_macs(self) -> list[Machine]:
        """VMs on the profile's networks whose cards have a MAC address of the computer."""
        profile = self._computer.vmhost.profile if self._computer.vmhost else None
        macs = set(naming.mac_addresses(self._computer)) - {None}
        names = set(profile.virtualswitches) if profile else set()
        nets = {net.ref for name, net in self._inventory.networks.items() if name in names}
        near = [vm.ref for vm in self._inventory.machines if nets & set(vm.networks)]
        if not macs or not near:
            return []
        found = self._client.read(near, {vim.VirtualMachine: ("config.hardware.device",)})
        using = {
            ref
            for ref, facts in found.items()
            if macs & {card.macAddress.lower() for card in _cards(facts) if card.macAddress}
        }
        return [vm for vm in self._inventory.machines if vm.ref in using]

    def disks(self, machine: Machine) -> list[Disk]:
        """The disks of a VM."""
        facts = self._client.read_one(machine.ref, "config.hardware.device")
        devices = facts.get("config.hardware.device", ())
        names = {one.key: type(one).__name__.rpartition(".")[2] for one in devices}
        return [
            Disk(
                path=one.backing.fileName,
                mode=one.backing.diskMode or "persistent",
                capacity_kib=one.capacityInKB or 0,
                chain=tuple(_parents(one.backing)),
                controller=names.get(one.controllerKey, ""),
            )
            for one in devices
            if isinstance(one, device.VirtualDisk)
        ]

    def card(self, machine: Machine) -> str:
        """Class name of the VM's first network card; empty when it has none."""
        facts = self._client.read_one(machine.ref, "config.hardware.device")
        cards = _cards(facts)
        return type(cards[0]).__name__.rpartition(".")[2] if cards else ""

    def power_state(self, machine: Machine) -> str:
        """The state at this moment; empty when the VM is gone."""
        facts = self._client.read_one(machine.ref, "runtime.powerState")
        return str(facts.get("runtime.powerState", ""))

    def power_on(self, machine: Machine) -> None:
        """Start a VM; one that runs is left alone, whatever the answer to the call was."""
        name = self._computer.shortname
        try:
            self._task(machine.ref.PowerOnVM_Task, f"{name} cannot be started", Blame.COMPUTER)
        except vim.fault.InvalidPowerState:
            return
        except vmodl.MethodFault as fault:
            if self.power_state(machine) != POWERED_ON:
                raise faults.translate(
                    fault, f"{name} cannot be started", Blame.COMPUTER
                ) from fault
        except ProvisioningError:
            if self.power_state(machine) != POWERED_ON:
                raise

    def power_off(self, machine: Machine) -> None:
        """Switch a VM off hard; one that is off, or gone, is left alone."""
        name = self._computer.shortname
        try:
            self._task(machine.ref.PowerOffVM_Task, f"{name} cannot be switched off")
        except (vim.fault.InvalidPowerState, *faults.GONE):
            return
        except ProvisioningError:
            if self.power_state(machine) == POWERED_ON:
                raise

    def wait_off(self, machine: Machine, limit_seconds: float) -> bool:
        """Wait until a VM is off; False when it is not within the limit."""
        states = self._client.watch(
            machine.ref, ["runtime.powerState"], limit_seconds=limit_seconds
        )
        return any(facts.get("runtime.powerState") == POWERED_OFF for facts in states)

    def remove(self, machines: Iterable[Machine]) -> None:
        """Switch VMs off, unregister them and delete their folders.

        VMs are never destroyed by the API's own call, which would take a linked disk's master
        along.

        Raises:
            ProvisioningError: a VM is still there; it stays registered, for the next attempt.
        """
        for machine in machines:
            if machine.power != POWERED_OFF and machine.is_valid:
                self.power_off(machine)
            self.unregister(machine)
            if machine.path is not None and self._is_removable(machine, machine.path):
                self._files.delete(machine.path.parent)

    def left_folders(self, base: DatastorePath) -> list[DatastorePath]:
        """Folders of the computer that no VM that is registered here uses any more."""
        used = {vm.path.parent for vm in self._inventory.machines if vm.path is not None}
        own = {vm.path.parent for vm in self.own() if vm.path is not None}
        return [
            base / name
            for name, facts in (self._files.list(base) or {}).items()
            if naming.is_folder_of(self._computer, name) and facts.is_folder
            if base / name not in used - own
        ]

    def unregister(self, machine: Machine) -> None:
        """Remove a VM from the register, and leave its files.

        Raises:
            ProvisioningError: it is still there.
        """
        failed: Any = None
        for pause in pauses(0.2, LAST_PAUSE_SECONDS, 2.0):
            try:
                machine.ref.UnregisterVM()
            except faults.GONE:
                return
            except vim.fault.InvalidPowerState as fault:
                failed = fault
                self.power_off(machine)
            except vmodl.MethodFault as fault:
                failed = fault
            else:
                return
            if pause >= LAST_PAUSE_SECONDS:
                break
            self._client.session.cancellation.wait(pause)
        raise LoadTimeoutError(
            f"VM {machine.name!r} cannot be removed from the VM host: {faults.describe(failed)};"
            " it is still registered, remove it by hand or try again",
            blame=Blame.COMPUTER,
        )

    def _task(self, begin: Any, what: str, blame: Blame = Blame.VMHOST) -> None:
        self._client.run_task(begin, what, blame=blame, limit_seconds=self._task_seconds)

    def _is_alike(self, vm: Machine) -> bool:
        return naming.is_name_of(self._computer, vm.name) or self._is_in_own_folder(vm)

    def _is_in_own_folder(self, vm: Machine) -> bool:
        return vm.path is not None and naming.is_folder_of(self._computer, vm.path.parent.name)

    def _is_removable(self, vm: Machine, path: DatastorePath) -> bool:
        """Folders of VCL's VMs only: a base VM made by hand keeps its files."""
        folder = path.parent.name
        is_moved = naming.is_vm_of(self._computer, vm.name)
        is_moved = is_moved and naming.is_folder_named_for(vm.name, folder)
        return naming.is_folder_of(self._computer, folder) or is_moved

    def _owners(self, refs: list[Any]) -> Mapping[Any, str]:
        found = self._client.read(refs, {vim.VirtualMachine: ("config.extraConfig",)})
        return {
            ref: str(option.value)
            for ref, facts in found.items()
            for option in facts.get("config.extraConfig", ())
            if option.key == OWNER_KEY
        }


def _parents(backing: Any) -> Iterable[str]:
    parent = getattr(backing, "parent", None)
    while parent is not None:
        yield parent.fileName
        parent = getattr(parent, "parent", None)


def _cards(facts: Mapping[str, Any]) -> list[Any]:
    devices = facts.get("config.hardware.device", ())
    return [one for one in devices if isinstance(one, device.VirtualEthernetCard)]
