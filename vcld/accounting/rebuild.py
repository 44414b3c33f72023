"""Rows for the time before vcld ran, from VCL's own ``log``, ``sublog`` and ``computer``.

One VM for each ``sublog`` row of a request that is over and that vcld has not recorded itself.
VCL knows less: when a request began, when its computer was loaded, when and why it ended. The
template says ``<REBUILT>YES</REBUILT>``. What is there already is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.accounting.codes import FIRST_REBUILT, LAST_SECOND
from vcld.accounting.facts import HostFacts
from vcld.accounting.hosts import add_host, load_host_ids
from vcld.accounting.install import check_clock
from vcld.accounting.past import (
    host_name,
    is_timeless,
    owner_name,
    past_query,
    stay_row,
    vm_row,
)
from vcld.accounting.sqlfacts import element
from vcld.accounting.tables import Tables
from vcld.accounting.window import database_now
from vcld.errors import SchemaError, StoreRefusedError
from vcld.schema.models import Request, SubLog

BATCH = 1000
ATTEMPTS = 5


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild came to, in VMs."""

    added: int = 0
    present: int = 0
    #: Their ``log`` rows hold no time at all, or none that has come.
    timeless: int = 0


#: Runs work in a transaction of its own, as ``Database.run`` does.
Runner = Callable[[Callable[[Connection], "Rebuilt"]], "Rebuilt"]


def rebuild(run: Runner, tables: Tables) -> Rebuilt:
    """Add what is missing, a batch after the other, each in its own transaction.

    The daemon's workers add owners and hosts at the same time: nobody waits for longer than a
    batch takes, and one that was stopped half-way is taken up by the next run.

    Raises:
        SchemaError: VCL's numbers or the present time do not fit the columns; nothing was
            written.
        StoreError: the database is away or refuses.
    """
    check_clock()
    past = _Past(tables)
    run(past.begin)
    done = Rebuilt()
    while not past.is_over:
        part = _again_if_overtaken(run, past.add_batch)
        past.go_on()
        done.added += part.added
        done.present += part.present
        done.timeless += part.timeless
    return done


def _again_if_overtaken(run: Runner, work: Callable[[Connection], Rebuilt]) -> Rebuilt:
    """A worker, or another rebuild, may have added the same row since we looked."""
    for _ in range(ATTEMPTS - 1):
        try:
            return run(work)
        except StoreRefusedError as err:
            if not isinstance(err.__cause__, IntegrityError):
                raise
    return run(work)


class _Past:
    """The computers of requests that were over when the rebuild began, by ``sublog.id``."""

    def __init__(self, tables: Tables) -> None:
        self.is_over = False
        self._tables = tables
        self._last = self._reached = self._newest = self._now = 0
        #: Ids of log rows that are the daemon's: of requests that live or that it has recorded.
        self._logs_of_others: set[int] = set()

    def begin(self, connection: Connection) -> Rebuilt:
        """Find out what there is to do. Whatever comes later is recorded as it happens."""
        self._newest = connection.scalar(sa.select(sa.func.max(SubLog.id))) or 0
        if self._newest > LAST_SECOND - FIRST_REBUILT:
            raise SchemaError("sublog.id is larger than what vm_pool.oid (int(11)) can hold")
        self._now = database_now(connection)
        lives = connection.scalars(sa.select(Request.logid))
        self._logs_of_others = _recorded_logs(connection, self._tables) | {
            int(id_) for id_ in lives if id_
        }
        return Rebuilt()

    def add_batch(self, connection: Connection) -> Rebuilt:
        """Add the VMs of the next rows."""
        part, tables = Rebuilt(), self._tables
        which = sa.and_(SubLog.id > self._last, SubLog.id <= self._newest)
        rows = connection.execute(past_query().where(which).limit(BATCH)).all()
        vm = tables.vm_pool.c.oid
        oids = [FIRST_REBUILT + row.id for row in rows]
        known = set(connection.scalars(sa.select(vm).where(vm.in_(oids))))
        fresh = []
        for row in rows:
            if FIRST_REBUILT + row.id in known:
                part.present += 1
            elif row.logid in self._logs_of_others:
                continue
            elif is_timeless(row, self._now):
                part.timeless += 1
            else:
                fresh.append(row)
        if fresh:
            _add_hosts(connection, tables, fresh)
            _add_users(connection, tables, fresh)
            connection.execute(sa.insert(tables.vm_pool), [vm_row(r, self._now) for r in fresh])
            connection.execute(sa.insert(tables.history), [stay_row(r, self._now) for r in fresh])
        part.added = len(fresh)
        self._reached = rows[-1].id if rows else self._newest
        self.is_over = len(rows) < BATCH
        return part

    def go_on(self) -> None:
        """The batch is written for good."""
        self._last = self._reached


def _add_hosts(connection: Connection, tables: Tables, rows: Sequence[Any]) -> None:
    known = load_host_ids(connection, tables)
    for row in rows:
        if row.hid not in known:
            known.add(row.hid)
            name, mad = host_name(row), row.provisioning or ""
            add_host(connection, tables, HostFacts(oid=row.hid, hostname=name, provisioning=mad))


def _add_users(connection: Connection, tables: Tables, rows: Sequence[Any]) -> None:
    user = tables.user_pool
    ids = {row.userid for row in rows}
    known = set(connection.scalars(sa.select(user.c.oid).where(user.c.oid.in_(ids))))
    for row in rows:
        if row.userid not in known:
            known.add(row.userid)
            name, exists = owner_name(row)[:256], int(bool(row.unityid))
            values = {"oid": row.userid, "user_name": name, "password": "", "enabled": exists}
            connection.execute(sa.insert(user).values(values))


def _recorded_logs(connection: Connection, tables: Tables) -> set[int]:
    """Ids of the log rows whose VMs vcld recorded when they lived."""
    vm = tables.vm_pool.c
    found = connection.scalars(
        sa.select(element(vm.template, "LOG_ID")).where(vm.oid < FIRST_REBUILT)
    )
    return {int(text) for text in found if text.isdecimal()}
