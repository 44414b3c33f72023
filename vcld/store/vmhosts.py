"""VM hosts, and which of the images on their datastores are needed least."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import snapshot
from vcld.errors import NotFoundError
from vcld.schema.models import Computer, Image, ImageRevision, Reservation, VMHost
from vcld.store.reservation_query import vmhost_query
from vcld.store.snapshots import make_vmhost


def load_others(connection: Connection, vmhostid: int) -> list[snapshot.VMHost]:
    """All VM hosts but one."""
    rows = connection.execute(vmhost_query().where(VMHost.id != vmhostid))
    made = (make_vmhost(row._mapping) for row in rows)
    return [vmhost for vmhost in made if vmhost is not None]


def get_by_name(connection: Connection, hostname: str) -> snapshot.VMHost:
    """A VM host by its full or short name.

    Raises:
        NotFoundError: no computer of that name is a VM host.
    """
    rows = connection.execute(vmhost_query())
    for row in rows:
        made = make_vmhost(row._mapping)
        if made and hostname in {made.hostname, made.hostname.partition(".")[0]}:
            return made
    raise NotFoundError(f"no computer {hostname} is a VM host: table vmhost has no row for it")


def masters_by_need(connection: Connection) -> list[str]:
    """imagenames, those first that will be missed least.

    Deleted ones, then those that are not in production, then the others; among equals those
    first that fewer reservations and computers have.
    """
    wanted = (
        sa.select(sa.func.count())
        .where(Reservation.imagerevisionid == ImageRevision.id)
        .correlate(ImageRevision)
        .scalar_subquery()
    )
    loaded = (
        sa.select(sa.func.count())
        .where(Computer.imagerevisionid == ImageRevision.id)
        .correlate(ImageRevision)
        .scalar_subquery()
    )
    gone = sa.case((sa.or_(ImageRevision.deleted == 1, Image.deleted == 1), 0), else_=1)
    query = (
        sa.select(ImageRevision.imagename)
        .join(Image, Image.id == ImageRevision.imageid)
        .order_by(gone, ImageRevision.production, wanted + loaded, ImageRevision.id)
    )
    return list(connection.scalars(query))
