"""Ending a request for the sake of another that needs its computer (specification §8.1 B).

The rival's claims are marked revoked in the same transaction, so that nothing its workers
write from now on counts; their daemons stop them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import Log, Request
from vcld.schema.own import Claim
from vcld.schema.sqltime import site_now
from vcld.store.catalog import Catalog
from vcld.store.requests import Rival

#: Last state of a session that is taken back: its user may have an account, but never came.
#: The web site writes the same for a request that is deleted while it is being prepared.
_UNUSED = frozenset({"new", "reserved"})


def supersede(connection: Connection, catalog: Catalog, rival: Rival) -> bool:
    """Complete a rival request and call its worker off. False when it changed meanwhile."""
    ended = rival.laststate if rival.state == "pending" else rival.state
    return _move(connection, catalog, rival, "complete", ended)


def end_session(connection: Connection, catalog: Catalog, rival: Rival) -> bool:
    """Have a request whose end has passed reclaimed, on all its computers, and close its log.

    False when it changed meanwhile.
    """
    working_on = rival.laststate if rival.state == "pending" else rival.state
    laststate = "reserved" if working_on in _UNUSED else "inuse"
    if not _move(connection, catalog, rival, "timeout", laststate):
        return False
    logid = sa.select(Request.logid).where(Request.id == rival.requestid).scalar_subquery()
    connection.execute(
        sa.update(Log).where(Log.id == logid).values(finalend=site_now(), ending="EOR")
    )
    return True


def _move(
    connection: Connection, catalog: Catalog, rival: Rival, state: str, laststate: str
) -> bool:
    done = connection.execute(
        sa.update(Request)
        .where(
            Request.id == rival.requestid,
            Request.stateid == catalog.state_id(rival.state),
            Request.laststateid == catalog.state_id(rival.laststate),
        )
        .values(stateid=catalog.state_id(state), laststateid=catalog.state_id(laststate))
    )
    if done.rowcount != 1:
        return False
    connection.execute(
        sa.update(Claim)
        .where(Claim.requestid == rival.requestid, Claim.phase == "running")
        .values(revoked=1)
    )
    connection.execute(
        sa.delete(Claim).where(Claim.requestid == rival.requestid, Claim.phase != "running")
    )
    return True
