"""Names that VCL gives to VMs, folders and masters (provisioning specification §8.2).

They are those of the Perl daemon, so that both find what the other has made.
"""

from __future__ import annotations

import hashlib
import re

from vcld.errors import Blame, FatalProvisioningError
from vcld.provisioning.esxi.paths import DatastorePath, parse
from vcld.snapshot import Computer, Reservation, VMProfile

#: What vSphere allows for the name of a VM.
LONGEST_NAME = 80
_IMAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]*(?<! )")
_FOLDER = re.compile(r"(?P<computer>[\w.-]+?)_(?P<image>\d+)-v(?P<revision>\d+)(_|$)")
#: Names of images end so, and with them those of VMs.
_REVISION = re.compile(r"-v\d+\b")
_LAST_REVISION = re.compile(r"-v\d+$")
#: Folders of copies that are not finished: the master's name, this, and a random token.
PARTIAL = ".vcld-"
#: VMs that are never started: on a vCenter, linked clones have them as their parents.
SOURCE = "vcld-source_"


def vm_name(reservation: Reservation) -> str:
    """Display name of the VM."""
    name = f"{reservation.computer.node_name}_{reservation.imagerevision.imagename}"
    return name[:LONGEST_NAME]


def vm_folder_name(reservation: Reservation) -> str:
    """Name of the VM's folder, and of its vmx file and disk."""
    revision = reservation.imagerevision
    return f"{reservation.computer.node_name}_{revision.imageid}-v{revision.revision}"


def vm_base(profile: VMProfile) -> DatastorePath:
    """The folder that holds the folders of VMs."""
    return parse(profile.vmpath or profile.datastorepath)


def check_image(imagename: str) -> None:
    """Refuse a name that could mean another file, or several.

    Raises:
        FatalProvisioningError: it could.
    """
    if not _IMAGE.fullmatch(imagename):
        raise FatalProvisioningError(
            f"{imagename!r} cannot be the name of an image", blame=Blame.IMAGE
        )


def master_folder(base: DatastorePath, imagename: str) -> DatastorePath:
    """The folder of an image.

    Raises:
        FatalProvisioningError: the name leads elsewhere.
    """
    check_image(imagename)
    return base / imagename


def disk_in(folder: DatastorePath, imagename: str) -> DatastorePath:
    return folder / f"{imagename}.vmdk"


def reference_of(imagename: str) -> str:
    """Name of the file beside a master that holds the captured VM's vmx file (§8.2)."""
    return f"{imagename}.vmx.reference"


def source_name(imagename: str) -> str:
    """Name of the VM that clones of an image are made from.

    One that is too long ends in a digest: revisions differ in their last characters.
    """
    name = f"{SOURCE}{imagename}"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(imagename.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - len(digest) - 1]}~{digest}"


def mac_addresses(computer: Computer) -> tuple[str | None, str | None]:
    """The MAC addresses that VCL gives to the first two cards, as vSphere writes them.

    None for one that the profile leaves to the host, or that VCL does not know.

    Raises:
        FatalProvisioningError: the computer's row holds something else.
    """
    profile = computer.vmhost.profile if computer.vmhost is not None else None
    rows = (
        ("eth0macaddress", computer.eth0macaddress, profile and profile.eth0generated),
        ("eth1macaddress", computer.eth1macaddress, profile and profile.eth1generated),
    )
    made: list[str | None] = []
    for column, text, generated in rows:
        digits = re.sub(r"[:.\-\s]", "", text or "").lower()
        if generated or not digits:
            made.append(None)
        elif re.fullmatch(r"[0-9a-f]{12}", digits):
            made.append(":".join(digits[i : i + 2] for i in range(0, 12, 2)))
        else:
            raise FatalProvisioningError(
                f"{column} of computer {computer.shortname} is {text!r}, which is no MAC address:"
                " correct it",
                blame=Blame.COMPUTER,
            )
    return made[0], made[1]


def may_be_vm(name: str, path: DatastorePath | None) -> bool:
    """True when a VM of this name, or in the folder of this file, may have been made for VCL."""
    folder = path.parent.name if path is not None else ""
    return _FOLDER.match(folder) is not None or _REVISION.search(name) is not None


def is_folder_of(computer: Computer, name: str) -> bool:
    """True when a folder of this name belongs to a VM of the computer."""
    found = _FOLDER.match(name)
    return found is not None and found["computer"] in {computer.node_name, computer.shortname}


def is_name_of(computer: Computer, name: str) -> bool:
    """True when a VM of this name was made for the computer."""
    return name.startswith((f"{computer.node_name}_", f"{computer.shortname}_"))


def is_vm_of(computer: Computer, name: str) -> bool:
    """True when VCL itself may have given a VM this name: it ends as names of images do."""
    whole = len(name) < LONGEST_NAME
    return is_name_of(computer, name) and (_LAST_REVISION.search(name) is not None or not whole)


def is_folder_named_for(vm: str, folder: str) -> bool:
    """True when vSphere has put a VM that it moved into this folder: it takes the VM's name."""
    return re.fullmatch(re.escape(vm) + r"(_\d+)?", folder) is not None
