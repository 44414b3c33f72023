"""Parts of a turn that do not need one another: one that fails does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vcld.errors import StoreError, StoreRefusedError
from vcld.supervisor.lease import FencedError
from vcld.supervisor.outage import Outage


def take(steps: Mapping[str, Callable[[], object]], outage: Outage, log: Any) -> None:
    """Take each step, by name; an odd row that one of them stumbles over concerns that one only.

    Raises:
        StoreError: the database is away, for the other steps too.
        FencedError: another daemon acts for the node.
    """
    for name, step in steps.items():
        try:
            step()
        except StoreRefusedError as err:
            outage.tell(err)
        except (StoreError, FencedError):
            raise
        except Exception:  # one row's trouble must not stop the rest
            log.exception("a part of the turn failed, the others go on", part=name)
