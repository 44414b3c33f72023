"""The query behind a snapshot: a reservation with everything that hangs on it, in one row.

Every join is an outer one, so that a missing row shows as missing instead of hiding the
reservation. Columns are labelled with the prefixes that ``vcld.store.snapshots`` reads.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from vcld.schema.models import (
    OS,
    Affiliation,
    Computer,
    Image,
    ImageMeta,
    ImageRevision,
    ImageType,
    Module,
    NATHost,
    NATHostComputerMap,
    Provisioning,
    Request,
    Reservation,
    Resource,
    ResourceType,
    ServerRequest,
    State,
    User,
    VMHost,
    VMProfile,
)
from vcld.schema.sqltime import seconds_between

#: Columns of a VM host's profile.
PROFILE_COLUMNS = (
    "id",
    "profilename",
    "imageid",
    "resourcepath",
    "folderpath",
    "repositorypath",
    "datastorepath",
    "vmpath",
    "virtualswitch0",
    "virtualswitch1",
    "virtualswitch2",
    "virtualswitch3",
    "vmdisk",
    "username",
    "password",
    "secretid",
    "rsapub",
    "rsakey",
    "encryptedpasswd",
    "eth0generated",
    "eth1generated",
)

_host = aliased(Computer, name="h")
_host_state = aliased(State, name="hs")
_computer_state = aliased(State, name="cs")
_provisioning_module = aliased(Module, name="pm")
_predictive_module = aliased(Module, name="dm")
_os_module = aliased(Module, name="om")
_nat_computer = aliased(Computer, name="nc")
_host_image = aliased(Image, name="hi")
_host_os = aliased(OS, name="ho")
_host_module = aliased(Module, name="hm")
_repository_type = aliased(ImageType, name="rt")
_datastore_type = aliased(ImageType, name="dt")
_sibling = aliased(Reservation, name="s")


def _labelled(prefix: str, entity: Any, *names: str) -> list[Any]:
    return [getattr(entity, name).label(f"{prefix}_{name}") for name in names]


def user_columns() -> list[Any]:
    """Columns of a user (``u_``) and the affiliation (``a_``), for ``make_user``."""
    return [
        *_labelled(
            "u",
            User,
            "id",
            "unityid",
            "firstname",
            "lastname",
            "preferredname",
            "email",
            "emailnotices",
            "uid",
            "usepublickeys",
            "sshpublickeys",
        ),
        *_labelled("a", Affiliation, "id", "name", "helpaddress", "sitewwwaddress"),
    ]


#: What hangs on a VM host.
_OF_VMHOST: tuple[tuple[Any, Any], ...] = (
    (_host, _host.id == VMHost.computerid),
    (_host_state, _host_state.id == _host.stateid),
    (VMProfile, VMProfile.id == VMHost.vmprofileid),
    (_host_image, _host_image.id == VMProfile.imageid),
    (_host_os, _host_os.id == _host_image.OSid),
    (_host_module, _host_module.id == _host_os.moduleid),
    (_repository_type, _repository_type.id == VMProfile.repositoryimagetypeid),
    (_datastore_type, _datastore_type.id == VMProfile.datastoreimagetypeid),
)


def _vmhost_columns() -> list[Any]:
    return [
        VMHost.id.label("vh_id"),
        _host_state.name.label("h_state"),
        *_labelled("h", _host, "id", "hostname", "IPaddress", "privateIPaddress"),
        *_labelled("vp", VMProfile, *PROFILE_COLUMNS),
        _host_image.name.label("hi_name"),
        _host_module.name.label("hm_name"),
        _repository_type.name.label("rt_name"),
        _datastore_type.name.label("dt_name"),
    ]


def vmhost_query() -> sa.Select[Any]:
    """All VM hosts; columns as in ``reservation_query``."""
    source: Any = VMHost
    for entity, condition in _OF_VMHOST:
        source = sa.join(source, entity, condition, isouter=True)
    return sa.select(*_vmhost_columns()).select_from(source).order_by(VMHost.id)


@functools.cache
def reservation_query() -> sa.Select[Any]:
    count = (
        sa.select(sa.func.count())
        .where(_sibling.requestid == Reservation.requestid)
        .correlate(Reservation)
        .scalar_subquery()
    )
    return (
        sa.select(
            Reservation.computerid,
            Reservation.imageid,
            Reservation.imagerevisionid,
            Reservation.remoteIP,
            Reservation.pw,
            Reservation.lastcheck,
            Request.userid,
            Request.id.label("requestid"),
            count.label("sibling_count"),
            seconds_between(Request.start, Request.end).label("duration"),
            *_labelled(
                "r",
                Request,
                "logid",
                "forimaging",
                "test",
                "preload",
                "checkuser",
                "start",
                "end",
                "daterequested",
            ),
            *_labelled(
                "sr",
                ServerRequest,
                "id",
                "name",
                "fixedIP",
                "fixedMAC",
                "admingroupid",
                "logingroupid",
                "monitored",
            ),
            *user_columns(),
            *_labelled(
                "c",
                Computer,
                "id",
                "hostname",
                "type",
                "IPaddress",
                "privateIPaddress",
                "eth0macaddress",
                "eth1macaddress",
                "RAM",
                "procnumber",
                "procspeed",
                "network",
                "currentimageid",
                "imagerevisionid",
                "nextimageid",
            ),
            _computer_state.name.label("c_state"),
            Provisioning.name.label("p_name"),
            _provisioning_module.name.label("pm_name"),
            _predictive_module.name.label("dm_name"),
            *_labelled(
                "i",
                Image,
                "id",
                "name",
                "prettyname",
                "ownerid",
                "architecture",
                "project",
                "minram",
                "minprocnumber",
                "minprocspeed",
                "minnetwork",
                "reloadtime",
                "size",
            ),
            ImageType.name.label("it_name"),
            *_labelled("os", OS, "name", "type", "installtype", "sourcepath"),
            _os_module.name.label("om_name"),
            *_labelled(
                "m", ImageMeta, "checkuser", "subimages", "sysprep", "rootaccess", "sethostname"
            ),
            *_labelled(
                "v",
                ImageRevision,
                "id",
                "imageid",
                "revision",
                "imagename",
                "production",
                "deleted",
                "datecreated",
            ),
            *_vmhost_columns(),
            *_labelled("n", NATHost, "id", "publicIPaddress", "internalIPaddress"),
            *_labelled("nc", _nat_computer, "id", "hostname", "privateIPaddress"),
        )
        .select_from(_joined())
        .where(Reservation.id == sa.bindparam("reservationid"))
        .limit(1)
    )


def _joined() -> Any:
    def left(source: Any, entity: Any, condition: Any) -> Any:
        return source.join(entity, condition, isouter=True)

    tree: Any = sa.join(Reservation, Request, Request.id == Reservation.requestid, isouter=True)
    steps: tuple[tuple[Any, Any], ...] = (
        (ServerRequest, ServerRequest.requestid == Request.id),
        (User, User.id == Request.userid),
        (Affiliation, Affiliation.id == User.affiliationid),
        (Computer, Computer.id == Reservation.computerid),
        (_computer_state, _computer_state.id == Computer.stateid),
        (Provisioning, Provisioning.id == Computer.provisioningid),
        (_provisioning_module, _provisioning_module.id == Provisioning.moduleid),
        (_predictive_module, _predictive_module.id == Computer.predictivemoduleid),
        (Image, Image.id == Reservation.imageid),
        (ImageType, ImageType.id == Image.imagetypeid),
        (OS, OS.id == Image.OSid),
        (_os_module, _os_module.id == OS.moduleid),
        (ImageMeta, ImageMeta.id == Image.imagemetaid),
        (ImageRevision, ImageRevision.id == Reservation.imagerevisionid),
        (VMHost, VMHost.id == Computer.vmhostid),
        *_OF_VMHOST,
        (NATHostComputerMap, NATHostComputerMap.computerid == Computer.id),
        (NATHost, NATHost.id == NATHostComputerMap.nathostid),
        (Resource, Resource.id == NATHost.resourceid),
        (
            ResourceType,
            sa.and_(ResourceType.id == Resource.resourcetypeid, ResourceType.name == "computer"),
        ),
        (
            _nat_computer,
            sa.and_(_nat_computer.id == Resource.subid, ResourceType.id.is_not(None)),
        ),
    )
    for entity, condition in steps:
        tree = left(tree, entity, condition)
    return tree
