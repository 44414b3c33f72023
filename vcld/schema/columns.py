"""Column types and keys of the VCL schema, spelled as MySQL and MariaDB report them.

Every type has an SQLite variant, so that the same models serve the embedded database
of the demonstration. This module knows no table.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine


class Base(DeclarativeBase):
    """Root of all mapped tables: those of VCL and our own ``vcld_`` ones."""


class SiteTime(TypeDecorator[dt.datetime]):
    """A ``datetime`` in the database session's time zone, to the second.

    VCL stores local times without a zone. They are compared with the database's own clock
    only, so the value stays naive. The zero date, which Perl and PHP write for "never",
    reads as None.
    """

    impl = sa.DateTime
    cache_ok = True

    def __init__(self, mysql_type: type[TypeEngine[Any]] = mysql.DATETIME) -> None:
        super().__init__()
        self.mysql_type = mysql_type

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.String(19))
        return dialect.type_descriptor(self.mysql_type())

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        value = value.replace(microsecond=0, tzinfo=None)
        return value.isoformat(" ") if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        if isinstance(value, bytes):
            value = value.decode("ascii")
        if isinstance(value, str):
            if value.startswith("0000-00-00"):
                return None
            return dt.datetime.fromisoformat(value)
        return value  # type: ignore[no-any-return]


def _integer(mysql_type: TypeEngine[int]) -> TypeEngine[int]:
    # SQLite numbers rows by itself only in columns declared exactly INTEGER.
    return sa.Integer().with_variant(mysql_type, "mysql", "mariadb")


def tinyint(width: int, *, signed: bool = False) -> TypeEngine[int]:
    return _integer(mysql.TINYINT(width, unsigned=not signed))


def smallint(width: int, *, signed: bool = False) -> TypeEngine[int]:
    return _integer(mysql.SMALLINT(width, unsigned=not signed))


def mediumint(width: int, *, signed: bool = False) -> TypeEngine[int]:
    return _integer(mysql.MEDIUMINT(width, unsigned=not signed))


def integer(width: int, *, signed: bool = False) -> TypeEngine[int]:
    return _integer(mysql.INTEGER(width, unsigned=not signed))


def varchar(length: int) -> TypeEngine[str]:
    return sa.String(length)


def enum(*values: str) -> TypeEngine[str]:
    return sa.String(max(map(len, values))).with_variant(mysql.ENUM(*values), "mysql", "mariadb")


def text() -> TypeEngine[str]:
    return sa.Text()


def mediumtext() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def longtext() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def blob() -> TypeEngine[bytes]:
    return sa.LargeBinary()


def date_() -> TypeEngine[dt.date]:
    return sa.Date()


def datetime_() -> SiteTime:
    return SiteTime()


def timestamp() -> SiteTime:
    return SiteTime(mysql.TIMESTAMP)


def key(name: str, *columns: str) -> sa.Index:
    """A plain index."""
    return sa.Index(name, *columns)


def unique_key(name: str, *columns: str) -> sa.UniqueConstraint:
    """An index that allows no two equal rows."""
    return sa.UniqueConstraint(*columns, name=name)


def references(
    target: str, *, on_update: str | None = None, on_delete: str | None = None
) -> sa.ForeignKey:
    """A foreign key to ``table.column``. None is what MySQL calls RESTRICT."""
    return sa.ForeignKey(target, onupdate=on_update, ondelete=on_delete)
