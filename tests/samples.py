"""Snapshots of made-up reservations, for tests that need facts but no database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from vcld import snapshot


def make_user(**changes: Any) -> snapshot.User:
    facts: dict[str, Any] = {
        "id": 21,
        "unityid": "mmuster@example.edu",
        "affiliation": snapshot.Affiliation(
            id=2,
            name="Physics",
            helpaddress="help@physics.example.edu",
            sitewwwaddress="https://vcl.example.edu/",
        ),
        "firstname": "Maria",
        "lastname": "Muster",
        "email": "maria@example.edu",
        "emailnotices": True,
        "uid": 521,
    }
    return snapshot.User(**(facts | changes))


def make_node(**changes: Any) -> snapshot.ManagementNode:
    facts: dict[str, Any] = {
        "id": 3,
        "hostname": "mn1.example.edu",
        "IPaddress": "192.0.2.3",
        "state": "available",
        "checkininterval_seconds": 12,
        "installpath": "/install",
        "imagelibenable": False,
        "imagelibgroupid": None,
        "imagelibuser": None,
        "imagelibkey": None,
        "keys": (),
        "sshport": 22,
        "publicIPconfiguration": "dynamicDHCP",
        "publicSubnetMask": None,
        "publicDefaultGateway": None,
        "publicDNSserver": None,
        "sysadminEmailAddress": "admins@example.edu",
        "sharedMailBox": "box@example.edu",
    }
    return snapshot.ManagementNode(**(facts | changes))


def make_reservation(
    *,
    user: snapshot.User | None = None,
    node: snapshot.ManagementNode | None = None,
    vmhost: snapshot.VMHost | None = None,
    state: str = "new",
) -> snapshot.Reservation:
    """A reservation of a virtual machine; on a VM host only if one is given."""
    image = snapshot.Image(
        id=9, name="vmwarelinux-base9-v0", prettyname="Linux with tools", ownerid=1,
        imagetype="vmdk", os_name="vmwarelinux", os_type="linux", os_installtype="vmware",
        os_sourcepath=None, os_module="os_linux", architecture="x86_64", project="vcl",
        minram_mib=512, minprocnumber=1, minprocspeed=500, minnetwork=100,
        reloadtime_minutes=10, size_mib=1450, meta=snapshot.ImageMeta(),
    )  # fmt: skip
    computer = snapshot.Computer(
        id=5, hostname="vm1.example.edu", state="available", type="virtualmachine",
        IPaddress="198.51.100.5", privateIPaddress="10.0.0.5", eth0macaddress=None,
        eth1macaddress=None, ram_mib=2048, procnumber=2, procspeed=2000, network=1000,
        currentimageid=9, imagerevisionid=14, nextimageid=1, provisioning="vmware",
        provisioning_module="provisioning_vmware", predictive_module="predictive_level_1",
        vmhost=vmhost,
    )  # fmt: skip
    request = snapshot.Request(
        id=77, state=state, laststate=state, logid=700, user=user or make_user(),
        forimaging=False, test=False, preload=False, checkuser=True,
        start=dt.datetime(2026, 3, 1, 9, 0), end=dt.datetime(2026, 3, 1, 17, 30),
        daterequested=dt.datetime(2026, 3, 1, 8, 59, 30), duration_seconds=30600,
    )  # fmt: skip
    return snapshot.Reservation(
        id=88,
        request=request,
        computer=computer,
        image=image,
        imagerevision=snapshot.ImageRevision(
            id=14,
            imageid=9,
            revision=3,
            imagename="vmwarelinux-base9-v3",
            production=True,
            deleted=False,
            datecreated=dt.datetime(2026, 1, 1),
        ),
        managementnode=node or make_node(),
        pw="s3cret-pw",
    )


def make_vmhost() -> snapshot.VMHost:
    profile = snapshot.VMProfile(
        id=4, profilename="esx cluster", imageid=6, image_name="esx65", os_module="os_esxi",
        resourcepath=None, folderpath=None, repositorypath=None, repositoryimagetype=None,
        datastorepath="/vmfs/volumes/data", datastoreimagetype="vmdk", vmpath=None,
        virtualswitches=("Private", "Public", None, None), vmdisk="shared",
        username="root", password="host-pw",
    )  # fmt: skip
    return snapshot.VMHost(
        id=11, computerid=12, hostname="esx1.example.edu", IPaddress="192.0.2.11",
        privateIPaddress=None, state="vmhostinuse", profile=profile,
    )  # fmt: skip


def with_end(reservation: snapshot.Reservation, end: dt.datetime | None) -> snapshot.Reservation:
    return replace(reservation, request=replace(reservation.request, end=end))
