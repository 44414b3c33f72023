"""Checking the site's messages for identifiers that do not exist (specification §11.4).

The web site asks for it by a variable, and shows what is recorded in the messages.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from vcld.messages.identifiers import is_known
from vcld.messages.render import find_identifiers
from vcld.schema.models import Variable
from vcld.schema.sqltime import after_site_now, site_now
from vcld.site_yaml import dump_fields, parse_fields

FLAG = "usermessage_needs_validating"
#: The web site raises the flag a moment before it saves the message that is to be checked.
SETTLE_SECONDS = 2
_CHECKED = ("subject", "message", "short_message")
_RESULT = "invalidfields"


def validate_messages(connection: Connection, node_shortname: str) -> int | None:
    """Check all messages if the web site asked for it and no other node does it.

    Runs in one transaction with the claim, so a daemon that dies leaves the flag as it was.

    Returns:
        How many messages hold unknown identifiers; None when there was nothing to do.
    """
    if not _claim(connection, node_shortname):
        return None
    log = structlog.get_logger()
    faulty = 0
    rows = connection.execute(
        sa.select(Variable.id, Variable.name, Variable.value).where(
            sa.or_(Variable.name.like("usermessage|%"), Variable.name.like("adminmessage|%"))
        )
    ).all()
    for row in rows:
        try:
            fields = parse_fields(row.value)
        except ValueError as err:
            log.warning("the site's message cannot be used", variable=row.name, reason=str(err))
            continue
        unknown = find_unknown(fields)
        if unknown:
            faulty += 1
            log.warning("message holds unknown identifiers", variable=row.name, names=unknown)
        if unknown != fields.get(_RESULT, {}):
            _record(connection, row.id, row.value, _with_result(fields, unknown), node_shortname)
    connection.execute(
        sa.delete(Variable).where(Variable.name == FLAG, Variable.value == node_shortname)
    )
    log.info("messages checked", messages=len(rows), faulty=faulty)
    return faulty


def find_unknown(fields: dict[str, Any]) -> dict[str, list[str]]:
    """The identifiers of a message that do not exist, by the part they are in."""
    found = {
        part: [name for name in find_identifiers(fields[part]) if not is_known(name)]
        for part in _CHECKED
        if isinstance(fields.get(part), str)
    }
    return {part: names for part, names in found.items() if names}


def _claim(connection: Connection, node_shortname: str) -> bool:
    settled = sa.or_(
        Variable.timestamp <= after_site_now(-SETTLE_SECONDS),
        # Written by a session in another time zone: its age cannot be told.
        Variable.timestamp > after_site_now(SETTLE_SECONDS),
    )
    claimed = connection.execute(
        sa.update(Variable)
        .where(Variable.name == FLAG, Variable.value.in_(["1", node_shortname]), settled)
        .values(value=node_shortname)
    )
    return claimed.rowcount == 1


def _with_result(fields: dict[str, Any], unknown: dict[str, list[str]]) -> dict[str, Any]:
    kept = {key: value for key, value in fields.items() if key != _RESULT}
    return kept | ({_RESULT: unknown} if unknown else {})


def _record(
    connection: Connection, id_: int, old: str, fields: dict[str, Any], node_shortname: str
) -> None:
    """Write a message back, unless somebody saved it in the meantime."""
    connection.execute(
        sa.update(Variable)
        .where(Variable.id == id_, Variable.value == old)
        .values(
            value=dump_fields(fields),
            serialization="yaml",
            # The web site shows only what was not set by itself.
            setby=f"{node_shortname}:vcld",
            timestamp=site_now(),
        )
    )
