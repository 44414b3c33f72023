"""Rows for the time before vcld ran, from VCL's own ``log``, ``sublog`` and ``computer``.

One VM for each ``sublog`` row of a request that is over and that vcld has not recorded itself.
VCL knows less: when a request began, when its computer was loaded, when and why it ended. The
template says ``<REBUILT>YES</REBUILT>``. What is there already is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import aliased

from vcld.accounting.codes import FIRST_REBUILT, LAST_SECOND, Reason, VmState
from vcld.accounting.facts import HostFacts, full_name, template, vm_name
from vcld.accounting.hosts import add_host, load_host_ids
from vcld.accounting.install import check_clock
from vcld.accounting.sqlfacts import element, epoch
from vcld.accounting.tables import Tables, fitting
from vcld.accounting.window import database_now
from vcld.errors import SchemaError
from vcld.schema.models import (
    Affiliation,
    Computer,
    Image,
    ImageRevision,
    Log,
    Provisioning,
    Request,
    SubLog,
    User,
)

#: ``log.ending`` → why the stay ended.
REASONS: Mapping[str, Reason] = MappingProxyType(
    {
        "deleted": Reason.USER,
        "released": Reason.USER,
        "failed": Reason.ERROR,
        "failedtest": Reason.ERROR,
        "noack": Reason.CANCEL,
        "nologin": Reason.CANCEL,
        "timeout": Reason.CANCEL,
    }
)
BATCH = 1000


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild came to, in VMs."""

    added: int = 0
    present: int = 0
    #: Their ``log`` rows hold no time at all.
    timeless: int = 0


def rebuild(connection: Connection, tables: Tables) -> Rebuilt:
    """Add what is missing, in the caller's transaction.

    Raises:
        SchemaError: VCL's numbers or the present time do not fit the columns; nothing was
            written.
    """
    check_clock()
    if (connection.scalar(sa.select(sa.func.max(SubLog.id))) or 0) > LAST_SECOND - FIRST_REBUILT:
        raise SchemaError("sublog.id is larger than what vm_pool.oid (int(11)) can hold")
    now = database_now(connection)
    recorded = _recorded_logs(connection, tables)
    known = _Known(connection, tables)
    done = Rebuilt()
    for rows in _past(connection):
        fresh = []
        for row in rows:
            if FIRST_REBUILT + row.id in known.vms:
                done.present += 1
            elif not (row.start or row.loaded or row.finalend):
                done.timeless += 1
            elif row.logid not in recorded:
                fresh.append(row)
        if fresh:
            known.add_others(fresh)
            connection.execute(sa.insert(tables.vm_pool), [_vm(row, now) for row in fresh])
            connection.execute(sa.insert(tables.history), [_stay(row, now) for row in fresh])
            done.added += len(fresh)
    return done


class _Known:
    """What has its row already, and rows for what has none."""

    def __init__(self, connection: Connection, tables: Tables) -> None:
        vm, user = tables.vm_pool.c, tables.user_pool.c
        self._connection = connection
        self._tables = tables
        self.vms = set(connection.scalars(sa.select(vm.oid).where(vm.oid >= FIRST_REBUILT)))
        self._hosts = load_host_ids(connection, tables)
        self._users = set(connection.scalars(sa.select(user.oid)))

    def add_others(self, rows: Sequence[Any]) -> None:
        """The hosts and the users of these rows."""
        for row in rows:
            if row.hid not in self._hosts:
                self._hosts.add(row.hid)
                host = HostFacts(
                    oid=row.hid, hostname=_host_name(row), provisioning=row.provisioning or ""
                )
                add_host(self._connection, self._tables, host)
            if row.userid not in self._users:
                self._users.add(row.userid)
                self._connection.execute(
                    sa.insert(self._tables.user_pool).values(
                        oid=row.userid,
                        user_name=_owner(row)[:256],
                        password="",
                        enabled=int(bool(row.unityid)),
                    )
                )


def _past(connection: Connection) -> Iterator[Sequence[Any]]:
    """Every computer of every request that is over, in batches."""
    last = 0
    while True:
        rows = connection.execute(_past_query().where(SubLog.id > last).limit(BATCH)).all()
        if not rows:
            return
        yield rows
        last = rows[-1].id


def _recorded_logs(connection: Connection, tables: Tables) -> set[int]:
    """Ids of the log rows whose VMs vcld recorded when they lived."""
    vm = tables.vm_pool.c
    found = connection.scalars(
        sa.select(element(vm.template, "LOG_ID")).where(vm.oid < FIRST_REBUILT)
    )
    return {int(text) for text in found if text}


