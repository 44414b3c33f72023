"""Checking the site's messages after somebody edited them (specification §11.4).

The web site sets a variable; the first daemon that takes it checks all messages and writes
what it does not understand into each, under ``invalidfields``.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
import yaml
from sqlalchemy.engine import Connection

from vcld.messages.render import unknown_identifiers
from vcld.schema.models import Variable
from vcld.schema.sqltime import site_now

FLAG = "usermessage_needs_validating"
_PARTS = ("subject", "message", "short_message")


def validate_messages(connection: Connection, node: str) -> int | None:
    """Check every message once after a change.

    Returns:
        The number of messages rewritten; None when there was nothing to do or another
        management node does it.
    """
    flag = connection.execute(
        sa.select(Variable.id, Variable.timestamp, Variable.value).where(Variable.name == FLAG)
    ).one_or_none()
    if flag is None or flag.value not in {"1", node}:
        return None
    claimed = connection.execute(
        sa.update(Variable)
        .where(
            Variable.id == flag.id,
            Variable.timestamp == flag.timestamp,
            Variable.value.in_(("1", node)),
        )
        .values(value=node)
    )
    if claimed.rowcount != 1:
        return None
    rewritten = 0
    messages = connection.execute(
        sa.select(Variable.id, Variable.value).where(
            sa.or_(Variable.name.like("adminmessage|%"), Variable.name.like("usermessage|%"))
        )
    ).all()
    for id_, text in messages:
        checked = check(text)
        if checked is not None:
            connection.execute(
                sa.update(Variable)
                .where(Variable.id == id_)
                .values(value=checked, timestamp=site_now(), setby=f"{node}:vcld")
            )
            rewritten += 1
    connection.execute(sa.delete(Variable).where(Variable.id == flag.id, Variable.value == node))
    return rewritten


def check(text: str) -> str | None:
    """The message with ``invalidfields`` brought up to date; None when it is right already."""
    try:
        value: Any = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return None
    if not isinstance(value, dict):
        return None
    invalid = {
        part: sorted(unknown)
        for part in _PARTS
        if (unknown := unknown_identifiers(str(value.get(part) or "")))
    }
    found = {part: ",".join(f"[{name}]" for name in names) for part, names in invalid.items()}
    if value.get("invalidfields", {}) == found:
        return None
    value.pop("invalidfields", None)
    if found:
        value["invalidfields"] = found
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
