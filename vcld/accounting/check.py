"""The consistency check: every rule, and the rows that break it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from vcld.accounting.repair import REPAIRS
from vcld.accounting.rule import Rule
from vcld.accounting.rules import RULES
from vcld.accounting.tables import Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One row that breaks a rule."""

    rule: str
    table: str
    #: The row's key, such as ``vid=5 seq=1``.
    row: str
    text: str
    #: True when there is one right answer.
    repairable: bool

    def __str__(self) -> str:
        hint = " (--repair mends it)" if self.repairable else ""
        return f"{self.rule}: {self.table} {self.row}: {self.text}{hint}"


def find_breaches(connection: Connection, tables: Tables) -> Iterator[Breach]:
    """Apply every rule; they read what they need in one pass each."""
    for rule in RULES:
        for row in connection.execute(rule.query(tables)):
            yield _breach(tables, rule, row._mapping)


def repair(connection: Connection, tables: Tables) -> list[Breach]:
    """Mend what has one right answer, rule by rule; return what was broken and is mended."""
    mended = []
    for rule in RULES:
        mend = REPAIRS.get(rule.name)
        if mend is None:
            continue
        rows = [row._mapping for row in connection.execute(rule.query(tables))]
        for row in rows:
            if mend(connection, tables, row):
                mended.append(_breach(tables, rule, row))
    return mended


def _breach(tables: Tables, rule: Rule, row: Any) -> Breach:
    table = tables.metadata.tables[_full_name(tables, rule.table)]
    key = " ".join(f"{column.name}={row[column.name]}" for column in table.primary_key)
    return Breach(
        rule=rule.name,
        table=rule.table,
        row=key,
        text=rule.text.format_map(row),
        repairable=rule.name in REPAIRS,
    )


def _full_name(tables: Tables, name: str) -> str:
    return f"{tables.schema}.{name}" if tables.schema else name
