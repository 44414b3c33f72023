"""The marker in a master's folder: written last, it says what a finished copy is made of.

A folder without one was made by the Perl daemon or by hand, and counts as finished: copies of
ours are made in a folder of another name, which gets the master's name when all is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from vcld.errors import Blame, FatalProvisioningError
from vcld.provisioning.esxi.files import FileFacts

MARKER = "vcld-image.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the captured VM was like, as far as an image needs it to boot; empty: not known."""

    guest_id: str = ""
    #: Class names of the API, such as ``ParaVirtualSCSIController`` and ``VirtualVmxnet3``.
    controller: str = ""
    card: str = ""
    #: bios or efi.
    firmware: str = ""
    #: Hardware version, such as ``vmx-13``.
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    image: str
    #: Sizes in bytes by file name.
    files: Mapping[str, int]
    capacity_kib: int | None = None
    hardware: Hardware = field(default_factory=Hardware)

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def check(self, folder: object, present: Mapping[str, FileFacts]) -> None:
        """Compare with what is there.

        Raises:
            FatalProvisioningError: a file is missing, or has another size.
        """
        disk = f"{self.image}.vmdk"
        as_one = {name for name in self.files if name.endswith(".vmdk")} == {disk}
        apart = any(name.endswith(".vmdk") and name != disk for name in present)
        for name, size in self.files.items():
            if name == disk and name in present and as_one and apart:
                continue  # a host lists a disk as one file, here are its descriptor and data
            found = present[name].size_bytes if name in present else None
            if found != size:
                raise FatalProvisioningError(
                    f"image {self.image} in {folder} is damaged: {name} has"
                    f" {'no' if found is None else found} bytes instead of {size}; restore it, or"
                    " remove the folder where another copy exists",
                    blame=Blame.IMAGE,
                )


def from_text(text: str, folder: object) -> Marker:
    """Read a marker.

    Raises:
        FatalProvisioningError: it cannot be read.
    """
    try:
        data = json.loads(text)
        known = {name: data["hardware"].get(name, "") for name in Hardware.__dataclass_fields__}
        return Marker(
            image=data["image"],
            files={str(name): int(size) for name, size in data["files"].items()},
            capacity_kib=data.get("capacity_kib"),
            hardware=Hardware(**known),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise FatalProvisioningError(
            f"{MARKER} in {folder} cannot be read; compare the image with another copy and remove"
            " the file or the folder",
            blame=Blame.IMAGE,
        ) from err


def describe(
    image: str, present: Mapping[str, FileFacts], hardware: Hardware, capacity_kib: int | None
) -> Marker:
    """The marker of files that are complete."""
    files = {
        name: facts.size_bytes
        for name, facts in present.items()
        if not facts.is_folder and name != MARKER
    }
    return Marker(image=image, files=files, capacity_kib=capacity_kib, hardware=hardware)
