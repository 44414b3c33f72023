"""Texts from outside, for columns that may hold fewer characters than there are.

VCL's own schema is latin1; what a hypervisor or a guest says of an error is not. In strict SQL
mode such a text is refused, and with it whatever else the statement was to write.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.exc import DataError

from vcld.schema.engine import error_code

#: "Incorrect string value": the column's character set has no such character.
NO_SUCH_CHARACTER = 1366


def execute(
    connection: Connection, statement: sa.Executable, facts: Mapping[str, Any]
) -> CursorResult[Any]:
    """Execute a statement; in plain letters when a column cannot hold others."""
    try:
        return connection.execute(statement, facts)
    except DataError as err:  # undoes the one statement, not the transaction
        if error_code(err) != NO_SUCH_CHARACTER:
            raise
        plain = {name: plain_text(v) if isinstance(v, str) else v for name, v in facts.items()}
        return connection.execute(statement, plain)


def plain_text(text: str) -> str:
    """The text in ASCII: letters without their accents, anything else as a question mark."""
    letters = unicodedata.normalize("NFKD", text)
    bare = "".join(c for c in letters if not unicodedata.combining(c))
    return bare.encode("ascii", "replace").decode("ascii")
