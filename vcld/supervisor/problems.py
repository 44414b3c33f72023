"""Mail to the administrators about requests that ended without a worker of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vcld.config import Settings
from vcld.errors import ExitCode, ReservationChangedError, ReservationDataError
from vcld.messages.notices import Notices
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import loadlog, snapshots
from vcld.store.grips import Grip
from vcld.supervisor.children import Children

#: What such a child is for; see ``Child.purpose``.
PURPOSE = "mail to administrators"


@dataclass(frozen=True, slots=True)
class Problem:
    """A request that was ended, and in a clause why."""

    grip: Grip
    reason: str


class Problems:
    """Tells of them from a child process: the loop never waits for a mail server."""

    def __init__(
        self, settings: Settings, database: Database, node: ManagementNode, log: Any
    ) -> None:
        self.settings = settings
        self._database = database
        self._node = node
        self._log = log
        self._untold: list[Problem] = []

    def note(self, grip: Grip, reason: str) -> None:
        """To be told at the end of this turn."""
        self._untold.append(Problem(grip, reason))

    def tell(self, children: Children, leave_parent: Callable[[], None]) -> None:
        """Start a child that tells what there is to tell."""
        if not self._untold or not (self._node.sysadminEmailAddress or self._node.sharedMailBox):
            self._untold.clear()
            return
        problems = tuple(self._untold)
        try:
            children.spawn(PURPOSE, None, lambda: self._be_child(leave_parent, problems))
        except OSError as err:
            self._log.warning("administrators are not told", reason=str(err))
        self._untold.clear()

    def _be_child(self, leave_parent: Callable[[], None], problems: Sequence[Problem]) -> int:
        leave_parent()
        self._database.after_fork()
        notices = Notices(self.settings, self._database)
        for problem in problems:
            self._mail(notices, problem)
        return ExitCode.DONE

    def _mail(self, notices: Notices, problem: Problem) -> None:
        grip = problem.grip
        try:
            reservation, history = self._database.run(
                lambda c: (
                    snapshots.load_reservation(c, grip, self._node, preload_only=False),
                    [f"{row.name}: {row.text}" for row in loadlog.read(c, [grip.reservationid])],
                )
            )
        except (ReservationChangedError, ReservationDataError):
            notices.broken(self._node, grip.requestid, grip.state, problem.reason)
        else:
            notices.problem(reservation, "worker", problem.reason, history)
