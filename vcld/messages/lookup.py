"""Finding the text of a message: the affiliation's, the site's, else ours."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

import sqlalchemy as sa
import structlog
import yaml
from sqlalchemy.engine import Connection

from vcld.messages.render import Template
from vcld.schema.models import Variable
from vcld.site_yaml import parse_fields

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
