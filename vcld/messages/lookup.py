"""Finding the text of a message: the affiliation's, the site's, else ours."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import sqlalchemy as sa
import structlog
import yaml
from sqlalchemy.engine import Connection

from vcld.messages.render import Template
from vcld.schema.models import Variable

#: The affiliation whose messages go to everybody without their own.
GLOBAL = "Global"


def find_user_message(
    source: Connection | Mapping[str, str], key: str, affiliation: str
) -> Template:
    """The text for a user of this affiliation (specification §11.3). One query.

    Args:
        source: The database, or the site's message variables by name.
        key: Such as ``reserved``.
        affiliation: Name of the user's affiliation.
    """
    names = [f"usermessage|{key}|{affiliation}", f"usermessage|{key}|{GLOBAL}"]
    return _first(source, names)


def find_admin_message(source: Connection | Mapping[str, str], key: str) -> Template:
    """The text for the administrators. One query."""
    return _first(source, [f"adminmessage|{key}"])


@functools.cache
def default_texts() -> dict[str, str]:
    """Our own texts as YAML, by the name of the variable that may replace them.

    They are also the rows of a new database.
    """
    return {
        name: yaml.safe_dump(fields, allow_unicode=True, sort_keys=False, explicit_start=True)
        for name, fields in _defaults().items()
    }


def parse_fields(text: str) -> dict[str, Any]:
    """Read the YAML of a message; every scalar is a string.

    Raises:
        ValueError: it is not a message; the text says why.
    """
    try:
        # BaseLoader makes strings, lists and dictionaries only: safer than SafeLoader.
        fields = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as err:
        mark = getattr(err, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        msg = f"it is not valid YAML{where}"
        raise ValueError(msg) from err
    if not isinstance(fields, dict) or not isinstance(fields.get("message"), str):
        msg = "it has no text under the key 'message'"
        raise ValueError(msg)
    return fields


def parse(name: str, text: str) -> Template:
    """Read a message.

    Raises:
        ValueError: it is not a message; the text says why.
    """
    fields = parse_fields(text)
    subject, short = fields.get("subject"), fields.get("short_message")
    return Template(
        name=name,
        subject=subject if isinstance(subject, str) else "",
        message=fields["message"],
        short_message=short if isinstance(short, str) and short.strip() else None,
    )


def _first(source: Connection | Mapping[str, str], names: list[str]) -> Template:
    """The first of the variables that exists; our own text if it cannot be read."""
    texts = source if isinstance(source, Mapping) else _read(source, names)
    folded = {name.casefold(): text for name, text in texts.items()}
    for name in names:
        text = folded.get(name.casefold())
        if text is None:
            continue
        try:
            return parse(name, text)
        except ValueError as err:
            structlog.get_logger().warning(
                "the site's message cannot be used, our own text is sent",
                variable=name,
                reason=str(err),
            )
            break
    return Template(name=names[-1], **_defaults()[names[-1]])


def _read(connection: Connection, names: list[str]) -> dict[str, str]:
    rows = connection.execute(
        sa.select(Variable.name, Variable.value).where(Variable.name.in_(names))
    )
    return {name: value for name, value in rows}


@functools.cache
def _defaults() -> dict[str, dict[str, str]]:
    text = resources.files("vcld.messages").joinpath("defaults.yaml").read_text("utf-8")
    texts: dict[str, dict[str, str]] = yaml.safe_load(text)
    return texts
