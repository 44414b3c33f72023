"""What a rule of the consistency check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from vcld.accounting.tables import Tables

Query = sa.Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a consumer's consistency check."""

    name: str
    #: What is wrong with a row that breaks it, with the query's columns by name.
    text: str
    #: The table of the rows that are named.
    table: str
    query: Callable[[Tables], Query]
