"""Images: what a computer holds, what was captured, what is in production."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld import snapshot
from vcld.schema.models import (
    BlockComputer,
    Computer,
    Image,
    ImageRevision,
    Request,
    Reservation,
    State,
)
from vcld.schema.sqltime import after_site_now, site_now
from vcld.store import requests
from vcld.store.catalog import Catalog

#: A computer gets a new production revision only if nothing starts on it in this window.
QUIET_BEFORE_SECONDS = 5 * 60
QUIET_AFTER_SECONDS = 30 * 60
RELOAD_SECONDS = 15 * 60


def set_next(connection: Connection, computerid: int, imageid: int) -> None:
    """Plan the image that the computer gets after its present reservation."""
    connection.execute(
        sa.update(Computer).where(Computer.id == computerid).values(nextimageid=imageid)
    )


def production_for_block(
    connection: Connection, reservation: snapshot.Reservation
) -> snapshot.ImageRevision | None:
    """The image's production revision, if the computer is kept for a block allocation.

    None when it is not, or when the reservation has that revision already.
    """
    if reservation.imagerevision.production:
        return None
    in_block = sa.exists().where(BlockComputer.computerid == reservation.computer.id)
    row = connection.execute(
        sa.select(ImageRevision).where(
            ImageRevision.imageid == reservation.image.id,
            ImageRevision.production == 1,
            in_block,
        )
    ).first()
    if row is None:
        return None
    return snapshot.ImageRevision(
        id=row.id,
        imageid=row.imageid,
        revision=row.revision,
        imagename=row.imagename,
        production=True,
        deleted=bool(row.deleted),
        datecreated=row.datecreated,
    )


def find_namesake(connection: Connection, revisionid: int, name: str) -> str | None:
    """The table's name and id of another row that has a captured image's name already."""
    image = (
        sa.select(Image.id)
        .join(ImageRevision, ImageRevision.imageid != Image.id)
        .where(ImageRevision.id == revisionid, Image.name == name)
    )
    revision = sa.select(ImageRevision.id).where(
        ImageRevision.imagename == name, ImageRevision.id != revisionid
    )
    for table, query in (("imagerevision", revision), ("image", image)):
        found = connection.scalar(query)
        if found is not None:
            return f"{table} {found}"
    return None


def note_capture(
    connection: Connection,
    reservation: snapshot.Reservation,
    name: str,
    size_mib: int | None,
) -> None:
    """Make a captured image and its revision usable (§8.6, step 10)."""
    values: dict[str, object] = {"lastupdate": site_now(), "deleted": 0, "name": name}
    if size_mib is not None:
        values["size"] = min(size_mib, 65535)
    connection.execute(sa.update(Image).where(Image.id == reservation.image.id).values(values))
    connection.execute(
        sa.update(ImageRevision)
        .where(ImageRevision.id == reservation.imagerevision.id)
        .values(deleted=0, datecreated=site_now(), imagename=name)
    )


def make_production(
    connection: Connection, catalog: Catalog, reservation: snapshot.Reservation
) -> int:
    """Make the reservation's revision the image's production one (§6.2).

    Available computers that hold another revision of the image, and on which nothing is
    about to start, get a reload request.

    Returns:
        The number of reloads asked for.
    """
    image, revision = reservation.image, reservation.imagerevision
    for production in (0, 1):  # two revisions may not both be production for a moment
        which = ImageRevision.id == revision.id if production else ImageRevision.id != revision.id
        connection.execute(
            sa.update(ImageRevision)
            .where(ImageRevision.imageid == image.id, which)
            .values(production=production)
        )
    connection.execute(
        sa.update(Image)
        .where(Image.id == image.id)
        .values(name=revision.imagename, test=0, lastupdate=site_now())
    )
    stale = connection.scalars(_stale_computers(catalog, reservation)).all()
    for computerid in stale:
        requests.insert_reload(
            connection,
            catalog,
            computerid=computerid,
            imageid=image.id,
            imagerevisionid=revision.id,
            managementnodeid=reservation.managementnode.id,
            end_in_seconds=RELOAD_SECONDS,
        )
    return len(stale)


def _stale_computers(catalog: Catalog, reservation: snapshot.Reservation) -> sa.Select[int]:
    image = reservation.image
    request_state = aliased(State)
    busy = (
        sa.exists()
        .where(Reservation.computerid == Computer.id, Request.id == Reservation.requestid)
        .where(request_state.id == Request.stateid)
        .where(request_state.name.not_in(("deleted", "complete", "timeout")))
        .where(Request.start > after_site_now(-QUIET_BEFORE_SECONDS))
        .where(Request.start < after_site_now(QUIET_AFTER_SECONDS))
    )
    return (
        sa.select(Computer.id)
        .where(
            Computer.stateid == catalog.state_id("available"),
            Computer.deleted == 0,
            Computer.currentimageid == image.id,
            Computer.imagerevisionid != reservation.imagerevision.id,
            image.minram_mib <= Computer.RAM,
            Computer.procnumber >= image.minprocnumber,
            Computer.network >= image.minnetwork,
            sa.not_(busy),
        )
        .order_by(Computer.id)
    )