def _past_query() -> sa.Select[*tuple[Any, ...]]:
    host = aliased(Computer)
    lives = sa.exists().where(Request.logid == Log.id)
    return (
        sa.select(
            SubLog.id,
            SubLog.logid,
            SubLog.imageid,
            SubLog.imagerevisionid,
            SubLog.computerid,
            Log.userid,
            Log.requestid,
            Log.ending,
            epoch(Log.start).label("start"),
            epoch(Log.loaded).label("loaded"),
            epoch(Log.finalend).label("finalend"),
            User.unityid,
            Affiliation.name.label("affiliation"),
            Image.prettyname,
            Image.minram,
            Image.minprocnumber,
            ImageRevision.revision,
            Computer.hostname,
            Computer.RAM,
            Computer.procnumber,
            Provisioning.name.label("provisioning"),
            sa.func.coalesce(SubLog.hostcomputerid, SubLog.computerid).label("hid"),
            sa.case(
                (SubLog.hostcomputerid.is_(None), Computer.hostname), else_=host.hostname
            ).label("host_name"),
        )
        .join(Log, Log.id == SubLog.logid)
        .join(User, User.id == Log.userid, isouter=True)
        .join(Affiliation, Affiliation.id == User.affiliationid, isouter=True)
        .join(Image, Image.id == SubLog.imageid, isouter=True)
        .join(ImageRevision, ImageRevision.id == SubLog.imagerevisionid, isouter=True)
        .join(Computer, Computer.id == SubLog.computerid, isouter=True)
        .join(Provisioning, Provisioning.id == Computer.provisioningid, isouter=True)
        .join(host, host.id == SubLog.hostcomputerid, isouter=True)
        .where(sa.not_(lives))
        .order_by(SubLog.id)
    )


def _times(row: Any, now: int) -> dict[str, int]:
    """The stay's times, in order whatever VCL's rows say."""
    end = min(row.finalend or row.loaded or row.start or 0, now)
    start = min(row.start or end, end)
    failed = REASONS.get(row.ending) is Reason.ERROR
    loaded = max(row.loaded or 0, start)
    if not row.loaded or failed or loaded > end:
        return {"stime": start, "pstime": start, "petime": end, "etime": end}
    return {"stime": start, "pstime": start, "petime": loaded, "rstime": loaded, "retime": end,
            "etime": end}  # fmt: skip


def _vm(row: Any, now: int) -> dict[str, Any]:
    times = _times(row, now)
    failed = REASONS.get(row.ending) is Reason.ERROR
    computer = row.hostname or f"computer {row.computerid}"
    image = row.prettyname or f"image {row.imageid}"
    return {
        "oid": FIRST_REBUILT + row.id,
        "uid": row.userid,
        "name": vm_name(image, computer.partition(".")[0]),
        "last_poll": times["etime"],
        "state": int(VmState.FAILED if failed else VmState.DONE),
        "stime": times["stime"],
        "etime": times["etime"],
        "deploy_id": computer.partition(".")[0],
        "memory": fitting((row.RAM or 0) * 1024),
        "cpu": fitting((row.procnumber or 0) * 100),
        "last_seq": 0,
        "template": template(
            (
                ("IMAGE", image),
                ("IMAGE_ID", row.imageid),
                ("REVISION", row.revision),
                ("REVISION_ID", row.imagerevisionid),
                ("REQUEST_ID", row.requestid),
                ("LOG_ID", row.logid),
                ("COMPUTER", computer),
                ("COMPUTER_ID", row.computerid),
                ("CPU", row.minprocnumber),
                ("MEMORY", row.minram),
                ("OWNER", _owner(row)),
                ("REBUILT", "YES"),
            )
        ),
    }


def _stay(row: Any, now: int) -> dict[str, Any]:
    mad = row.provisioning or ""
    times = {"rstime": 0, "retime": 0, **_times(row, now)}
    return {
        **times,
        "vid": FIRST_REBUILT + row.id,
        "seq": 0,
        "host_name": _host_name(row),
        "vm_dir": "",
        "hid": row.hid,
        "vm_mad": mad,
        "tm_mad": "",
        "reason": int(REASONS.get(row.ending, Reason.NONE)),
    }


def _owner(row: Any) -> str:
    if not row.unityid:
        return f"user {row.userid}"
    return full_name(row.unityid, row.affiliation or "")


def _host_name(row: Any) -> str:
    return row.host_name or f"computer {row.hid}"
