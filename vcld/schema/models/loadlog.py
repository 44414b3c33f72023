"""The load log: what happens to a reservation, step by step."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from vcld.schema import columns as c


class ComputerLoadLog(c.Base):
    __tablename__ = "computerloadlog"
    __table_args__ = (
        c.key("computerid", "computerid"),
        c.key("loadstateid", "loadstateid"),
        c.key("reservationid", "reservationid"),
    )
    id: Mapped[int] = mapped_column(c.integer(10), primary_key=True)
    reservationid: Mapped[int] = mapped_column(
        c.mediumint(8), c.references("reservation.id", on_delete="CASCADE")
    )
    computerid: Mapped[int] = mapped_column(c.smallint(8), c.references("computer.id"))
    loadstateid: Mapped[int] = mapped_column(
        c.smallint(8), c.references("computerloadstate.id", on_update="CASCADE")
    )
    timestamp: Mapped[datetime | None] = mapped_column(c.datetime_(), nullable=True)
    additionalinfo: Mapped[str | None] = mapped_column(c.text())


class ComputerLoadState(c.Base):
    __tablename__ = "computerloadstate"
    __table_args__ = (c.unique_key("loadstatename", "loadstatename"),)
    id: Mapped[int] = mapped_column(c.smallint(8), primary_key=True)
    loadstatename: Mapped[str] = mapped_column(c.varchar(24))
    prettyname: Mapped[str | None] = mapped_column(c.varchar(50))
    est: Mapped[int | None] = mapped_column(c.tinyint(2))


class ComputerLoadFlow(c.Base):
    __tablename__ = "computerloadflow"
    __table_args__ = (
        c.key("computerloadstateid", "computerloadstateid"),
        c.key("nextstateid", "nextstateid"),
        c.key("type", "type"),
    )
    __mapper_args__ = {"primary_key": ["computerloadstateid", "nextstateid", "type"]}
    computerloadstateid: Mapped[int] = mapped_column(
        c.smallint(8), c.references("computerloadstate.id", on_update="CASCADE")
    )
    nextstateid: Mapped[int | None] = mapped_column(
        c.smallint(8), c.references("computerloadstate.id", on_update="CASCADE")
    )
    type: Mapped[str | None] = mapped_column(c.enum("blade", "lab", "virtualmachine"))
