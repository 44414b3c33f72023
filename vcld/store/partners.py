"""Other management nodes that share their images with one (VCL's image library)."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import ManagementNode, Resource, ResourceGroupMember, ResourceType

#: The account that VCL's documentation makes for it.
DEFAULT_USER = "vclstaff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    """A management node of the same image library."""

    hostname: str
    address: str
    user: str
    port: int
    installpath: str


def find_partners(connection: Connection, managementnodeid: int) -> list[Partner]:
    """Members of the resource group ``managementnode.imagelibgroupid``, the node apart."""
    library = sa.select(ManagementNode.imagelibgroupid).where(
        ManagementNode.id == managementnodeid, ManagementNode.imagelibenable == 1
    )
    rows = connection.execute(
        sa.select(
            ManagementNode.hostname,
            ManagementNode.IPaddress,
            ManagementNode.imagelibuser,
            ManagementNode.sshport,
            ManagementNode.installpath,
        )
        .join(Resource, Resource.subid == ManagementNode.id)
        .join(ResourceType, ResourceType.id == Resource.resourcetypeid)
        .join(ResourceGroupMember, ResourceGroupMember.resourceid == Resource.id)
        .where(
            ResourceType.name == "managementnode",
            ResourceGroupMember.resourcegroupid.in_(library),
            ManagementNode.id != managementnodeid,
        )
        .order_by(ManagementNode.hostname)
    )
    return [
        Partner(
            hostname=row.hostname,
            address=row.IPaddress,
            user=row.imagelibuser or DEFAULT_USER,
            port=row.sshport or 22,
            installpath=row.installpath or "/install",
        )
        for row in rows
    ]
