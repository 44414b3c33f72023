"""``currentimage.txt``: what a computer says about the image on it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vcld.guest.interface import ImageTags
from vcld.snapshot import Reservation

_TIME = re.compile(r"\s*\([^()]*\)\s*$")


def parse_tags(lines: Iterable[str]) -> ImageTags:
    """Read the file's lines; VCL's own tools write it too, with other case and spaces."""
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals:
            found[name.strip().lower()] = value.strip()
    revision = found.get("imagerevision_id", "")
    return ImageTags(
        imagerevision_id=int(revision) if revision.isdecimal() else None,
        post_load=bool(found.get("vcld_post_load")),
        tainted=_TIME.sub("", found.get("vcld_tainted", "")),
    )


def base_text(reservation: Reservation) -> str:
    """The file as it is put into an image."""
    image, revision, computer = reservation.image, reservation.imagerevision, reservation.computer
    facts = {
        "id": image.id,
        "prettyname": image.prettyname,
        "imagerevision_id": revision.id,
        "imagerevision_datecreated": revision.datecreated or "",
        "computer_id": computer.id,
        "computer_hostname": computer.hostname,
    }
    lines = [revision.imagename, *(f"{name}={value}" for name, value in facts.items())]
    return "\n".join(" ".join(line.split()) for line in lines)
