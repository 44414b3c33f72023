"""Computers, VM hosts and NAT hosts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class Computer(c.Base):
    __tablename__ = "computer"
    __table_args__ = (
        c.key("currentimageid", "currentimageid"),
        c.key("deleted", "deleted"),
        c.unique_key("eth0macaddress", "eth0macaddress", "datedeleted"),
        c.unique_key("eth1macaddress", "eth1macaddress", "datedeleted"),
        c.unique_key("hostname", "hostname", "datedeleted"),
        c.key("imagerevisionid", "imagerevisionid"),
        c.key("nextimageid", "nextimageid"),
        c.key("ownerid", "ownerid"),
        c.key("platformid", "platformid"),
        c.key("predictivemoduleid", "predictivemoduleid"),
        c.key("provisioningid", "provisioningid"),
        c.key("scheduleid", "scheduleid"),
        c.key("stateid", "stateid"),
        c.key("type", "type"),
        c.key("vmhostid", "vmhostid"),
        c.key("vmtypeid", "vmtypeid"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    stateid: Mapped[int] = mapped_column(
        c.tinyint(5), c.references("state.id", on_update="CASCADE"), server_default=text("10")
    )
    ownerid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE"), server_default=text("1")
    )
    platformid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("platform.id", on_update="CASCADE"), server_default=text("1")
    )
    scheduleid: Mapped[int | None] = mapped_column(
        c.tinyint(3), c.references("schedule.id", on_delete="SET NULL")
    )
    vmhostid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("vmhost.id", on_update="CASCADE", on_delete="SET NULL")
    )
    currentimageid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("image.id"), server_default=text("1")
    )
    nextimageid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("image.id"), server_default=text("1")
    )
    imagerevisionid: Mapped[int] = mapped_column(
        c.mediumint(8),
        c.references("imagerevision.id", on_update="CASCADE"),
        server_default=text("1"),
    )
    RAM: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("0"))
    procnumber: Mapped[int] = mapped_column(c.tinyint(5), server_default=text("1"))
    procspeed: Mapped[int] = mapped_column(c.smallint(5), server_default=text("0"))
    network: Mapped[int] = mapped_column(c.smallint(5), server_default=text("100"))
    hostname: Mapped[str] = mapped_column(c.varchar(36), server_default=text("''"))
    IPaddress: Mapped[str] = mapped_column(c.varchar(15), server_default=text("''"))
    privateIPaddress: Mapped[str | None] = mapped_column(c.varchar(15))
    eth0macaddress: Mapped[str | None] = mapped_column(c.varchar(17))
    eth1macaddress: Mapped[str | None] = mapped_column(c.varchar(17))
    type: Mapped[str] = mapped_column(
        c.enum("blade", "lab", "virtualmachine"), server_default=text("'blade'")
    )
    provisioningid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("provisioning.id", on_update="CASCADE")
    )
    drivetype: Mapped[str] = mapped_column(c.varchar(4), server_default=text("'hda'"))
    deleted: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    datedeleted: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    notes: Mapped[str | None] = mapped_column(c.text())
    lastcheck: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    location: Mapped[str | None] = mapped_column(c.varchar(255))
    dsa: Mapped[str | None] = mapped_column(c.mediumtext())
    dsapub: Mapped[str | None] = mapped_column(c.mediumtext())
    rsa: Mapped[str | None] = mapped_column(c.mediumtext())
    rsapub: Mapped[str | None] = mapped_column(c.mediumtext())
    host: Mapped[bytes | None] = mapped_column(c.blob())
    hostpub: Mapped[str | None] = mapped_column(c.mediumtext())
    vmtypeid: Mapped[int | None] = mapped_column(c.tinyint(3))
    predictivemoduleid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("module.id", on_update="CASCADE"), server_default=text("9")
    )


class VMHost(c.Base):
    __tablename__ = "vmhost"
    __table_args__ = (
        c.unique_key("computerid_vmprofileid", "computerid", "vmprofileid"),
        c.key("vmprofileid", "vmprofileid"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    computerid: Mapped[int] = mapped_column(c.smallint(5), c.references("computer.id"))
    vmprofileid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("vmprofile.id", on_update="CASCADE")
    )


class VMProfile(c.Base):
    __tablename__ = "vmprofile"
    __table_args__ = (
        c.key("datastoreimagetypeid", "datastoreimagetypeid"),
        c.key("imageid", "imageid"),
        c.unique_key("profilename", "profilename"),
        c.key("repositoryimagetypeid", "repositoryimagetypeid"),
        c.key("secretid", "secretid"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    profilename: Mapped[str] = mapped_column(c.varchar(56))
    imageid: Mapped[int] = mapped_column(c.smallint(5), c.references("image.id"))
    resourcepath: Mapped[str | None] = mapped_column(c.varchar(256))
    folderpath: Mapped[str | None] = mapped_column(c.varchar(256))
    repositorypath: Mapped[str | None] = mapped_column(c.varchar(128))
    repositoryimagetypeid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("imagetype.id", on_update="CASCADE"), server_default=text("1")
    )
    datastorepath: Mapped[str] = mapped_column(c.varchar(128))
    datastoreimagetypeid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("imagetype.id", on_update="CASCADE"), server_default=text("1")
    )
    vmpath: Mapped[str | None] = mapped_column(c.varchar(128))
    virtualswitch0: Mapped[str] = mapped_column(c.varchar(80), server_default=text("'VMnet0'"))
    virtualswitch1: Mapped[str] = mapped_column(c.varchar(80), server_default=text("'VMnet2'"))
    virtualswitch2: Mapped[str | None] = mapped_column(c.varchar(80))
    virtualswitch3: Mapped[str | None] = mapped_column(c.varchar(80))
    vmdisk: Mapped[str] = mapped_column(
        c.enum("dedicated", "shared"), server_default=text("'dedicated'")
    )
    username: Mapped[str | None] = mapped_column(c.varchar(80))
    password: Mapped[str | None] = mapped_column(c.varchar(256))
    secretid: Mapped[int | None] = mapped_column(c.smallint(5))
    eth0generated: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    eth1generated: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    rsapub: Mapped[str | None] = mapped_column(c.text())
    rsakey: Mapped[str | None] = mapped_column(c.varchar(256))
    encryptedpasswd: Mapped[str | None] = mapped_column(c.text())


class Platform(c.Base):
    __tablename__ = "platform"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(20), server_default=text("''"))


class NATHost(c.Base):
    __tablename__ = "nathost"
    __table_args__ = (c.unique_key("resourceid", "resourceid"),)
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    resourceid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("resource.id", on_update="CASCADE")
    )
    publicIPaddress: Mapped[str] = mapped_column(c.varchar(15))
    internalIPaddress: Mapped[str | None] = mapped_column(c.varchar(15))


class NATHostComputerMap(c.Base):
    __tablename__ = "nathostcomputermap"
    __table_args__ = (
        c.unique_key("computerid", "computerid", "nathostid"),
        c.key("nathostid", "nathostid"),
    )
    __mapper_args__ = {"primary_key": ["computerid", "nathostid"]}
    nathostid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("nathost.id", on_update="CASCADE", on_delete="CASCADE")
    )
    computerid: Mapped[int] = mapped_column(c.smallint(5), c.references("computer.id"))


class NATPort(c.Base):
    __tablename__ = "natport"
    __table_args__ = (
        c.key("connectmethodportid", "connectmethodportid"),
        c.key("nathostid", "nathostid"),
        c.unique_key("nathostid_publicport", "nathostid", "publicport"),
        c.key("reservationid", "reservationid"),
        c.unique_key("reservationid_connectmethodportid", "reservationid", "connectmethodportid"),
    )
    __mapper_args__ = {"primary_key": ["nathostid", "publicport"]}
    reservationid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("reservation.id", on_delete="CASCADE")
    )
    nathostid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("nathost.id", on_update="CASCADE")
    )
    publicport: Mapped[int] = mapped_column(c.smallint(5))
    connectmethodportid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("connectmethodport.id", on_update="CASCADE")
    )


class NATLog(c.Base):
    __tablename__ = "natlog"
    __table_args__ = (
        c.key("logid", "sublogid"),
        c.key("nathostid", "nathostresourceid"),
        c.key("nathostresourceid", "nathostresourceid"),
        c.unique_key(
            "sublogid",
            "sublogid",
            "nathostresourceid",
            "publicIPaddress",
            "publicport",
            "internalIPaddress",
            "internalport",
            "protocol",
        ),
    )
    __mapper_args__ = {
        "primary_key": [
            "sublogid",
            "nathostresourceid",
            "publicIPaddress",
            "publicport",
            "internalIPaddress",
            "internalport",
            "protocol",
        ]
    }
    sublogid: Mapped[int] = mapped_column(
        c.integer(10), c.references("sublog.id", on_update="CASCADE")
    )
    nathostresourceid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("resource.id", on_update="CASCADE")
    )
    publicIPaddress: Mapped[str] = mapped_column(c.varchar(15))
    publicport: Mapped[int] = mapped_column(c.smallint(5))
    internalIPaddress: Mapped[str | None] = mapped_column(c.varchar(15))
    internalport: Mapped[int] = mapped_column(c.smallint(5))
    protocol: Mapped[str] = mapped_column(c.enum("TCP", "UDP"), server_default=text("'TCP'"))
    timestamp: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
