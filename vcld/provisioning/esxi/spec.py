"""The configuration of a VM: processors, memory, disk, cards, and whose it is."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from vcld.errors import Blame, FatalProvisioningError
from vcld.provisioning.esxi import naming
from vcld.provisioning.esxi.images import StoredImage
from vcld.provisioning.esxi.inventory import Inventory, Network
from vcld.provisioning.esxi.marker import Hardware
from vcld.provisioning.esxi.paths import DatastorePath
from vcld.snapshot import Image, Reservation

device: Any = vim.vm.device
CONTROLLER_KEY, DISK_KEY, FIRST_CARD_KEY = 1000, 2000, 4000
#: Kept in the VM's own configuration, so that nothing of somebody else's is ever removed.
OWNER_KEY, IMAGE_KEY, REVISION_KEY = "vcl.computer_id", "vcl.image_id", "vcl.imagerevision_id"
#: In place of an owner: the image that a VM is the source of clones of.
SOURCE_KEY = "vcl.source_of"
#: Guest ids by the beginning of OS.name, where the image itself does not tell: 32 and 64 bit.
GUESTS = (
    ("win10", "windows9Guest", "windows9_64Guest"),
    ("win8", "windows8Guest", "windows8_64Guest"),
    ("win7", "windows7Guest", "windows7_64Guest"),
    ("win2008", "windows7Server64Guest", "windows7Server64Guest"),
    ("win2012", "windows8Server64Guest", "windows8Server64Guest"),
    ("win2016", "windows9Server64Guest", "windows9Server64Guest"),
    ("winxp", "winXPProGuest", "winXPPro64Guest"),
    ("rhel7", "rhel7_64Guest", "rhel7_64Guest"),
    ("rhel6", "rhel6Guest", "rhel6_64Guest"),
    ("centos7", "centos64Guest", "centos64Guest"),
    ("centos", "centosGuest", "centos64Guest"),
    ("ubuntu", "ubuntuGuest", "ubuntu64Guest"),
    ("debian", "debian8Guest", "debian8_64Guest"),
    ("fedora", "fedoraGuest", "fedora64Guest"),
)
#: Memory for an image whose ``minram`` is 0.
UNSET_MIB = 512
#: Desktop Windows uses two sockets at most.
DESKTOP = ("windows7_", "windows8_", "windows9_", "windows7Guest", "windows8Guest", "windows9Guest")
#: The oldest hardware with which a VM can run a hypervisor (specification §8.6).
NESTING_VERSION = "vmx-09"
EXTRA = {
    "svga.autodetect": "TRUE",
    "tools.remindInstall": "FALSE",
    "tools.syncTime": "FALSE",
    "uuid.action": "keep",
    "gui.exitOnCLIHLT": "TRUE",
    "msg.autoAnswer": "TRUE",
}


def guest_id(image: Image, hardware: Hardware) -> str:
    """The guest operating system, from the image's own record or else from its OS."""
    if hardware.guest_id:
        return hardware.guest_id
    is_64 = "64" in image.architecture
    name = image.os_name.lower().removeprefix("vmware")
    for begin, narrow, wide in GUESTS:
        if name.startswith(begin):
            return wide if is_64 else narrow
    if image.os_type == "windows":
        return "windows9_64Guest" if is_64 else "windows9Guest"
    return "otherLinux64Guest" if is_64 else "otherLinuxGuest"


def generic_guest(image: Image, guest: str) -> str:
    """A guest id for a guest that the host is too old to know; every version of ESXi knows it."""
    is_64 = "64" in guest or "64" in image.architecture
    if image.os_type == "windows":
        return "windows7_64Guest" if is_64 else "windows7Guest"
    return "otherLinux64Guest" if is_64 else "otherLinuxGuest"


