"""Telling of a database that is away or refuses: once, not at each turn of the loop."""

from __future__ import annotations

from typing import Any

from vcld import clock
from vcld.errors import StoreError, StoreRefusedError

#: A refusal that goes on is told of this often.
TELL_SECONDS = 60.0


class Outage:
    """What the log has been told of the database's trouble."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._is_away = False
        #: Refusals that were told of, and when each may be told of again.
        self._tell_again_at: dict[str, float] = {}

    def tell(self, err: StoreError) -> None:
        """Log it unless that has just been done."""
        if isinstance(err, StoreRefusedError):
            self._tell_refusal(str(err))
        elif not self._is_away:
            self._is_away = True
            self._log.error("the database is away, waiting for it", reason=str(err))

    def _tell_refusal(self, why: str) -> None:
        now = clock.monotonic()
        self._tell_again_at = {text: at for text, at in self._tell_again_at.items() if at > now}
        if why not in self._tell_again_at:
            self._tell_again_at[why] = now + TELL_SECONDS
            self._log.error("the database refuses what the daemon asks", reason=why)

    def note_answer(self) -> None:
        """The database has answered."""
        if self._is_away:
            self._is_away = False
            self._log.info("the database is back")
