"""What the supervisor gives to a worker."""

from __future__ import annotations

from dataclasses import dataclass

from vcld.accounting.recorder import OFF, Recorder
from vcld.config import Settings
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One claimed reservation, and what its worker inherits from the supervisor."""

    settings: Settings
    database: Database
    catalog: Catalog
    node: ManagementNode
    grip: Grip
    #: The computer is only loaded in advance of a later start.
    preload_only: bool
    #: Keeps account of what the worker does.
    recorder: Recorder = OFF
