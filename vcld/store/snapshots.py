"""Loading the picture of a reservation: one query for it, one for its siblings if any."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld import snapshot
from vcld.errors import ReservationChangedError, ReservationDataError
from vcld.schema.models import Computer, Reservation, State, VMHost
from vcld.store.grips import Grip
from vcld.store.reservation_query import PROFILE_COLUMNS, reservation_query, vmhost_query

#: A user's presence is not checked in reservations this long (specification §2.5).
LONG_RESERVATION_SECONDS = 86400
#: Added to user.id where the site keeps no numeric user ids (specification §2.5).
FIRST_UID = 500

Mapping = Any  # a RowMapping, whose keys are the labels below


def load_reservation(
    connection: Connection, grip: Grip, node: snapshot.ManagementNode, *, preload_only: bool
) -> snapshot.Reservation:
    """Read everything about the claimed reservation.

    Raises:
        ReservationChangedError: the reservation or its request is gone.
        ReservationDataError: a row it refers to is missing; the message names it.
    """
    row = connection.execute(
        reservation_query(), {"reservationid": grip.reservationid}
    ).one_or_none()
    if row is None or row.requestid is None:
        raise ReservationChangedError(f"reservation {grip.reservationid} is gone")
    m = row._mapping
    _require(grip, m)
    siblings = _siblings(connection, grip) if m["sibling_count"] > 1 else ()
    return snapshot.Reservation(
        id=grip.reservationid,
        request=_request(m, grip, node),
        computer=_computer(m),
        image=_image(m),
        imagerevision=_revision(m),
        managementnode=node,
        remoteIP=m["remoteIP"] or None,
        pw=m["pw"],
        lastcheck=m["lastcheck"],
        preload_only=preload_only,
        siblings=siblings,
    )


def _require(grip: Grip, m: Mapping) -> None:
    """Name the row that is missing: foreign keys are not enforced everywhere."""
    parts = {
        "computer": ("c_id", "computerid"),
        "image": ("i_id", "imageid"),
        "image revision": ("v_id", "imagerevisionid"),
        "user": ("u_id", "userid"),
        "provisioning of computer": ("p_name", "computerid"),
        "module of the provisioning of computer": ("pm_name", "computerid"),
        "operating system of image": ("os_name", "imageid"),
    }
    for what, (key, reference) in parts.items():
        if m[key] is None:
            msg = f"reservation {grip.reservationid}: the {what} {m[reference]} has no row"
            raise ReservationDataError(msg)


def _siblings(connection: Connection, grip: Grip) -> tuple[snapshot.Sibling, ...]:
    """The reservations of the request.

    Raises:
        ReservationDataError: one that is still to be prepared has a computer without a row: the
            user would wait for a part of a cluster that never comes.
    """
    rows = connection.execute(
        sa.select(
            Reservation.id,
            Reservation.computerid,
            Reservation.managementnodeid,
            Computer.hostname,
            Computer.privateIPaddress,
            Computer.IPaddress,
        )
        .join(Computer, Computer.id == Reservation.computerid, isouter=True)
        .where(Reservation.requestid == grip.requestid)
        .order_by(Reservation.id)
    ).all()
    for row in rows:
        if row.hostname is None and grip.state == "new":
            msg = f"reservation {row.id}: the computer {row.computerid} has no row"
            raise ReservationDataError(msg)
    whole = (row for row in rows if row.hostname is not None)
    return tuple(snapshot.Sibling(**row._mapping) for row in whole)


def _request(m: Mapping, grip: Grip, node: snapshot.ManagementNode) -> snapshot.Request:
    server = None
    if m["sr_id"] is not None:
        server = snapshot.ServerRequest(
            id=m["sr_id"],
            name=m["sr_name"],
            fixedIP=m["sr_fixedIP"],
            fixedMAC=m["sr_fixedMAC"],
            admingroupid=m["sr_admingroupid"],
            logingroupid=m["sr_logingroupid"],
            monitored=bool(m["sr_monitored"]),
        )
    duration = m["duration"] or 0
    checked = bool(m["r_checkuser"]) and server is None and duration < LONG_RESERVATION_SECONDS
    return snapshot.Request(
        id=grip.requestid,
        state=grip.state,
        laststate=grip.laststate,
        logid=m["r_logid"],
        user=make_user(m, node),
        forimaging=bool(m["r_forimaging"]),
        test=bool(m["r_test"]),
        preload=bool(m["r_preload"]),
        checkuser=checked,
        start=m["r_start"],
        end=m["r_end"],
        daterequested=m["r_daterequested"],
        duration_seconds=duration,
        server=server,
    )


def make_user(m: Mapping, node: snapshot.ManagementNode) -> snapshot.User:
    """Make a user of a row with ``user_columns``."""
    affiliation = snapshot.Affiliation(
        id=m["a_id"] or 0,
        name=m["a_name"] or "",
        helpaddress=m["a_helpaddress"],
        sitewwwaddress=m["a_sitewwwaddress"],
    )
    return snapshot.User(
        id=m["u_id"],
        unityid=m["u_unityid"],
        affiliation=affiliation,
        firstname=m["u_firstname"] or "",
        lastname=m["u_lastname"] or "",
        preferredname=m["u_preferredname"],
        email=m["u_email"] or "",
        emailnotices=bool(m["u_emailnotices"]),
        uid=m["u_uid"] if m["u_uid"] is not None else m["u_id"] + FIRST_UID,
        federated=m["u_uid"] is not None and affiliation.name in node.not_standalone,
        usepublickeys=bool(m["u_usepublickeys"]),
        sshpublickeys=m["u_sshpublickeys"],
    )


def _computer(m: Mapping) -> snapshot.Computer:
    nathost = None
    if m["n_id"] is not None:
        nathost = snapshot.NATHost(
            id=m["n_id"],
            publicIPaddress=m["n_publicIPaddress"],
            internalIPaddress=m["n_internalIPaddress"],
            computerid=m["nc_id"],
            hostname=m["nc_hostname"],
            privateIPaddress=m["nc_privateIPaddress"],
        )
    return snapshot.Computer(
        id=m["c_id"],
        hostname=m["c_hostname"],
        state=m["c_state"] or "",
        type=m["c_type"],
        IPaddress=m["c_IPaddress"],
        privateIPaddress=m["c_privateIPaddress"],
        eth0macaddress=m["c_eth0macaddress"],
        eth1macaddress=m["c_eth1macaddress"],
        ram_mib=m["c_RAM"],
        procnumber=m["c_procnumber"],
        procspeed=m["c_procspeed"],
        network=m["c_network"],
        currentimageid=m["c_currentimageid"],
        imagerevisionid=m["c_imagerevisionid"],
        nextimageid=m["c_nextimageid"],
        provisioning=m["p_name"],
        provisioning_module=m["pm_name"],
        predictive_module=m["dm_name"] or "",
        vmhost=make_vmhost(m),
        nathost=nathost,
    )


def make_vmhost(m: Mapping) -> snapshot.VMHost | None:
    """Make a VM host of a row of ``reservation_query`` or ``vmhost_query``, if it is complete."""
    if m["vh_id"] is None or m["h_id"] is None or m["vp_id"] is None:
        return None
    own = {
        name: m[f"vp_{name}"]
        for name in PROFILE_COLUMNS
        if not name.startswith(("virtualswitch", "eth"))
    }
    profile = snapshot.VMProfile(
        **own,
        image_name=m["hi_name"],
        os_module=m["hm_name"],
        repositoryimagetype=m["rt_name"],
        datastoreimagetype=m["dt_name"],
        virtualswitches=(
            m["vp_virtualswitch0"],
            m["vp_virtualswitch1"],
            m["vp_virtualswitch2"],
            m["vp_virtualswitch3"],
        ),
        eth0generated=bool(m["vp_eth0generated"]),
        eth1generated=bool(m["vp_eth1generated"]),
    )
    return snapshot.VMHost(
        id=m["vh_id"],
        computerid=m["h_id"],
        hostname=m["h_hostname"],
        IPaddress=m["h_IPaddress"],
        privateIPaddress=m["h_privateIPaddress"],
        state=m["h_state"] or "",
        profile=profile,
    )


def load_vmhosts(
    connection: Connection, computerids: Collection[int]
) -> dict[int, snapshot.VMHost]:
    """The VM hosts among these computers, by the computer's id."""
    rows = connection.execute(vmhost_query().where(VMHost.computerid.in_(computerids))).mappings()
    hosts = filter(None, map(make_vmhost, rows))
    return {host.computerid: host for host in hosts}


