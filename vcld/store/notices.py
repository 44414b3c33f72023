"""What is noted of a request: notices that go out once, and what an attempt has begun."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.schema.models import BlockTime, Request
from vcld.schema.own import Notice

#: Stands for the request of a notice about a block allocation, which has none.
NO_REQUEST = 0


def is_first_of_block(connection: Connection, blocktimeid: int) -> bool:
    """Note that the owner of a block time hears that it waits. False when that was before."""
    return is_first(connection, NO_REQUEST, f"block:{blocktimeid}")


def is_first(connection: Connection, requestid: int, name: str) -> bool:
    """Note that a notice goes out now. False when it has gone out before."""
    try:
        connection.execute(sa.insert(Notice).values(requestid=requestid, name=name))
    except IntegrityError:
        return False
    return True


def begin_capture(connection: Connection, requestid: int, revisionid: int) -> None:
    """Note, when the image was found not to be there, that this request makes it."""
    is_first(connection, requestid, f"capture:{revisionid}")


def end_capture(connection: Connection, requestid: int, revisionid: int) -> None:
    """The image is recorded: another capture under its name is none of this one's attempts."""
    connection.execute(
        sa.delete(Notice).where(
            Notice.requestid == requestid, Notice.name == f"capture:{revisionid}"
        )
    )


def is_capture_begun(connection: Connection, requestid: int, revisionid: int) -> bool:
    """Whether an earlier attempt at the request began to make the image."""
    noted = sa.select(Notice.name).where(
        Notice.requestid == requestid, Notice.name == f"capture:{revisionid}"
    )
    return connection.execute(noted).first() is not None


def forget_gone(connection: Connection) -> None:
    """Drop what is noted of requests and block times that somebody else has removed."""
    blocks = sa.select(sa.literal("block:") + sa.cast(BlockTime.id, sa.String(16)))
    is_gone = sa.case(
        (Notice.requestid == NO_REQUEST, Notice.name.not_in(blocks)),
        else_=Notice.requestid.not_in(sa.select(Request.id)),
    )
    connection.execute(sa.delete(Notice).where(is_gone))


def forget(connection: Connection, requestids: Collection[int]) -> None:
    """For requests that are removed."""
    connection.execute(sa.delete(Notice).where(Notice.requestid.in_(sorted(requestids))))
