"""The site's resource groups: what an administrator has mapped to what."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld.schema.models import (
    ManagementNode,
    Resource,
    ResourceGroupMember,
    ResourceMap,
    ResourceType,
    State,
)


def mapping(first_kind: str, second_kind: str) -> sa.Subquery:
    """Pairs of ids, ``first`` and ``second``, as ``resourcemap`` has groups of the two kinds.

    The order is the web site's: image → computer, management node → computer.
    """
    first, second = aliased(Resource), aliased(Resource)
    first_type, second_type = aliased(ResourceType), aliased(ResourceType)
    first_group, second_group = aliased(ResourceGroupMember), aliased(ResourceGroupMember)
    return (
        sa.select(first.subid.label("first"), second.subid.label("second"))
        .select_from(first)
        .join(first_type, first_type.id == first.resourcetypeid)
        .join(first_group, first_group.resourceid == first.id)
        .join(ResourceMap, ResourceMap.resourcegroupid1 == first_group.resourcegroupid)
        .join(second_group, second_group.resourcegroupid == ResourceMap.resourcegroupid2)
        .join(second, second.id == second_group.resourceid)
        .join(second_type, second_type.id == second.resourcetypeid)
        .where(first_type.name == first_kind, second_type.name == second_kind)
        .subquery()
    )


def find_node_addresses(connection: Connection, computerid: int) -> list[str]:
    """``IPaddress`` of the nodes that may manage a computer: any may have to take it over."""
    mapped = mapping("managementnode", "computer")
    query = (
        sa.select(ManagementNode.IPaddress)
        .join(mapped, mapped.c.first == ManagementNode.id)
        .join(State, State.id == ManagementNode.stateid)
        .where(mapped.c.second == computerid, State.name != "deleted")
        .distinct()
        .order_by(ManagementNode.IPaddress)
    )
    return list(connection.scalars(query))
