"""Lives of requests as the recorder is told of them, without the work between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy.engine import Connection

from tests.samples import make_reservation
from vcld.accounting.recorder import LOADS, Milestone, Recorder
from vcld.snapshot import Reservation, Sibling
from vcld.states.table import STATES
from vcld.store.grips import Grip

MAX_ATTEMPTS = 3


@dataclass
class Life:
    """One request; each of its reservations is a VM."""

    recorder: Recorder
    vms: Sequence[int]
    requestid: int
    state: str = "new"
    laststate: str = "new"
    attempts: int = 0
    logid: int | None = None
    #: States of the request so far.
    path: list[str] = field(default_factory=list)

    def begin(self, connection: Connection, milestones: int = 4) -> None:
        """Workers begin; those of loads come so far."""
        self.path.append(self.state)
        for vm in self.vms:
            reservation = self.reservation(vm)
            self.recorder.begin(connection, self.grip(vm), reservation)
            if self.state in LOADS:
                for milestone in list(Milestone)[:milestones]:
                    self.recorder.pass_milestone(connection, milestone, reservation)

    def end(self, connection: Connection, outcome: str, ending: str | None = None) -> None:
        """Workers write their outcome, children first."""
        failed = outcome in STATES[self.state].failure
        for vm in reversed(self.vms):
            self.recorder.end(
                connection, self.grip(vm), request_state=outcome, log_ending=ending,
                failed=failed, reservationids=self.vms,
            )  # fmt: skip
        self.move(outcome)

    def die(self, connection: Connection) -> None:
        """Workers die; their work is repeated or, after some attempts, failed."""
        row = STATES[self.state]
        if row.repeatable and self.attempts + 1 < MAX_ATTEMPTS:
            for vm in self.vms:
                self.recorder.hand_back(connection, self.grip(vm))
            self.attempts += 1
            return
        self.end(connection, row.failure[0])

    def move(self, state: str) -> None:
        """The request gets another state, by a worker or the web site."""
        self.state, self.laststate, self.attempts = state, self.state, 0

    def grip(self, vm: int) -> Grip:
        return Grip(
            reservationid=vm, requestid=self.requestid, computerid=1, state=self.state,
            laststate=self.laststate, token=0, attempts=self.attempts, memo={},
            is_parent=vm == self.vms[0], is_pending=True,
        )  # fmt: skip

    def reservation(self, vm: int) -> Reservation:
        made = make_reservation(state=self.state)
        sibling = Sibling(id=0, computerid=5, managementnodeid=1, hostname="", privateIPaddress=None,
                          IPaddress="")  # fmt: skip
        siblings = tuple(replace(sibling, id=id_) for id_ in self.vms)
        request = replace(made.request, id=self.requestid, logid=self.logid)
        siblings = siblings if len(siblings) > 1 else ()
        return replace(made, id=vm, request=request, siblings=siblings)
