"""From what a look found to claims and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from vcld import schedule
from vcld.accounting.recorder import OFF, Recorder
from vcld.config import Settings
from vcld.errors import StoreRefusedError
from vcld.schedule import Action
from vcld.schema.engine import Connection, Database
from vcld.snapshot import ManagementNode
from vcld.states.assignment import Assignment
from vcld.states.table import find_handler
from vcld.store import candidates, claims, requests, transitions
from vcld.store.candidates import Candidate
from vcld.store.catalog import Catalog
from vcld.store.findings import Finding, Found
from vcld.store.grips import ClaimLostError, Grip

#: Requests claimed in one transaction: few enough to keep the heartbeat's rhythm.
BATCH = 25


class Dispatcher:
    """Claims what is due, as far as there is room for workers."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        node: ManagementNode,
        daemon: str,
        log: Any,
    ) -> None:
        self.settings = settings
        #: Set before anything is claimed, and again when the site's names are read again.
        self.catalog: Catalog
        self._database = database
        self.node = node
        self._daemon = daemon
        self.recorder: Recorder = OFF
        self._log = log
        self._is_full = False
        self._warned: set[tuple[int, str]] = set()
        self._refused: set[tuple[int, str]] = set()

    def assignments(
        self, found: Sequence[Found], room: int, pause: Callable[[], None]
    ) -> Iterable[Assignment]:
        """Claim batch by batch and yield what workers must be started for.

        ``pause`` is called between batches, for the heartbeat.
        """
        requestids = list(dict.fromkeys(item.requestid for item in found))
        for start in range(0, len(requestids), BATCH):
            if room <= 0:
                self._tell_full(len(requestids) - start)
                return
            due = self._due(requestids[start : start + BATCH])
            fitting = _fitting(due, room)
            if len(fitting) < len(due):
                self._tell_full(len(requestids) - start)
            grips = self._claim(fitting)
            room -= len(grips)
            for candidate, grip in grips:
                verdict = schedule.decide(candidate.timing)
                yield Assignment(
                    settings=self.settings,
                    database=self._database,
                    catalog=self.catalog,
                    node=self.node,
                    grip=grip,
                    preload_only=verdict.action is Action.PRELOAD,
                    recorder=self.recorder,
                )
            pause()
        self._is_full = self._is_full and room <= 0

    def _tell_full(self, waiting: int) -> None:
        if not self._is_full:
            self._log.info("worker limit reached", waiting=waiting)
        self._is_full = True

    def _due(self, requestids: Sequence[int]) -> list[Candidate]:
        """The reservations to start now, in order of urgency; requests together."""
        rows = self._database.run(
            lambda connection: candidates.load_candidates(
                connection, self.catalog, self.node.id, requestids
            )
        )
        rank = {requestid: number for number, requestid in enumerate(requestids)}
        rows.sort(key=lambda row: (rank[row.requestid], row.reservationid))
        due = []
        idle = []
        # A cluster that was changed begins anew as a whole: when its last worker has let go.
        busy = {row.requestid for row in rows if row.state != "pending" and _has_worker(row)}
        # One is looked at as a whole, too: only its parent's worker makes it "inuse" again.
        whole = {row.requestid for row in rows if row.state != "pending" and self._is_due(row)}
        for row in rows:
            if _has_worker(row) or row.requestid in busy:
                continue
            if row.requestid in whole or self._is_due(row):
                due.append(row)
            elif row.claim is not None:
                idle.append(row.reservationid)
        if idle:
            # The request was changed to something that nobody processes now.
            self._database.run(lambda c: requests.forget_claims(c, idle))
        return due

    def _is_due(self, row: Candidate) -> bool:
        if row.state == "pending":
            # Woken by its own claim: what waits is what was worked on.
            return row.claim is not None and row.claim.state == row.laststate
        verdict = schedule.decide(row.timing)
        if verdict.action in {Action.NOTHING, Action.REMOVE}:
            return False
        return find_handler(row.state) is not None

    def _claim(self, due: Sequence[Candidate]) -> list[tuple[Candidate, Grip]]:
        if not due:
            return []
        try:
            return self._claim_together(due)
        except (ClaimLostError, StoreRefusedError):
            pass  # of one of them: it shows which
        claimed = []
        for _, group in groupby(due, key=lambda row: row.requestid):
            rows = list(group)
            try:
                claimed += self._claim_together(rows)
            except ClaimLostError:
                self._log.info("claim lost to somebody else", request_id=rows[0].requestid)
            except StoreRefusedError as err:
                self._tell_refused("request cannot be claimed", rows[0].requestid, err)
        return claimed

    def _claim_together(self, rows: Sequence[Candidate]) -> list[tuple[Candidate, Grip]]:
        def claim(connection: Connection) -> list[Grip]:
            return claims.claim(connection, self.catalog, self.node.id, self._daemon, rows)

        return list(zip(rows, self._database.run(claim), strict=True))

    def remove_finished(self, found: Sequence[Found]) -> None:
        """Remove requests that are over (VCL daemon specification §6.4)."""
        ids = {item.requestid for item in found if item.finding is Finding.FINISHED}
        if not ids:
            return
        try:
            count = self._database.run(partial(self._remove, ids))
        except StoreRefusedError:
            count = self._remove_one_by_one(ids)
        if count:
            self._log.info("finished requests removed", count=count, request_ids=sorted(ids)[:20])

    def _remove_one_by_one(self, requestids: set[int]) -> int:
        """A table that the site has added may hold on to one of them."""
        count = 0
        for id_ in sorted(requestids):
            try:
                count += self._database.run(partial(self._remove, {id_}))
            except StoreRefusedError as err:
                self._tell_refused("finished request cannot be removed", id_, err)
        return count

    def _tell_refused(self, what: str, requestid: int, err: StoreRefusedError) -> None:
        """Once for each request while the daemon runs."""
        if (requestid, what) not in self._refused:
            self._refused.add((requestid, what))
            self._log.error(what, request_id=requestid, reason=str(err))

    def _remove(self, requestids: set[int], connection: Connection) -> int:
        self.recorder.remove(connection, requestids)
        return requests.delete_finished(connection, self.catalog, requestids)

    def hand_back(self, grip: Grip, reason: str, *, retry_seconds: float) -> None:
        """Undo a claim for which no worker could be started."""
        self._database.run(
            partial(
                transitions.hand_back,
                catalog=self.catalog,
                grip=grip,
                computer_state=None,
                retry_seconds=retry_seconds,
                attempts=grip.attempts,
                reason=reason,
            )
        )

    def forget_gone(self, found: Sequence[Found]) -> None:
        """Drop waiting claims whose reservation the web site has deleted."""
        ids = [item.reservationid for item in found if item.finding is Finding.GONE]
        if ids:
            self._database.run(partial(self._forget, ids))

    def _forget(self, reservationids: list[int], connection: Connection) -> None:
        requests.forget_claims(connection, reservationids)
        self.recorder.vanish(connection, reservationids)

    def take_along(self, found: Sequence[Found]) -> None:
        """An administrator gave reservations to this node that another one had claimed."""
        ids = [item.reservationid for item in found if item.finding is Finding.MOVED]
        if ids:
            self._database.run(lambda c: claims.take_along(c, self.node.id, ids))
            self._log.info("reservations were moved to this node", reservation_ids=ids[:20])

    def warn_unknown(self, found: Sequence[Found]) -> None:
        """Say once of each request that nobody processes its state."""
        unknown = [item for item in found if item.finding is Finding.UNKNOWN]
        fresh = [i for i in unknown if not any(i.requestid == w[0] for w in self._warned)]
        if not fresh:
            return
        rows = self._database.run(
            lambda c: candidates.load_candidates(
                c, self.catalog, self.node.id, [item.requestid for item in fresh]
            )
        )
        for row in rows:
            key = row.requestid, row.state
            if key not in self._warned:
                self._warned.add(key)
                self._log.warning(
                    "request is in a state that no management node processes",
                    request_id=row.requestid,
                    request_state=row.state,
                )


def _has_worker(row: Candidate) -> bool:
    return row.claim is not None and row.claim.phase == "running"


def _fitting(due: Sequence[Candidate], room: int) -> list[Candidate]:
    """Requests from the front, each whole, while there is room.

    The last may take more than there is: a cluster that waited until all of it fits would wait
    for ever beside single requests, or hold them up.
    """
    chosen: list[Candidate] = []
    for _, group in groupby(due, key=lambda row: row.requestid):
        if len(chosen) >= room:
            break
        chosen += group
    return chosen
