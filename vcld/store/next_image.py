"""Which image a computer gets after a reservation (VCL daemon specification §15)."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld import snapshot
from vcld.schema.models import (
    OS,
    BlockComputer,
    BlockTime,
    Computer,
    Image,
    ImageRevision,
    Log,
    OSInstallType,
    Provisioning,
    ProvisioningOSInstallType,
    Request,
    Reservation,
)
from vcld.schema.sqltime import after_site_now, site_now
from vcld.store.catalog import NO_IMAGE, Catalog
from vcld.store.resources import mapping

#: A request that starts this soon decides what is loaded.
SOON_SECONDS = 50 * 60
#: The busier the computers are, the shorter the window in which popularity is counted:
#: (share of them in use above which it applies, days).
POPULARITY_DAYS = ((0.40, 1), (0.30, 3), (0.20, 7), (0.10, 14), (0.05, 30), (-1.0, 60))
#: An image that waits on this many free computers already needs no further one.
ENOUGH_COPIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NextImage:
    imageid: int
    imagerevisionid: int
    reason: str
    #: Remove what is loaded instead of loading something.
    unload: bool = False
    #: The plan in ``computer.nextimageid`` is used up.
    uses_next_image: bool = False


def choose(
    connection: Connection, catalog: Catalog, reservation: snapshot.Reservation
) -> NextImage:
    """Choose by the computer's predictive module; without a better idea, the same image."""
    computer = reservation.computer
    module = computer.predictive_module
    planned = _planned(connection, computer.id)
    upcoming = _upcoming(connection, catalog, reservation)
    first, second = (upcoming, planned) if module == "predictive_level_0" else (planned, upcoming)
    found = _for_block(connection, computer.id) or first or second
    if found is not None:
        return found
    current = NextImage(
        imageid=reservation.image.id,
        imagerevisionid=reservation.imagerevision.id,
        reason="the same image again",
    )
    if module == "predictive_level_2":
        return NextImage(
            imageid=current.imageid,
            imagerevisionid=current.imagerevisionid,
            reason="nothing is planned for it",
            unload=True,
        )
    if module == "predictive_level_1":
        return _popular(connection, catalog, reservation) or current
    return current


def _for_block(connection: Connection, computerid: int) -> NextImage | None:
    row = connection.execute(
        sa.select(ImageRevision.imageid, ImageRevision.id)
        .join(BlockComputer, BlockComputer.imageid == ImageRevision.imageid)
        .join(BlockTime, BlockTime.id == BlockComputer.blockTimeid)
        .where(
            BlockComputer.computerid == computerid,
            BlockTime.end > site_now(),
            ImageRevision.production == 1,
        )
        .order_by(BlockTime.start)
        .limit(1)
    ).one_or_none()
    return row and NextImage(
        imageid=row[0], imagerevisionid=row[1], reason="a block allocation has it"
    )


def _upcoming(
    connection: Connection, catalog: Catalog, reservation: snapshot.Reservation
) -> NextImage | None:
    states = catalog.states(("new", "reload", "imageprep"))
    row = connection.execute(
        sa.select(Reservation.imageid, Reservation.imagerevisionid, Request.id)
        .join(Request, Request.id == Reservation.requestid)
        .where(
            Reservation.computerid == reservation.computer.id,
            Request.id != reservation.request.id,
            Request.stateid.in_(states),
            Request.start < after_site_now(SOON_SECONDS),
        )
        .order_by(Request.start)
        .limit(1)
    ).one_or_none()
    return row and NextImage(
        imageid=row[0], imagerevisionid=row[1], reason=f"request {row[2]} starts soon"
    )


def _planned(connection: Connection, computerid: int) -> NextImage | None:
    row = connection.execute(
        sa.select(ImageRevision.imageid, ImageRevision.id)
        .join(Computer, Computer.nextimageid == ImageRevision.imageid)
        .join(Image, Image.id == ImageRevision.imageid)
        .where(
            Computer.id == computerid,
            ImageRevision.production == 1,
            Image.name != NO_IMAGE,
            Image.deleted == 0,
        )
        .limit(1)
    ).one_or_none()
    return row and NextImage(
        imageid=row[0],
        imagerevisionid=row[1],
        reason="it was planned in nextimageid",
        uses_next_image=True,
    )


def _popular(
    connection: Connection, catalog: Catalog, reservation: snapshot.Reservation
) -> NextImage | None:
    """The most used image that the computer may have and that too few others hold ready."""
    days = _window_days(connection, catalog, reservation.computer.type)
    uses = sa.func.count().label("uses")
    row = connection.execute(
        sa.select(Image.id, ImageRevision.id, uses)
        .join(Log, Log.imageid == Image.id)
        .join(
            ImageRevision,
            sa.and_(ImageRevision.imageid == Image.id, ImageRevision.production == 1),
        )
        .where(
            Log.start > after_site_now(-days * 86400),
            Image.deleted == 0,
            Image.name != NO_IMAGE,
            Image.id.in_(_mapped_images(reservation.computer.id)),
            Image.OSid.in_(_loadable_systems(reservation.computer.provisioning)),
            _copies(catalog) < ENOUGH_COPIES,
        )
        .group_by(Image.id, ImageRevision.id)
        .order_by(uses.desc(), Image.id)
        .limit(1)
    ).one_or_none()
    return row and NextImage(
        imageid=row[0],
        imagerevisionid=row[1],
        reason=f"used {row[2]} times in {days} days",
    )


def _window_days(connection: Connection, catalog: Catalog, computer_type: str) -> int:
    busy_states = catalog.states(("reserved", "inuse", "imageinuse"))
    total, busy = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.sum(sa.case((Computer.stateid.in_(busy_states), 1), else_=0)),
        ).where(Computer.type == computer_type, Computer.deleted == 0)
    ).one()
    share = (busy or 0) / total if total else 0.0
    return next(days for above, days in POPULARITY_DAYS if share > above)


def _mapped_images(computerid: int) -> sa.Select[int]:
    mapped = mapping("image", "computer")
    return sa.select(mapped.c.first).where(mapped.c.second == computerid)


def _loadable_systems(provisioning: str) -> sa.Select[int]:
    return (
        sa.select(OS.id)
        .join(OSInstallType, OSInstallType.name == OS.installtype)
        .join(
            ProvisioningOSInstallType,
            ProvisioningOSInstallType.OSinstalltypeid == OSInstallType.id,
        )
        .join(Provisioning, Provisioning.id == ProvisioningOSInstallType.provisioningid)
        .where(Provisioning.name == provisioning)
    )


def _copies(catalog: Catalog) -> sa.ScalarSelect[int]:
    holder = aliased(Computer)
    return (
        sa.select(sa.func.count())
        .where(
            holder.currentimageid == Image.id,
            holder.stateid.in_(catalog.states(("available",))),
            holder.deleted == 0,
        )
        .correlate(Image)
        .scalar_subquery()
    )
