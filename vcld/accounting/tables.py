"""The accounting tables: names, columns, types and keys of OpenNebula 2.0, and nothing else.

They are no tables of VCL, so they have a metadata of their own, and may live in another schema
of the same server: a transaction there spans both.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column

from vcld.accounting.codes import LAST_SECOND
from vcld.schema.columns import integer

#: What MySQL needs to keep any name as it is, and to tell two names apart as we do.
_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
HISTORY_TIMES = (
    "stime", "etime", "pstime", "petime", "rstime", "retime", "estime", "eetime",
)  # fmt: skip
#: The order in which the times of a stay come (accounting specification, rule 3).
ORDER_OF_TIMES = (
    "stime", "pstime", "petime", "rstime", "retime", "estime", "eetime", "etime",
)  # fmt: skip
SHARES = (
    "disk_usage", "mem_usage", "cpu_usage", "max_disk", "max_mem", "max_cpu", "free_disk",
    "free_mem", "free_cpu", "used_disk", "used_mem", "used_cpu", "running_vms",
)  # fmt: skip


class Tables:
    """The five tables, in the VCL database or in ``schema`` beside it."""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema
        self.metadata = metadata = sa.MetaData(schema=schema)
        self.history = sa.Table(
            "history",
            metadata,
            _key("vid"),
            _key("seq"),
            *_texts("host_name", "vm_dir"),
            _int("hid"),
            *_texts("vm_mad", "tm_mad"),
            *map(_int, HISTORY_TIMES),
            _int("reason"),
            **_OPTIONS,
        )
        self.host_pool = sa.Table(
            "host_pool",
            metadata,
            _key("oid"),
            _name("host_name", 256),
            _int("state"),
            _name("im_mad"),
            _name("vm_mad"),
            _name("tm_mad"),
            _int("last_mon_time"),
            _name("cluster"),
            *_texts("template"),
            sa.UniqueConstraint("host_name", name="host_name"),
            **_OPTIONS,
        )
        self.host_shares = sa.Table(
            "host_shares", metadata, _key("hid"), *map(_int, SHARES), **_OPTIONS
        )
        self.vm_pool = sa.Table(
            "vm_pool",
            metadata,
            _key("oid"),
            _int("uid"),
            *_texts("name"),
            *map(_int, ("last_poll", "state", "lcm_state", "stime", "etime")),
            *_texts("deploy_id"),
            *map(_int, ("memory", "cpu", "net_tx", "net_rx", "last_seq")),
            *_texts("template"),
            **_OPTIONS,
        )
        self.user_pool = sa.Table(
            "user_pool",
            metadata,
            _key("oid"),
            _name("user_name", 256),
            *_texts("password"),
            _int("enabled"),
            **_OPTIONS,
        )

    @property
    def all(self) -> tuple[sa.Table, ...]:
        return (self.history, self.host_pool, self.host_shares, self.vm_pool, self.user_pool)


@functools.cache
def tables_in(schema: str) -> Tables:
    """The tables in a schema; an empty name means the VCL database itself."""
    return Tables(schema or None)


def _key(name: str) -> Column[int]:
    return Column(name, integer(11, signed=True), primary_key=True, autoincrement=False)


def _int(name: str) -> Column[int]:
    return Column(name, integer(11, signed=True), nullable=False, server_default=sa.text("0"))


def _texts(*names: str) -> tuple[Column[str], ...]:
    return tuple(Column(name, sa.Text(), nullable=False) for name in names)


def _name(name: str, length: int = 128) -> Column[str]:
    return Column(name, sa.String(length), nullable=False, server_default="")


def fitting(number: float) -> int:
    """The number, or the largest one that an int(11) holds."""
    return int(min(max(number, 0), LAST_SECOND))
