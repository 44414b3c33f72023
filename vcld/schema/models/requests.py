"""Requests, their reservations and what people are told about them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class Request(c.Base):
    __tablename__ = "request"
    __table_args__ = (
        c.key("end", "end"),
        c.key("laststateid", "laststateid"),
        c.key("logid", "logid"),
        c.key("start", "start"),
        c.key("stateid", "stateid"),
        c.key("userid", "userid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    stateid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("state.id", on_update="CASCADE"), server_default=text("0")
    )
    userid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE"), server_default=text("0")
    )
    laststateid: Mapped[int] = mapped_column(
        c.tinyint(3), c.references("state.id", on_update="CASCADE"), server_default=text("0")
    )
    logid: Mapped[int | None] = mapped_column(
        c.integer(10), c.references("log.id", on_update="CASCADE")
    )
    forimaging: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    test: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    preload: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    start: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    end: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    daterequested: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    datemodified: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    checkuser: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("1"))


class Reservation(c.Base):
    __tablename__ = "reservation"
    __table_args__ = (
        c.key("computerid", "computerid"),
        c.key("imageid", "imageid"),
        c.key("imagerevisionid", "imagerevisionid"),
        c.key("managementnodeid", "managementnodeid"),
        c.key("requestid", "requestid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    requestid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("request.id", on_delete="CASCADE"), server_default=text("0")
    )
    computerid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("computer.id"), server_default=text("0")
    )
    imageid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("image.id"), server_default=text("0")
    )
    imagerevisionid: Mapped[int] = mapped_column(
        c.mediumint(8),
        c.references("imagerevision.id", on_update="CASCADE"),
        server_default=text("0"),
    )
    managementnodeid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("managementnode.id"), server_default=text("1")
    )
    remoteIP: Mapped[str | None] = mapped_column(c.varchar(15))
    lastcheck: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=True, server_default=text("'0000-00-00 00:00:00'")
    )
    pw: Mapped[str | None] = mapped_column(c.varchar(40))
    connectIP: Mapped[str | None] = mapped_column(c.varchar(15))
    connectport: Mapped[int | None] = mapped_column(c.smallint(5))


class ReservationAccount(c.Base):
    __tablename__ = "reservationaccounts"
    __table_args__ = (
        c.unique_key("reservationid", "reservationid", "userid"),
        c.key("userid", "userid"),
    )
    __mapper_args__ = {"primary_key": ["reservationid", "userid"]}
    reservationid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("reservation.id", on_delete="CASCADE")
    )
    userid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE")
    )
    password: Mapped[str | None] = mapped_column(c.varchar(50))


class ServerRequest(c.Base):
    __tablename__ = "serverrequest"
    __table_args__ = (
        c.key("admingroupid", "admingroupid"),
        c.key("logingroupid", "logingroupid"),
        c.unique_key("requestid", "requestid"),
        c.key("serverprofileid", "serverprofileid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(255))
    serverprofileid: Mapped[int] = mapped_column(c.smallint(5), server_default=text("0"))
    requestid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("request.id", on_delete="CASCADE")
    )
    fixedIP: Mapped[str | None] = mapped_column(c.varchar(15))
    fixedMAC: Mapped[str | None] = mapped_column(c.varchar(17))
    admingroupid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("usergroup.id", on_update="CASCADE")
    )
    logingroupid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("usergroup.id", on_update="CASCADE")
    )
    monitored: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))


class Log(c.Base):
    __tablename__ = "log"
    __table_args__ = (
        c.key("computerid", "computerid"),
        c.key("finalend", "finalend"),
        c.key("imageid", "imageid"),
        c.key("start", "start"),
        c.key("userid", "userid"),
        c.key("wasavailable", "wasavailable"),
    )
    id: Mapped[int] = mapped_column(c.integer(10), primary_key=True)
    userid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE"), server_default=text("0")
    )
    nowfuture: Mapped[str] = mapped_column(c.enum("now", "future"), server_default=text("'now'"))
    start: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    loaded: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    initialend: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    finalend: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    wasavailable: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    ending: Mapped[str] = mapped_column(
        c.enum(
            "deleted",
            "released",
            "failed",
            "failedtest",
            "noack",
            "nologin",
            "timeout",
            "EOR",
            "none",
        ),
        server_default=text("'none'"),
    )
    requestid: Mapped[int | None] = mapped_column(c.mediumint(8))
    computerid: Mapped[int | None] = mapped_column(c.smallint(5), c.references("computer.id"))
    remoteIP: Mapped[str | None] = mapped_column(c.varchar(15))
    imageid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("image.id"), server_default=text("0")
    )
    size: Mapped[int] = mapped_column(c.smallint(5), server_default=text("1450"))


class SubLog(c.Base):
    __tablename__ = "sublog"
    __table_args__ = (
        c.key("blockRequestid", "blockRequestid"),
        c.key("computerid", "computerid"),
        c.key("hostcomputerid", "hostcomputerid"),
        c.key("imageid", "imageid"),
        c.key("imagerevisionid", "imagerevisionid"),
        c.key("logid", "logid"),
        c.key("managementnodeid", "managementnodeid"),
        c.key("predictivemoduleid", "predictivemoduleid"),
    )
    id: Mapped[int] = mapped_column(c.integer(10), primary_key=True)
    logid: Mapped[int] = mapped_column(
        c.integer(10), c.references("log.id", on_update="CASCADE"), server_default=text("0")
    )
    imageid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("image.id"), server_default=text("0")
    )
    imagerevisionid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("imagerevision.id", on_update="CASCADE")
    )
    computerid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("computer.id"), server_default=text("0")
    )
    IPaddress: Mapped[str | None] = mapped_column(c.varchar(15))
    managementnodeid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("managementnode.id"), server_default=text("0")
    )
    predictivemoduleid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("module.id", on_update="CASCADE"), server_default=text("8")
    )
    hostcomputerid: Mapped[int | None] = mapped_column(c.smallint(5), c.references("computer.id"))
    blockRequestid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("blockRequest.id", on_update="CASCADE")
    )
    blockStart: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    blockEnd: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)


class ChangeLog(c.Base):
    __tablename__ = "changelog"
    __table_args__ = (
        c.key("computerid", "computerid"),
        c.key("logid", "logid"),
        c.key("reservationid", "reservationid"),
        c.unique_key("reservation_user_remoteIP", "userid", "reservationid", "remoteIP"),
        c.key("userid", "userid"),
    )
    id: Mapped[int] = mapped_column(c.integer(10), primary_key=True)
    logid: Mapped[int] = mapped_column(
        c.integer(10), c.references("log.id", on_update="CASCADE"), server_default=text("0")
    )
    userid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE")
    )
    reservationid: Mapped[int | None] = mapped_column(c.mediumint(8))
    start: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    end: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    computerid: Mapped[int | None] = mapped_column(c.smallint(5), c.references("computer.id"))
    remoteIP: Mapped[str | None] = mapped_column(c.varchar(15))
    wasavailable: Mapped[int | None] = mapped_column(c.tinyint(1))
    timestamp: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )
    other: Mapped[str | None] = mapped_column(c.varchar(255))


class ConnectLog(c.Base):
    __tablename__ = "connectlog"
    __table_args__ = (
        c.key("logid", "logid"),
        c.key("reservationid", "reservationid"),
        c.unique_key("reservationid_1", "reservationid", "userid", "remoteIP"),
        c.key("userid", "userid"),
    )
    id: Mapped[int] = mapped_column(c.integer(10), primary_key=True)
    logid: Mapped[int] = mapped_column(c.integer(10), c.references("log.id", on_update="CASCADE"))
    reservationid: Mapped[int] = mapped_column(c.mediumint(8))
    userid: Mapped[int | None] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE")
    )
    remoteIP: Mapped[str] = mapped_column(c.varchar(39))
    verified: Mapped[int] = mapped_column(c.tinyint(1, signed=True))
    timestamp: Mapped[datetime | None] = mapped_column(
        c.datetime_(), nullable=False, server_default=text("'0000-00-00 00:00:00'")
    )


class VcldSemaphore(c.Base):
    __tablename__ = "vcldsemaphore"
    __table_args__ = (c.key("reservationid", "reservationid"),)
    identifier: Mapped[str] = mapped_column(c.varchar(256), primary_key=True, autoincrement=False)
    reservationid: Mapped[int] = mapped_column(
        c.mediumint(9), c.references("reservation.id", on_update="CASCADE", on_delete="CASCADE")
    )
    pid: Mapped[int] = mapped_column(c.mediumint(8))
    expires: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
