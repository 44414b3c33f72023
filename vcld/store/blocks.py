"""Block allocations: what is due, and what becomes of it (VCL daemon specification §4)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from vcld.schema.models import BlockComputer, BlockRequest, BlockTime, User
from vcld.schema.sqltime import after_site_now, site_now
from vcld.store import nodes
from vcld.store.resources import mapping

#: A block time is prepared this long before its start.
AHEAD_SECONDS = 360 * 60


class BlockAction(enum.Enum):
    START = "start"
    END = "end"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True, kw_only=True)
class DueBlock:
    """A block allocation with something to be done."""

    blockrequestid: int
    #: None when the allocation as a whole expires.
    blocktimeid: int | None
    name: str
    machines: int
    owner_email: str
    action: BlockAction


# Compared by the database, for whom a time that was never set (a zero date) is long past.


def _is_near() -> ColumnElement[bool]:
    return BlockTime.start < after_site_now(AHEAD_SECONDS)


def _is_over() -> ColumnElement[bool]:
    return BlockTime.end < site_now()


def _has_expired() -> ColumnElement[bool]:
    return BlockRequest.expireTime < site_now()


def is_due(managementnodeid: int) -> ColumnElement[bool]:
    """True when a block allocation of the node has something to be done."""
    begins = sa.and_(
        BlockTime.processed == 0,
        BlockTime.skip == 0,
        _is_near(),
    )
    times = sa.exists().where(
        BlockTime.blockRequestid == BlockRequest.id,
        sa.or_(begins, _is_over()),
    )
    return sa.exists().where(
        BlockRequest.managementnodeid == managementnodeid,
        BlockRequest.status == "accepted",
        sa.or_(times, _has_expired()),
    )


def load_due(connection: Connection, managementnodeid: int) -> list[DueBlock]:
    """All that is due for this node, one entry per block time."""
    rows = connection.execute(
        sa.select(
            BlockRequest.id,
            BlockRequest.name,
            BlockRequest.numMachines,
            User.email,
            _has_expired().label("has_expired"),
            BlockTime.id.label("timeid"),
            _is_near().label("is_near"),
            _is_over().label("is_over"),
            BlockTime.processed,
            BlockTime.skip,
        )
        .join(BlockTime, BlockTime.blockRequestid == BlockRequest.id, isouter=True)
        .join(User, User.id == BlockRequest.ownerid, isouter=True)
        .where(
            BlockRequest.managementnodeid == managementnodeid,
            BlockRequest.status == "accepted",
        )
        .order_by(BlockRequest.id, BlockTime.id)
    )
    due: list[DueBlock] = []
    expired: set[int] = set()
    for row in rows:
        action = decide(row)
        if action is None or (action is BlockAction.EXPIRE and row.id in expired):
            continue
        if action is BlockAction.EXPIRE:
            expired.add(row.id)
        due.append(
            DueBlock(
                blockrequestid=row.id,
                blocktimeid=None if action is BlockAction.EXPIRE else row.timeid,
                name=row.name,
                machines=row.numMachines,
                owner_email=row.email or "",
                action=action,
            )
        )
    return due


def decide(row: sa.Row[*tuple[Any, ...]]) -> BlockAction | None:
    """What a block time asks for now (§4.2)."""
    if row.has_expired:
        return BlockAction.EXPIRE
    if row.timeid is None:
        return None
    if row.is_over:
        return BlockAction.END
    if row.is_near and not row.processed and not row.skip:
        return BlockAction.START
    return None


def set_processing(connection: Connection, blockrequestid: int, *, processing: bool) -> None:
    """Show the web site and Perl daemons that the allocation is being worked on."""
    connection.execute(
        sa.update(BlockRequest)
        .where(BlockRequest.id == blockrequestid)
        .values(processing=int(processing))
    )


def note_start(
    connection: Connection, blockrequestid: int, blocktimeid: int, *, done: bool
) -> None:
    """The web site was asked for a block time's computers; if in vain, it is asked again.

    Only now, so that a death on the way leaves nothing undone: asking twice does no harm.
    """
    set_processing(connection, blockrequestid, processing=False)
    if done:
        connection.execute(
            sa.update(BlockTime).where(BlockTime.id == blocktimeid).values(processed=1)
        )


def is_still_near(connection: Connection, blocktimeid: int) -> bool:
    """False when a block time was removed, skipped or put off since it was read."""
    query = sa.select(BlockTime.id).where(
        BlockTime.id == blocktimeid, BlockTime.skip == 0, BlockTime.processed == 0, _is_near()
    )
    return connection.scalar(query) is not None


def end(connection: Connection, blocktimeid: int) -> bool:
    """Give up a block time's computers and the block time itself. False when it goes on."""
    gone = connection.execute(sa.delete(BlockTime).where(BlockTime.id == blocktimeid, _is_over()))
    if gone.rowcount == 0:
        return False
    connection.execute(sa.delete(BlockComputer).where(BlockComputer.blockTimeid == blocktimeid))
    return True


def complete(connection: Connection, blockrequestid: int) -> bool:
    """Mark an allocation as over; no computer is kept for its block times any more.

    False when it goes on: its owner has had it extended since it was read.
    """
    over = connection.execute(
        sa.update(BlockRequest)
        .where(BlockRequest.id == blockrequestid, _has_expired())
        .values(status="completed", processing=0)
    )
    if over.rowcount == 0:
        return False
    times = sa.select(BlockTime.id).where(BlockTime.blockRequestid == blockrequestid)
    connection.execute(sa.delete(BlockComputer).where(BlockComputer.blockTimeid.in_(times)))
    connection.execute(sa.delete(BlockTime).where(BlockTime.blockRequestid == blockrequestid))
    return True


def take_over(connection: Connection, managementnodeid: int, silent: int) -> int:
    """Have the allocations of a node that died prepared from here; return how many.

    Not by a node that shares no computer with it. The web site chooses the computers, and each
    computer's own node loads it.
    """
    mapped = mapping("managementnode", "computer")
    shared = sa.exists().where(
        mapped.c.first == silent, mapped.c.second.in_(nodes.manageable(managementnodeid))
    )
    moved = connection.execute(
        sa.update(BlockRequest)
        .where(BlockRequest.managementnodeid == silent, BlockRequest.status == "accepted", shared)
        .values(managementnodeid=managementnodeid)
    )
    return moved.rowcount


def forget_computer(connection: Connection, computerid: int) -> None:
    """Take a failed computer out of all block allocations (§7.2, step 6)."""
    connection.execute(sa.delete(BlockComputer).where(BlockComputer.computerid == computerid))