def processors(image: Image, guest: str, cores: int) -> tuple[int, int]:
    """Processors, and cores per socket: as few as the guest's limit of sockets allows."""
    count = max(1, min(image.minprocnumber, cores or image.minprocnumber))
    sockets = 2 if guest.startswith(DESKTOP) else count
    per_socket = next(n for n in range(1, count + 1) if count % n == 0 and count // n <= sockets)
    return count, per_socket


def memory_mib(image: Image) -> int:
    """Memory, a multiple of 4 as vSphere demands; an image that says nothing gets some."""
    return max(4, (image.minram_mib or UNSET_MIB) // 4 * 4)


def networks(reservation: Reservation, inventory: Inventory) -> list[tuple[Network, str | None]]:
    """Networks of the cards in order, each with the MAC address that VCL gives it, if any.

    Raises:
        FatalProvisioningError: the host lacks a network that the profile names, or the computer
            has a MAC address that is none.
    """
    computer = reservation.computer
    assert computer.vmhost is not None
    profile = computer.vmhost.profile
    macs = (*naming.mac_addresses(computer), None, None)
    wanted = [
        (inventory.network(name), mac)
        for name, mac in zip(profile.virtualswitches, macs, strict=True)
        if name
    ]
    project = reservation.image.project
    if project and project != "vcl":
        taken = {network.name for network, _ in wanted}
        for name in sorted(set(inventory.networks) - taken):
            if name.lower() in project.lower() or project.lower() in name.lower():
                wanted.append((inventory.networks[name], None))
    return wanted


def make_config(
    reservation: Reservation,
    inventory: Inventory,
    folder: DatastorePath,
    master: StoredImage,
    disk: Any,
    cards: list[Any],
) -> Any:
    """The whole configuration of a VM."""
    config = _config(reservation, inventory, master, _ownership(reservation))
    config.name = naming.vm_name(reservation)
    config.files = _files(folder)
    config.deviceChange = [_controller(master.hardware), disk, *cards]
    return config


def source_config(
    reservation: Reservation,
    inventory: Inventory,
    folder: DatastorePath,
    master: StoredImage,
    disk: Any,
) -> Any:
    """The configuration of a VM that clones are made from: it has no cards and no owner."""
    config = _config(reservation, inventory, master, {SOURCE_KEY: master.name})
    config.name = naming.source_name(master.name)
    config.files = _files(folder)
    config.deviceChange = [_controller(master.hardware), disk]
    return config


def clone_config(
    reservation: Reservation, inventory: Inventory, master: StoredImage, cards: list[Any]
) -> Any:
    """What a clone has that its source has not; disk and controller come from there."""
    config = _config(reservation, inventory, master, {**_ownership(reservation), SOURCE_KEY: ""})
    config.name = naming.vm_name(reservation)
    # These are set once, when a VM is created: they come from the source.
    config.version = config.firmware = config.guestId = None
    config.deviceChange = cards
    return config


def _ownership(reservation: Reservation) -> dict[str, str]:
    return {
        OWNER_KEY: str(reservation.computer.id),
        IMAGE_KEY: str(reservation.image.id),
        REVISION_KEY: str(reservation.imagerevision.id),
    }


def _config(
    reservation: Reservation, inventory: Inventory, master: StoredImage, extra: dict[str, str]
) -> Any:
    image, hardware = reservation.image, master.hardware
    guest = guest_id(image, hardware)
    count, per_socket = processors(image, guest, inventory.cores)
    options = {**EXTRA, **extra}.items()
    config = vim.vm.ConfigSpec(
        guestId=guest,
        numCPUs=count,
        numCoresPerSocket=per_socket,
        memoryMB=memory_mib(image),
        memoryHotAddEnabled=True,
        cpuHotAddEnabled=True,
        extraConfig=[vim.option.OptionValue(key=key, value=value) for key, value in options],
    )
    if hardware.firmware:
        config.firmware = hardware.firmware
    if hardware.version:
        config.version = hardware.version
    if inventory.nests and (hardware.version or NESTING_VERSION) >= NESTING_VERSION:
        config.nestedHVEnabled = True
    return config


def _files(folder: DatastorePath) -> Any:
    return vim.vm.FileInfo(vmPathName=str(folder / f"{folder.name}.vmx"))


def _controller(hardware: Hardware) -> Any:
    made = controller_class(hardware)(key=CONTROLLER_KEY, busNumber=0)
    if isinstance(made, device.VirtualSCSIController):
        made.sharedBus = "noSharing"
    return _added(made)


def controller_class(hardware: Hardware) -> Any:
    return getattr(device, hardware.controller or "VirtualLsiLogicController")


def linked_disk(folder: DatastorePath, master: StoredImage, capacity_kib: int) -> Any:
    """A delta disk in the VM's folder, whose parent is the master: it is never written."""
    backing = device.VirtualDisk.FlatVer2BackingInfo(
        fileName=str(folder / f"{folder.name}.vmdk"),
        diskMode="persistent",
        thinProvisioned=True,
        parent=device.VirtualDisk.FlatVer2BackingInfo(
            fileName=str(master.disk), diskMode="persistent"
        ),
    )
    return _added(_disk(backing, capacity_kib), file_operation="create")


def own_disk(folder: DatastorePath, capacity_kib: int) -> Any:
    """A disk that was copied into the VM's folder."""
    backing = device.VirtualDisk.FlatVer2BackingInfo(
        fileName=str(folder / f"{folder.name}.vmdk"), diskMode="persistent", thinProvisioned=True
    )
    return _added(_disk(backing, capacity_kib))


def card(index: int, network: Network, mac: str | None, hardware: Hardware, switch: str) -> Any:
    """A network card; ``switch`` is the uuid of a distributed port group's switch."""
    made = getattr(device, hardware.card or "VirtualVmxnet3")(key=FIRST_CARD_KEY + index)
    if network.portgroup_key is not None:
        port = vim.dvs.PortConnection(switchUuid=switch, portgroupKey=network.portgroup_key)
        made.backing = device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
    else:
        made.backing = device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network.name)
    made.addressType = "manual" if mac else "generated"
    if mac:
        made.macAddress = mac
    made.connectable = device.VirtualDevice.ConnectInfo(
        startConnected=True, allowGuestControl=True, connected=True
    )
    return _added(made)


def check_disk(master: StoredImage, image: Image) -> int:
    """Capacity for a disk on the master, KiB.

    Raises:
        FatalProvisioningError: nobody knows it.
    """
    capacity = master.capacity_kib or image.size_mib * 1024
    if not capacity:
        raise FatalProvisioningError(
            f"nobody knows how large the disk of {master.disk} is; set the size of the image",
            blame=Blame.IMAGE,
        )
    return capacity


def _disk(backing: Any, capacity_kib: int) -> Any:
    return device.VirtualDisk(
        key=DISK_KEY,
        controllerKey=CONTROLLER_KEY,
        unitNumber=0,
        capacityInKB=capacity_kib,
        backing=backing,
    )


def _added(made: Any, *, file_operation: str | None = None) -> Any:
    change = device.VirtualDeviceSpec(operation="add", device=made)
    if file_operation:
        change.fileOperation = file_operation
    return change
