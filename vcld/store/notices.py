"""Notices that go out once, although the session is looked at many times."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.schema.models import Request
from vcld.schema.own import Notice


def is_first(connection: Connection, requestid: int, name: str) -> bool:
    """Note that a notice goes out now. False when it has gone out before."""
    try:
        connection.execute(sa.insert(Notice).values(requestid=requestid, name=name))
    except IntegrityError:
        return False
    return True


def forget_gone(connection: Connection) -> None:
    """Drop what is noted of requests that somebody else has removed."""
    connection.execute(sa.delete(Notice).where(Notice.requestid.not_in(sa.select(Request.id))))


def forget(connection: Connection, requestids: Collection[int]) -> None:
    """For requests that are removed."""
    connection.execute(sa.delete(Notice).where(Notice.requestid.in_(sorted(requestids))))
