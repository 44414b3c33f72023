"""Users, groups and affiliations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class User(c.Base):
    __tablename__ = "user"
    __table_args__ = (
        c.key("affiliationid", "affiliationid"),
        c.key("IMtypeid", "IMtypeid"),
        c.unique_key("uid", "uid"),
        c.unique_key("unityid", "unityid", "affiliationid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    uid: Mapped[int | None] = mapped_column(c.integer(10))
    unityid: Mapped[str] = mapped_column(c.varchar(80), server_default=text("''"))
    affiliationid: Mapped[int] = mapped_column(
        c.mediumint(8),
        c.references("affiliation.id", on_update="CASCADE"),
        server_default=text("1"),
    )
    firstname: Mapped[str] = mapped_column(c.varchar(20), server_default=text("''"))
    lastname: Mapped[str] = mapped_column(c.varchar(25), server_default=text("''"))
    preferredname: Mapped[str | None] = mapped_column(c.varchar(25))
    email: Mapped[str] = mapped_column(c.varchar(80))
    emailnotices: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    IMtypeid: Mapped[int | None] = mapped_column(
        c.tinyint(3), c.references("IMtype.id", on_update="CASCADE", on_delete="SET NULL")
    )
    IMid: Mapped[str | None] = mapped_column(c.varchar(80))
    adminlevelid: Mapped[int] = mapped_column(c.tinyint(3), server_default=text("1"))
    width: Mapped[int] = mapped_column(c.smallint(4), server_default=text("1024"))
    height: Mapped[int] = mapped_column(c.smallint(4), server_default=text("768"))
    bpp: Mapped[int] = mapped_column(c.tinyint(2), server_default=text("16"))
    audiomode: Mapped[str] = mapped_column(c.enum("none", "local"), server_default=text("'local'"))
    mapdrives: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    mapprinters: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    mapserial: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    rdpport: Mapped[int | None] = mapped_column(c.smallint(5))
    showallgroups: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    lastupdated: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    validated: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))
    usepublickeys: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    sshpublickeys: Mapped[str | None] = mapped_column(c.text())


class Affiliation(c.Base):
    __tablename__ = "affiliation"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(40))
    shibname: Mapped[str | None] = mapped_column(c.varchar(60))
    dataUpdateText: Mapped[str] = mapped_column(c.text())
    sitewwwaddress: Mapped[str | None] = mapped_column(c.varchar(128))
    helpaddress: Mapped[str | None] = mapped_column(c.varchar(32))
    shibonly: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    theme: Mapped[str | None] = mapped_column(c.varchar(50))


class UserGroup(c.Base):
    __tablename__ = "usergroup"
    __table_args__ = (
        c.key("affiliationid", "affiliationid"),
        c.key("editusergroupid", "editusergroupid"),
        c.unique_key("name", "name", "affiliationid"),
        c.key("ownerid", "ownerid"),
    )
    id: Mapped[int] = mapped_column(c.smallint(5), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(60))
    affiliationid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("affiliation.id", on_update="CASCADE")
    )
    ownerid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE")
    )
    editusergroupid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("usergroup.id", on_update="CASCADE", on_delete="SET NULL")
    )
    custom: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    courseroll: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    initialmaxtime: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("240"))
    totalmaxtime: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("360"))
    maxextendtime: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("60"))
    overlapResCount: Mapped[int] = mapped_column(c.smallint(5), server_default=text("0"))


class UserGroupMember(c.Base):
    __tablename__ = "usergroupmembers"
    __table_args__ = (c.key("usergroupid", "usergroupid"),)
    userid: Mapped[int] = mapped_column(
        c.mediumint(8),
        c.references("user.id", on_update="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )
    usergroupid: Mapped[int] = mapped_column(
        c.smallint(5),
        c.references("usergroup.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )


class IMType(c.Base):
    __tablename__ = "IMtype"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(20), server_default=text("''"))


class AdminLevel(c.Base):
    __tablename__ = "adminlevel"
    __table_args__ = (c.unique_key("name", "name"),)
    id: Mapped[int] = mapped_column(c.tinyint(3), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(10), server_default=text("''"))
