"""Images, their revisions and operating systems."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class Image(c.Base):
    __tablename__ = "image"
    __table_args__ = (
        c.key("basedoffrevisionid", "basedoffrevisionid"),
        c.key("imagemetaid", "imagemetaid"),
        c.key("imagetypeid", "imagetypeid"),
        c.unique_key("name", "name"),
        c.key("OSid", "OSid"),
        c.key("ownerid", "ownerid"),
        c.key("platformid", "platformid"),
        c.unique_key("prettyname", "prettyname"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(70), server_default=text("''"))
    prettyname: Mapped[str] = mapped_column(c.varchar(80), server_default=text("''"))
    ownerid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE"), server_default=text("1")
    )
    imagetypeid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("imagetype.id", on_update="CASCADE"), server_default=text("1")
    )
    platformid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("platform.id", on_update="CASCADE"), server_default=text("1")
    )
    OSid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("OS.id", on_update="CASCADE"), server_default=text("0")
    )
    imagemetaid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("imagemeta.id", on_update="CASCADE", on_delete="SET NULL")
    )
    minram: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("0"))
    minprocnumber: Mapped[int] = mapped_column(c.tinyint(3), server_default=text("0"))
    minprocspeed: Mapped[int] = mapped_column(c.smallint(5), server_default=text("0"))
    minnetwork: Mapped[int] = mapped_column(c.smallint(3), server_default=text("0"))
    maxconcurrent: Mapped[int | None] = mapped_column(c.tinyint(3))
    reloadtime: Mapped[int] = mapped_column(c.tinyint(3), server_default=text("10"))
    deleted: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    test: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    lastupdate: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    forcheckout: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    maxinitialtime: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("0"))
    project: Mapped[str] = mapped_column(
        c.enum("vcl", "hpc", "vclhpc"), server_default=text("'vcl'")
    )
    size: Mapped[int] = mapped_column(c.smallint(5), server_default=text("0"))
    architecture: Mapped[str] = mapped_column(c.enum("x86", "x86_64"), server_default=text("'x86'"))
    description: Mapped[str | None] = mapped_column(c.text())
    usage: Mapped[str | None] = mapped_column(c.text())
    basedoffrevisionid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("imagerevision.id", on_update="CASCADE")
    )


class ImageRevision(c.Base):
    __tablename__ = "imagerevision"
    __table_args__ = (
        c.unique_key("imageid", "imageid", "revision"),
        c.unique_key("production", "production", "imagename"),
        c.key("userid", "userid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    imageid: Mapped[int] = mapped_column(c.smallint(5), c.references("image.id"))
    revision: Mapped[int] = mapped_column(c.smallint(5))
    userid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE")
    )
    datecreated: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
    deleted: Mapped[int] = mapped_column(c.tinyint(1))
    datedeleted: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    production: Mapped[int] = mapped_column(c.tinyint(1))
    comments: Mapped[str | None] = mapped_column(c.text())
    imagename: Mapped[str] = mapped_column(c.varchar(75))
    autocaptured: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))


class ImageMeta(c.Base):
    __tablename__ = "imagemeta"
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    checkuser: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    subimages: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    sysprep: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    postoption: Mapped[str | None] = mapped_column(c.varchar(32))
    architecture: Mapped[str | None] = mapped_column(c.varchar(10))
    rootaccess: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    sethostname: Mapped[int | None] = mapped_column(c.tinyint(1))


class ImageType(c.Base):
    __tablename__ = "imagetype"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(16))


class OS(c.Base):
    __tablename__ = "OS"
    __table_args__ = (
        c.key("installtype", "installtype"),
        c.key("moduleid", "moduleid"),
        c.unique_key("name", "name"),
        c.unique_key("prettyname", "prettyname"),
        c.key("type", "type"),
    )
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(20))
    prettyname: Mapped[str] = mapped_column(c.varchar(64), server_default=text("''"))
    type: Mapped[str] = mapped_column(
        c.varchar(30), c.references("OStype.name", on_update="CASCADE")
    )
    installtype: Mapped[str] = mapped_column(
        c.varchar(30),
        c.references("OSinstalltype.name", on_update="CASCADE"),
        server_default=text("'image'"),
    )
    minram: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("512"))
    sourcepath: Mapped[str | None] = mapped_column(c.varchar(30))
    moduleid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("module.id", on_update="CASCADE")
    )


class OSType(c.Base):
    __tablename__ = "OStype"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(30))


class OSInstallType(c.Base):
    __tablename__ = "OSinstalltype"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(30))


class ConnectMethod(c.Base):
    __tablename__ = "connectmethod"
    __table_args__ = (c.unique_key("name", "name", "description"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(80))
    description: Mapped[str] = mapped_column(c.varchar(255))
    connecttext: Mapped[str] = mapped_column(c.text())
    servicename: Mapped[str] = mapped_column(c.varchar(32))
    startupscript: Mapped[str | None] = mapped_column(c.varchar(256))


class ConnectMethodPort(c.Base):
    __tablename__ = "connectmethodport"
    __table_args__ = (
        c.key("connectmethodid", "connectmethodid"),
        c.unique_key("connectmethodid_port_protocol", "connectmethodid", "port", "protocol"),
    )
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    connectmethodid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("connectmethod.id", on_update="CASCADE", on_delete="CASCADE")
    )
    port: Mapped[int] = mapped_column(c.mediumint(8))
    protocol: Mapped[str] = mapped_column(c.enum("TCP", "UDP"), server_default=text("'TCP'"))


class ConnectMethodMap(c.Base):
    __tablename__ = "connectmethodmap"
    __table_args__ = (
        c.key("connectmethodid", "connectmethodid"),
        c.key("imagerevisionid", "imagerevisionid"),
        c.key("OSid", "OSid"),
        c.key("OStypeid", "OStypeid"),
    )
    __mapper_args__ = {
        "primary_key": [
            "connectmethodid",
            "OStypeid",
            "OSid",
            "imagerevisionid",
            "disabled",
            "autoprovisioned",
        ]
    }
    connectmethodid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("connectmethod.id", on_update="CASCADE", on_delete="CASCADE")
    )
    OStypeid: Mapped[int | None] = mapped_column(
        c.tinyint(3), c.references("OStype.id", on_update="CASCADE")
    )
    OSid: Mapped[int | None] = mapped_column(
        c.tinyint(3), c.references("OS.id", on_update="CASCADE")
    )
    imagerevisionid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("imagerevision.id", on_update="CASCADE")
    )
    disabled: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    autoprovisioned: Mapped[int | None] = mapped_column(c.tinyint(1))
