"""Block allocations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class BlockRequest(c.Base):
    __tablename__ = "blockRequest"
    __table_args__ = (
        c.key("groupid", "groupid"),
        c.key("imageid", "imageid"),
        c.key("managementnodeid", "managementnodeid"),
        c.key("ownerid", "ownerid"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    name: Mapped[str] = mapped_column(c.varchar(80))
    imageid: Mapped[int] = mapped_column(c.smallint(5), c.references("image.id"))
    numMachines: Mapped[int] = mapped_column(c.tinyint(3))
    groupid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("usergroup.id", on_update="CASCADE", on_delete="SET NULL")
    )
    repeating: Mapped[str] = mapped_column(
        c.enum("weekly", "monthly", "list"), server_default=text("'weekly'")
    )
    ownerid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("user.id", on_update="CASCADE")
    )
    managementnodeid: Mapped[int | None] = mapped_column(
        c.smallint(5), c.references("managementnode.id")
    )
    expireTime: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
    processing: Mapped[int] = mapped_column(c.tinyint(1))
    status: Mapped[str] = mapped_column(
        c.enum("requested", "accepted", "completed", "rejected", "deleted"),
        server_default=text("'accepted'"),
    )
    comments: Mapped[str | None] = mapped_column(c.text())


class BlockTime(c.Base):
    __tablename__ = "blockTimes"
    __table_args__ = (
        c.key("blockRequestid", "blockRequestid"),
        c.key("end", "end"),
        c.key("start", "start"),
    )
    id: Mapped[int] = mapped_column(c.mediumint(8), primary_key=True)
    blockRequestid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("blockRequest.id", on_update="CASCADE", on_delete="CASCADE")
    )
    start: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
    end: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=False)
    processed: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))
    skip: Mapped[int] = mapped_column(c.tinyint(1), server_default=text("0"))


class BlockComputer(c.Base):
    __tablename__ = "blockComputers"
    __table_args__ = (
        c.key("computerid", "computerid"),
        c.key("imageid", "imageid"),
    )
    blockTimeid: Mapped[int] = mapped_column(
        c.mediumint(8),
        c.references("blockTimes.id", on_update="CASCADE", on_delete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )
    computerid: Mapped[int] = mapped_column(
        c.smallint(5),
        c.references("computer.id"),
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    )
    imageid: Mapped[int] = mapped_column(
        c.smallint(5), c.references("image.id"), server_default=text("0")
    )
    reloadrequestid: Mapped[int] = mapped_column(c.mediumint(8), server_default=text("0"))
