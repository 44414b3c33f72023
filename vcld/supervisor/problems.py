"""Mail to the administrators about requests that ended without a worker of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vcld.config import Settings
from vcld.errors import ExitCode, ReservationChangedError, ReservationDataError
from vcld.messages.notices import Notices
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import loadlog, snapshots
from vcld.store.grips import Grip
from vcld.supervisor.aside import Aside

#: What such a child is for; see ``Child.purpose``.
PURPOSE = "mail to administrators"


@dataclass(frozen=True, slots=True)
class Problem:
    """A request that was ended, and in a clause why."""

    grip: Grip
    reason: str


class Problems:
    """Tells of them from a child process: the loop never waits for a mail server."""

    def __init__(self, settings: Settings, database: Database, node: ManagementNode) -> None:
        self.settings = settings
        self._database = database
        self.node = node
        self._untold: list[Problem] = []

    def note(self, grip: Grip, reason: str) -> None:
        """To be told at the end of this turn."""
        self._untold.append(Problem(grip, reason))

    def tell(self, aside: Aside) -> None:
        """Start a child that tells what there is to tell."""
        problems = tuple(self._untold)
        self._untold.clear()
        if problems and (self.node.sysadminEmailAddress or self.node.sharedMailBox):
            aside.start(PURPOSE, lambda: self._mail_all(problems))

    def _mail_all(self, problems: Sequence[Problem]) -> int:
        notices = Notices(self.settings, self._database)
        for problem in problems:
            self._mail(notices, problem)
        return ExitCode.DONE

    def _mail(self, notices: Notices, problem: Problem) -> None:
        grip = problem.grip
        try:
            reservation, history = self._database.run(
                lambda c: (
                    snapshots.load_reservation(c, grip, self.node, preload_only=False),
                    [f"{row.name}: {row.text}" for row in loadlog.read(c, [grip.reservationid])],
                )
            )
        except (ReservationChangedError, ReservationDataError):
            notices.broken(self.node, grip.requestid, grip.state, problem.reason)
        else:
            notices.problem(reservation, "worker", problem.reason, history)
