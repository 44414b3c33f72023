"""Blades and images as an operator names them, without a reservation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.errors import NotFoundError
from vcld.schema.models import (
    OS,
    Computer,
    Image,
    ImageRevision,
    Module,
    Provisioning,
    State,
)
from vcld.schema.own import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedImage:
    """What has to be known of an image to find it, or to load it on a blade."""

    imagename: str
    architecture: str
    os_name: str
    os_type: str
    os_installtype: str
    os_sourcepath: str | None
    project: str
    #: True when a request is about to make it.
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blade:
    """A computer's row, as far as xCAT's definition should agree with it."""

    hostname: str
    state: str
    eth0macaddress: str | None
    provisioning_module: str
    #: A worker changes it now.
    is_busy: bool


def find_image(connection: Connection, imagename: str) -> WantedImage:
    """Find an image revision by its imagename.

    Raises:
        NotFoundError: there is none.
    """
    row = connection.execute(
        sa.select(
            Image.architecture,
            Image.project,
            OS.name,
            OS.type,
            OS.installtype,
            OS.sourcepath,
        )
        .select_from(ImageRevision)
        .join(Image, Image.id == ImageRevision.imageid)
        .join(OS, OS.id == Image.OSid)
        .where(ImageRevision.imagename == imagename)
        .limit(1)
    ).first()
    if row is None:
        raise NotFoundError(f"there is no image revision named {imagename}")
    return WantedImage(
        imagename=imagename,
        architecture=row.architecture,
        os_name=row.name,
        os_type=row.type,
        os_installtype=row.installtype or "none",
        os_sourcepath=row.sourcepath,
        project=row.project,
    )


def find_others(connection: Connection, node: str, module: str, limit: int) -> list[str]:
    """Short names of some other computers in use that are provisioned by the same module."""
    rows = connection.scalars(
        sa.select(Computer.hostname)
        .join(State, State.id == Computer.stateid)
        .join(Provisioning, Provisioning.id == Computer.provisioningid)
        .join(Module, Module.id == Provisioning.moduleid)
        .where(
            Module.name == module,
            Computer.deleted == 0,
            State.name.not_in(("maintenance", "failed", "deleted")),
        )
        .order_by(Computer.id)
        .limit(limit + 1)
    )
    return [name for name in (row.partition(".")[0] for row in rows) if name != node][:limit]


def find_blades(connection: Connection, names: Sequence[str]) -> dict[str, Blade]:
    """Computers by the short names that are also those of xCAT's nodes."""
    busy = sa.exists().where(Claim.computerid == Computer.id, Claim.phase == "running")
    rows = connection.execute(
        sa.select(
            Computer.hostname,
            Computer.eth0macaddress,
            State.name.label("state"),
            Module.name.label("module"),
            busy.label("is_busy"),
        )
        .join(State, State.id == Computer.stateid)
        .join(Provisioning, Provisioning.id == Computer.provisioningid)
        .join(Module, Module.id == Provisioning.moduleid)
        .where(
            sa.or_(
                Computer.hostname.in_(names),
                *(Computer.hostname.startswith(f"{name}.", autoescape=True) for name in names),
            ),
            Computer.deleted == 0,
        )
    )
    return {
        row.hostname.partition(".")[0]: Blade(
            hostname=row.hostname,
            state=row.state,
            eth0macaddress=row.eth0macaddress,
            provisioning_module=row.module,
            is_busy=bool(row.is_busy),
        )
        for row in rows
    }
