"""What VCL's ``log``, ``sublog`` and ``computer`` say of the past, as rows of the accounting."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from vcld.accounting.codes import FIRST_REBUILT, Reason, VmState
from vcld.accounting.facts import allocation, full_name, template, vm_name
from vcld.accounting.sqlfacts import epoch
from vcld.accounting.tables import fitting
from vcld.schema.models import (
    Affiliation,
    Computer,
    Image,
    ImageRevision,
    Log,
    Provisioning,
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


def past_query() -> sa.Select[*tuple[Any, ...]]:
    """Every computer of every request there was, by ``sublog.id``."""
    host = aliased(Computer)
    # 0 names no computer, wherever it comes from.
    vmhost = sa.func.nullif(SubLog.hostcomputerid, 0)
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
            sa.func.coalesce(vmhost, SubLog.computerid).label("hid"),
            sa.case((vmhost.is_(None), Computer.hostname), else_=host.hostname).label("host_name"),
        )
        .join(Log, Log.id == SubLog.logid)
        .join(User, User.id == Log.userid, isouter=True)
        .join(Affiliation, Affiliation.id == User.affiliationid, isouter=True)
        .join(Image, Image.id == SubLog.imageid, isouter=True)
        .join(ImageRevision, ImageRevision.id == SubLog.imagerevisionid, isouter=True)
        .join(Computer, Computer.id == SubLog.computerid, isouter=True)
        .join(Provisioning, Provisioning.id == Computer.provisioningid, isouter=True)
        .join(host, host.id == SubLog.hostcomputerid, isouter=True)
        .order_by(SubLog.id)
    )


def _known(row: Any, now: int) -> tuple[int, int, int]:
    """Begin, end of the load, and end; 0 where VCL does not know it.

    A time ahead of now is none: of a request that is gone and was never closed, the end is what
    had been planned, years ahead for a server.
    """
    start, loaded, end = (
        time if time and 0 < time <= now else 0 for time in (row.start, row.loaded, row.finalend)
    )
    return start, loaded, end


def is_timeless(row: Any, now: int) -> bool:
    """True when nothing tells when it was."""
    return not any(_known(row, now))


def _times(row: Any, now: int) -> dict[str, int]:
    """The stay's times, in order whatever VCL's rows say; it ended when it was last heard of."""
    start, loaded, end = _known(row, now)
    end = end or max(loaded, start)
    start = min(start or end, end)
    failed = REASONS.get(row.ending) is Reason.ERROR
    if not loaded or failed or max(loaded, start) > end:
        return {"stime": start, "pstime": start, "petime": end, "etime": end}
    loaded = max(loaded, start)
    return {"stime": start, "pstime": start, "petime": loaded, "rstime": loaded, "retime": end,
            "etime": end}  # fmt: skip


def vm_row(row: Any, now: int) -> dict[str, Any]:
    """Its row of ``vm_pool``."""
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
                *allocation(row.procnumber or 0, row.RAM or 0),
                ("OWNER", owner_name(row)),
                ("REBUILT", "YES"),
            )
        ),
    }


def stay_row(row: Any, now: int) -> dict[str, Any]:
    """Its one row of ``history``."""
    mad = row.provisioning or ""
    times = {"rstime": 0, "retime": 0, **_times(row, now)}
    return {
        **times,
        "vid": FIRST_REBUILT + row.id,
        "seq": 0,
        "host_name": host_name(row),
        "vm_dir": "",
        "hid": row.hid,
        "vm_mad": mad,
        "tm_mad": "",
        "reason": int(REASONS.get(row.ending, Reason.NONE)),
    }


def owner_name(row: Any) -> str:
    """The owner; by number, where there is no user any more."""
    if not row.unityid:
        return f"user {row.userid}"
    return full_name(row.unityid, row.affiliation or "")


def host_name(row: Any) -> str:
    """The host; by number, where there is no computer any more."""
    return row.host_name or f"computer {row.hid}"
