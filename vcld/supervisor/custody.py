"""Claims and their workers, held against each other: nothing stays without an owner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from vcld import clock
from vcld.accounting.recorder import OFF, Recorder
from vcld.config import Settings
from vcld.errors import ExitCode, ReservationChangedError, StoreError, StoreRefusedError
from vcld.schema.engine import Database
from vcld.snapshot import ManagementNode
from vcld.store import candidates, claims, grips, strangers, transitions
from vcld.store.candidates import Candidate
from vcld.store.catalog import Catalog
from vcld.store.findings import Finding, Found, Look
from vcld.store.strangers import Here
from vcld.supervisor.children import Children, Ended
from vcld.supervisor.problems import Problems
from vcld.supervisor.recovery import Death, recover

#: A pending request without an owner must be seen so for this long before it is touched.
STRAY_SECONDS = 60.0
#: Likewise a claim that says a worker has it, but none does.
ORPHAN_SECONDS = 5.0
#: A worker that ends so has written what there was to write.
ORDERLY = frozenset({ExitCode.DONE, ExitCode.FAILED, ExitCode.TRY_LATER, ExitCode.HANDED_BACK})


class Custody:
    """Notices what was left without an owner, and has it recovered."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        node: ManagementNode,
        daemon: str,
        children: Children,
        problems: Problems,
        log: Any,
    ) -> None:
        self.settings = settings
        self.recorder: Recorder = OFF
        self.catalog: Catalog
        self._database = database
        self.node = node
        self._daemon = daemon
        self._children = children
        self._problems = problems
        self._log = log
        self._deaths: list[Death] = []
        #: When a pending request was first seen without an owner.
        self._strays: dict[int, float] = {}
        self._orphans_since: float | None = None
        self._told_nonsense: set[int] = set()

    def __len__(self) -> int:
        """How many reservations wait for their recovery."""
        return len(self._deaths)

    def inherit(self) -> None:
        """Take over what an earlier daemon of the node left: live workers, and dead ones."""
        self._deaths.clear()  # of a start that was tried before
        for running in self._load_running():
            grip, process = running.grip, running.process
            if process is not None and self._children.adopt(process, grip):
                self._database.run(partial(grips.adopt, grip=grip, daemon=self._daemon))
                self._log.info(
                    "worker adopted", reservation_id=grip.reservationid, worker_pid=process.pid
                )
            else:
                self._deaths.append(Death(grip, "was gone when the daemon started"))

    def note_end(self, ended: Ended) -> None:
        """A worker has ended; if not in order, its reservation must be recovered."""
        if ended.child.grip is not None and ended.status not in ORDERLY:
            self._deaths.append(Death(ended.child.grip, ended.manner))

    def recover(self) -> None:
        """Put back in order what dead workers held.

        Raises:
            StoreError: the database is away; nothing is forgotten.
        """
        for death in list(self._deaths):
            try:
                ended = self._database.run(
                    partial(
                        recover,
                        catalog=self.catalog,
                        settings=self.settings,
                        recorder=self.recorder,
                        death=death,
                        log=self._log,
                    )
                )
                if ended is not None:
                    self._problems.note(death.grip, ended)
            except ReservationChangedError:
                continue  # changed at this very moment: the next turn sees how
            except StoreRefusedError as err:
                # The claim stays, and is found again as one without a worker.
                self._log.error(
                    "recovery was refused, it will be tried again",
                    request_id=death.grip.requestid,
                    reservation_id=death.grip.reservationid,
                    reason=str(err),
                )
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - one reservation's trouble must not stop the rest
                # The claim stays, and is found again as one without a worker.
                self._log.exception(
                    "recovery failed, it will be tried again",
                    request_id=death.grip.requestid,
                    reservation_id=death.grip.reservationid,
                )
            self._deaths.remove(death)

    def watch(self, look: Look, found: Sequence[Found]) -> None:
        """Find what has no owner in what a look saw."""
        self._watch_orphans(look.running_claims)
        self._watch_strays(found)

    def take_orphans(self, manner: str) -> None:
        """Recover all claims of the node that no worker of ours has."""
        ours = {child.grip.reservationid for child in self._children if child.grip is not None}
        ours |= {death.grip.reservationid for death in self._deaths}
        for running in self._load_running():
            if running.grip.reservationid not in ours:
                self._deaths.append(Death(running.grip, manner))

    def _load_running(self) -> list[claims.RunningClaim]:
        return self._database.run(lambda c: claims.load_running(c, self.node.id))

    def _watch_orphans(self, running_claims: int) -> None:
        """A claim's commit may have counted although the daemon never heard so."""
        held = self._children.workers + len(self._deaths)
        now = clock.monotonic()
        if running_claims <= held:
            self._orphans_since = None
        elif self._orphans_since is None:
            self._orphans_since = now
        elif now - self._orphans_since >= ORPHAN_SECONDS:
            self._orphans_since = None
            self.take_orphans("is not there")

    def _watch_strays(self, found: Sequence[Found]) -> None:
        """Requests left pending by a daemon that kept no claims (a Perl one, say)."""
        now = clock.monotonic()
        strays = {f.requestid: f for f in found if f.finding is Finding.STRAY}
        self._strays = {id_: self._strays.get(id_, now) for id_ in strays}
        old = [id_ for id_, since in self._strays.items() if now - since >= STRAY_SECONDS]
        if not old:
            return
        rows = self._database.run(
            lambda c: candidates.load_candidates(c, self.catalog, self.node.id, old)
        )
        for row in rows:
            if row.is_parent and row.claim is None and row.state == "pending":
                if row.laststate == "pending":
                    self._tell_nonsense(row)
                    continue
                if self._is_worked_on(row):
                    self._strays[row.requestid] = now
                    continue
                freed = self._database.run(
                    partial(transitions.free_stray, catalog=self.catalog, stray=row)
                )
                self._log.warning(
                    "request was pending without an owner, it is processed again",
                    request_id=row.requestid,
                    state=row.laststate,
                    done=freed,
                )

    def _tell_nonsense(self, row: Candidate) -> None:
        """Once: nobody can know what is to be done."""
        if row.requestid not in self._told_nonsense:
            self._told_nonsense.add(row.requestid)
            self._log.warning(
                "request is pending/pending, which does not say at what: set request.stateid",
                request_id=row.requestid,
            )

    def _is_worked_on(self, row: Candidate) -> bool:
        """True while a Perl daemon's worker is at it, here or on another node (§2.4)."""
        here = Here(self.node.hostname, self.settings.processname)
        return self._database.run(
            lambda c: strangers.is_worked_on(c, row.requestid, row.reservationid, here)
        )
