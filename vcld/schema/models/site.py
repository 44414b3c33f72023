"""The site: states, modules, management nodes, settings and resource groups."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class State(c.Base):
    __tablename__ = "state"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(20), server_default=text("''"))


class Module(c.Base):
    __tablename__ = "module"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(30))
    prettyname: Mapped[str] = mapped_column(c.varchar(70))
    description: Mapped[str] = mapped_column(c.varchar(255))
    perlpackage: Mapped[str] = mapped_column(c.varchar(150))


class Provisioning(c.Base):
    __tablename__ = "provisioning"
    __table_args__ = (
        c.key("moduleid", "moduleid"),
        c.unique_key("name", "name"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(30))
    prettyname: Mapped[str] = mapped_column(c.varchar(70))
    moduleid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("module.id", on_update="CASCADE")
    )


class ProvisioningOSInstallType(c.Base):
    __tablename__ = "provisioningOSinstalltype"
    __table_args__ = (c.key("OSinstalltypeid", "OSinstalltypeid"),)
    provisioningid: Mapped[int] = mapped_column(
        c.smallint(5),
        c.references("provisioning.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    OSinstalltypeid: Mapped[int] = mapped_column(
        c.tinyint(3),
        c.references("OSinstalltype.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )


class ManagementNode(c.Base):
    __tablename__ = "managementnode"
    __table_args__ = (
        c.unique_key("hostname", "hostname"),
        c.key("imagelibgroupid", "imagelibgroupid"),
        c.key("IPaddress", "IPaddress"),
        c.key("ownerid", "ownerid"),
        c.key("stateid", "stateid"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    IPaddress: Mapped[str] = mapped_column(c.varchar(15), server_default=text("''"))
    hostname: Mapped[str] = mapped_column(c.varchar(50), server_default=text("''"))
    ownerid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE"), server_default=text("1")
    )
    stateid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("state.id", on_update="CASCADE"), server_default=text("0")
    )
    lastcheckin: Mapped[datetime | None] = mapped_column(
        c.timestamp(), nullable=True, server_default=text("'0000-00-00 00:00:00'")
    )
    checkininterval: Mapped[int] = mapped_column(c.tinyint(3), server_default=text("12"))
    installpath: Mapped[str] = mapped_column(c.varchar(100), server_default=text("'/install'"))
    imagelibenable: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    imagelibgroupid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("resourcegroup.id", on_update="CASCADE", on_delete="SET NULL")
    )
    imagelibuser: Mapped[str | None] = mapped_column(
        c.varchar(20), server_default=text("'vclstaff'")
    )
    imagelibkey: Mapped[str | None] = mapped_column(
        c.varchar(100), server_default=text("'/etc/vcl/imagelib.key'")
    )
    keys: Mapped[str | None] = mapped_column(c.varchar(1024))
    sshport: Mapped[int] = mapped_column(c.smallint(5), server_default=text("22"))
    publicIPconfiguration: Mapped[str] = mapped_column(
        c.enum("dynamicDHCP", "manualDHCP", "static"), server_default=text("'dynamicDHCP'")
    )
    publicSubnetMask: Mapped[str | None] = mapped_column(c.varchar(56))
    publicDefaultGateway: Mapped[str | None] = mapped_column(c.varchar(56))
    publicDNSserver: Mapped[str | None] = mapped_column(c.varchar(56))
    sysadminEmailAddress: Mapped[str | None] = mapped_column(c.varchar(128))
    sharedMailBox: Mapped[str | None] = mapped_column(c.varchar(128))
    NOT_STANDALONE: Mapped[str | None] = mapped_column(c.varchar(128))
    availablenetworks: Mapped[str] = mapped_column(c.text())


class Variable(c.Base):
    __tablename__ = "variable"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(128))
    serialization: Mapped[str] = mapped_column(
        c.enum("none", "yaml", "phpserialize"), server_default=text("'none'")
    )
    value: Mapped[str] = mapped_column(c.longtext())
    setby: Mapped[str | None] = mapped_column(c.varchar(128))
    timestamp: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)


class Resource(c.Base):
    __tablename__ = "resource"
    __table_args__ = (c.unique_key("resourcetypeid", "resourcetypeid", "subid"),)
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    resourcetypeid: Mapped[int] = mapped_column(
        c.tinyint(5), c.references("resourcetype.id", on_update="CASCADE"), server_default=text("0")
    )
    subid: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("0"))


class ResourceType(c.Base):
    __tablename__ = "resourcetype"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(50), server_default=text("''"))


class ResourceGroup(c.Base):
    __tablename__ = "resourcegroup"
    __table_args__ = (
        c.key("ownerusergroupid", "ownerusergroupid"),
        c.unique_key("resourcetypeid", "resourcetypeid", "name"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(60), server_default=text("''"))
    ownerusergroupid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("usergroup.id", on_update="CASCADE"), server_default=text("39")
    )
    resourcetypeid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("resourcetype.id", on_update="CASCADE"), server_default=text("0")
    )


class ResourceGroupMember(c.Base):
    __tablename__ = "resourcegroupmembers"
    __table_args__ = (c.key("resourcegroupid", "resourcegroupid"),)
    resourceid: Mapped[int] = mapped_column(
        c.mediumint(8),
        c.references("resource.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )
    resourcegroupid: Mapped[int] = mapped_column(
        c.smallint(5),
        c.references("resourcegroup.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )


class ResourceMap(c.Base):
    __tablename__ = "resourcemap"
    __table_args__ = (
        c.key("resourcegroupid2", "resourcegroupid2"),
        c.key("resourcetypeid1", "resourcetypeid1"),
        c.key("resourcetypeid2", "resourcetypeid2"),
    )
    resourcegroupid1: Mapped[int] = mapped_column(
        c.smallint(5),
        c.references("resourcegroup.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )
    resourcetypeid1: Mapped[int] = mapped_column(
        c.tinyint(3),
        c.references("resourcetype.id", on_update="CASCADE"),
        server_default=text("13"),
    )
    resourcegroupid2: Mapped[int] = mapped_column(
        c.smallint(5),
        c.references("resourcegroup.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )
    resourcetypeid2: Mapped[int] = mapped_column(
        c.tinyint(3),
        c.references("resourcetype.id", on_update="CASCADE"),
        server_default=text("12"),
    )


class CryptKey(c.Base):
    __tablename__ = "cryptkey"
    __table_args__ = (c.unique_key("hostid", "hostid", "hosttype"),)
    id: Mapped[int] = mapped_column(c.smallint(6), primary_key=True)
    hostid: Mapped[int] = mapped_column(c.smallint(6))
    hosttype: Mapped[str] = mapped_column(
        c.enum("managementnode", "web"), server_default=text("'managementnode'")
    )
    pubkey: Mapped[str] = mapped_column(c.varchar(1000))
    algorithm: Mapped[str] = mapped_column(c.varchar(80))
    algorithmoption: Mapped[str] = mapped_column(c.varchar(255))
    keylength: Mapped[int] = mapped_column(c.smallint(5))


class CryptSecret(c.Base):
    __tablename__ = "cryptsecret"
    __table_args__ = (
        c.unique_key("cryptkeyid", "cryptkeyid", "secretid"),
        c.key("secretid", "secretid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    cryptkeyid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("cryptkey.id", on_delete="CASCADE")
    )
    secretid: Mapped[int] = mapped_column(c.smallint(5))
    cryptsecret: Mapped[str] = mapped_column(c.varchar(1000))
    algorithm: Mapped[str] = mapped_column(c.varchar(80))
    algorithmoption: Mapped[str] = mapped_column(c.varchar(255))
    keylength: Mapped[int] = mapped_column(c.smallint(5))
