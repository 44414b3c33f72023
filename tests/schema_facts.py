"""What a server says of a database's tables, in the form of the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.mariadb import Server

Facts = dict[str, Any]


def read_schema(server: Server, database: str) -> Facts:
    """Read the tables, columns, keys and foreign keys from information_schema."""
    schema = f"'{server.prefix}{database}'"
    tables: Facts = {}
    for (name,) in server.query(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {schema}"
    ):
        tables[str(name)] = {"columns": [], "keys": {}, "foreign_keys": []}
    _read_columns(server, schema, tables)
    _read_keys(server, schema, tables)
    _read_foreign_keys(server, schema, tables)
    return tables


def engines(server: Server, database: str) -> set[object]:
    """Storage engines of the tables."""
    rows = server.query(
        "SELECT DISTINCT engine FROM information_schema.tables"
        f" WHERE table_schema = '{server.prefix}{database}'"
    )
    return {row[0] for row in rows}


def _read_columns(server: Server, schema: str, tables: Facts) -> None:
    rows = server.query(
        "SELECT table_name, column_name, column_type, is_nullable, column_default, extra"
        f" FROM information_schema.columns WHERE table_schema = {schema}"
        " ORDER BY table_name, ordinal_position"
    )
    for table, column, kind, nullable, default, extra in rows:
        tables[str(table)]["columns"].append(
            {
                "name": column,
                "type": kind,
                "nullable": nullable == "YES",
                "default": default,
                "extra": extra,
            }
        )


def _read_keys(server: Server, schema: str, tables: Facts) -> None:
    rows = server.query(
        "SELECT table_name, index_name, non_unique, column_name FROM"
        f" information_schema.statistics WHERE table_schema = {schema}"
        " ORDER BY table_name, index_name, seq_in_index"
    )
    for table, index, non_unique, column in rows:
        keys = tables[str(table)]["keys"]
        key = keys.setdefault(index, {"unique": not non_unique, "columns": []})
        key["columns"].append(column)


def _read_foreign_keys(server: Server, schema: str, tables: Facts) -> None:
    rows = server.query(
        "SELECT k.table_name, k.column_name, k.referenced_table_name, k.referenced_column_name,"
        " r.update_rule, r.delete_rule FROM information_schema.key_column_usage k"
        " JOIN information_schema.referential_constraints r"
        " ON r.constraint_schema = k.constraint_schema AND r.table_name = k.table_name"
        " AND r.constraint_name = k.constraint_name"
        f" WHERE k.constraint_schema = {schema} ORDER BY k.table_name, k.column_name"
    )
    for table, column, target, target_column, on_update, on_delete in rows:
        tables[str(table)]["foreign_keys"].append(
            {
                "column": column,
                "references": f"{target}.{target_column}",
                # Two words for one rule.
                "on_update": str(on_update).replace("NO ACTION", "RESTRICT"),
                "on_delete": str(on_delete).replace("NO ACTION", "RESTRICT"),
            }
        )


def comparable(tables: Mapping[str, Any], server: Server) -> Facts:
    """The facts as far as the server tells them; foreign keys in one order."""
    is_mariadb = "MariaDB" in str(server.query("SELECT VERSION()")[0][0])
    return {
        name: {
            "columns": facts["columns"] if is_mariadb else list(map(_as_mysql, facts["columns"])),
            "keys": facts["keys"],
            "foreign_keys": sorted(facts["foreign_keys"], key=lambda key: key["column"]),
        }
        for name, facts in tables.items()
    }


def _as_mysql(column: Mapping[str, Any]) -> Facts:
    """A column as MySQL tells it: without widths of numbers, quotes and DEFAULT NULL."""
    default = column["default"]
    if default is not None:
        default = None if default == "NULL" else default.strip("'").upper().replace("()", "")
    extra = column["extra"].replace("DEFAULT_GENERATED", "").replace("()", "")
    return {
        **column,
        "type": re.sub(r"^(\w*int)\(\d+\)", r"\1", column["type"]),
        "default": default,
        "extra": extra.strip().lower(),
    }
