"""Which plugins a site's computers and images need."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import OS, Computer, Image, Module, Provisioning

#: The row that stands for a computer on which nothing is.
NO_IMAGE = "noimage"


def provisioning_modules(connection: Connection) -> list[str]:
    """Module names of the provisioners of all computers."""
    query = (
        sa.select(Module.name)
        .join(Provisioning, Provisioning.moduleid == Module.id)
        .join(Computer, Computer.provisioningid == Provisioning.id)
        .where(Computer.deleted == 0)
        .distinct()
    )
    return list(connection.scalars(query))


def guest_modules(connection: Connection) -> list[str]:
    """Module names of the operating systems of all images that can be loaded."""
    query = (
        sa.select(Module.name)
        .join(OS, OS.moduleid == Module.id)
        .join(Image, Image.OSid == OS.id)
        .where(Image.deleted == 0, Image.name != NO_IMAGE)
        .distinct()
    )
    return list(connection.scalars(query))
