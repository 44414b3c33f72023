"""The YAML in which a site keeps a message: read with care, written so that the web site can.

The web site reads it with Spyc, which knows less than YAML: text blocks begin with a bare
``|``, lists are indented, and nothing is folded.
"""

from __future__ import annotations

import math
from typing import Any

import yaml


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
    message = fields.get("message") if isinstance(fields, dict) else None
    if not isinstance(message, str) or not message.strip():
        msg = "it has no text under the key 'message'"
        raise ValueError(msg)
    result: dict[str, Any] = fields
    return result


class _Dumper(yaml.SafeDumper):
    """YAML that the web site's reader (Spyc) understands."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
    if "\n" not in lines:
        return dumper.represent_scalar("tag:yaml.org,2002:str", lines)
    if lines.startswith(" "):
        return dumper.represent_scalar("tag:yaml.org,2002:str", lines, style='"')
    # Spyc knows a bare "|" only: exactly one line end at the end, no spaces at the start.
    return dumper.represent_scalar("tag:yaml.org,2002:str", f"{lines}\n", style="|")


_Dumper.add_representer(str, _represent_text)


def dump_fields(fields: dict[str, Any]) -> str:
    """A message as YAML. Line ends at both ends of a text are made uniform; they never count."""
    text: str = yaml.dump(
        fields,
        Dumper=_Dumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        explicit_start=True,
        width=math.inf,
    )
    return text