def _image(m: Mapping) -> snapshot.Image:
    def flag(name: str, default: bool) -> bool:
        return default if m[f"m_{name}"] is None else bool(m[f"m_{name}"])

    set_hostname = m["m_sethostname"]
    meta = snapshot.ImageMeta(
        checkuser=flag("checkuser", True),
        subimages=flag("subimages", False),
        sysprep=flag("sysprep", True),
        rootaccess=flag("rootaccess", True),
        sethostname=None if set_hostname is None else bool(set_hostname),
    )
    return snapshot.Image(
        id=m["i_id"],
        name=m["i_name"],
        prettyname=m["i_prettyname"],
        ownerid=m["i_ownerid"],
        imagetype=m["it_name"] or "none",
        os_name=m["os_name"],
        os_type=m["os_type"],
        os_installtype=m["os_installtype"],
        os_sourcepath=m["os_sourcepath"],
        os_module=m["om_name"],
        architecture=m["i_architecture"],
        project=m["i_project"],
        minram_mib=m["i_minram"],
        minprocnumber=m["i_minprocnumber"],
        minprocspeed=m["i_minprocspeed"],
        minnetwork=m["i_minnetwork"],
        reloadtime_minutes=m["i_reloadtime"],
        size_mib=m["i_size"],
        meta=meta,
    )


def _revision(m: Mapping) -> snapshot.ImageRevision:
    return snapshot.ImageRevision(
        id=m["v_id"],
        imageid=m["v_imageid"],
        revision=m["v_revision"],
        imagename=m["v_imagename"],
        production=bool(m["v_production"]),
        deleted=bool(m["v_deleted"]),
        datecreated=m["v_datecreated"],
    )


def find_computer_now(connection: Connection, computerid: int) -> tuple[str, str] | None:
    """The computer's state and public address as they are now."""
    row = connection.execute(
        sa.select(State.name, Computer.IPaddress)
        .join(Computer, Computer.stateid == State.id)
        .where(Computer.id == computerid)
    ).one_or_none()
    return None if row is None else (row[0], row[1] or "")


def find_computer_state(connection: Connection, computerid: int) -> str | None:
    """The computer's state as it is now."""
    return connection.scalar(
        sa.select(State.name)
        .join(Computer, Computer.stateid == State.id)
        .where(Computer.id == computerid)
    )
