"""Requests with several reservations: who waits for whom (VCL daemon specification §14).

Reservations of one request speak through the load log only, because they may be on different
management nodes, a Perl one among them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from vcld import clock
from vcld.errors import Blame, ProvisioningError, ReservationChangedError
from vcld.schema.engine import Connection
from vcld.snapshot import Reservation
from vcld.states.outcome import Outcome
from vcld.states.work import Work
from vcld.store import claims, computers, grips, requests, reservations, transitions
from vcld.store.catalog import Catalog
from vcld.store.grips import Grip
from vcld.store.loadlog import Entry
from vcld.waiting import pauses, wait_until

#: States of the request after which a failed child changes nothing any more.
_FAILED = "failed"
#: Rows by which a child says that its computer is loaded.
_READY = frozenset({"nodeready"})
#: A load in advance is over when its worker has ended: one that did not work out costs nothing.
_DONE = _READY | {"exited"}


def begin(work: Work) -> None:
    """For a request split over management nodes: wait for all, then mark it pending.

    Raises:
        ProvisioningError: another management node did not begin in time.
        ReservationChangedError: the request was changed meanwhile.
    """
    if work.grip.is_pending:
        if work.grip.state == "new" and work.grip.is_parent and work.reservation.is_cluster:
            _check_all_claimed(work)
        return

    def all_begun() -> bool:
        begun = {row.reservationid for row in work.log_rows(("begin",))}
        return begun >= {sibling.id for sibling in work.reservation.siblings}

    limit_seconds = work.settings.cluster_begin_timeout_seconds
    if not wait_until(all_begun, work.cancellation, limit_seconds=limit_seconds):
        raise ProvisioningError(
            f"not all reservations of the cluster began within {limit_seconds:.0f} s",
            blame=Blame.NOBODY,
        )
    if work.grip.is_parent:
        if not work.run(transitions.set_pending, work.catalog, work.grip):
            raise ReservationChangedError(f"request {work.grip.requestid} was changed")
        work.grip = _pending(work.grip)


def _check_all_claimed(work: Work) -> None:
    """The web site writes reservations one by one, and some may have come after the claim.

    Raises:
        ReservationChangedError: so it was; all must be claimed together.
    """
    requestid = work.grip.requestid
    all_ids = {sibling.id for sibling in work.reservation.siblings}
    late = all_ids - work.run(claims.claimed_of_request, requestid)
    # One whose worker has ended already, a broken row say, was claimed with the others.
    if late and late - {row.reservationid for row in work.log_rows(("exited",))}:
        raise ReservationChangedError(f"request {requestid} got further reservations")


def _pending(grip: Grip) -> Grip:
    return replace(grip, is_pending=True)


def await_children_loaded(work: Work) -> str | None:
    """The parent's wait for its children's computers (§14.2).

    Returns:
        None when all are ready, else why the cluster fails.

    Raises:
        WorkerStopped: the request was changed.
    """
    is_needed = not work.reservation.preload_only
    started = changed = clock.monotonic()
    seen: object = None
    for pause in pauses(0.2, 5.0):
        rows = work.log_rows()
        children = _present(work) - {work.reservation.id}
        waiting, failed = _progress(rows, children, _READY if is_needed else _DONE)
        if failed:
            return _failure_of(failed)
        if not waiting:
            return None
        now = clock.monotonic()
        picture = [(row.reservationid, row.name) for row in rows]
        if picture != seen:
            seen, changed = picture, now
            those = ", ".join(map(str, sorted(waiting)))
            work.run(grips.note, work.grip, f"waits for reservations {those} of the cluster")
        if now - changed > work.settings.child_idle_timeout_seconds:
            return f"reservation {min(waiting)} of the cluster makes no progress"
        if now - started > work.settings.child_load_timeout_seconds:
            return f"reservation {min(waiting)} of the cluster was not loaded in time"
        work.cancellation.wait(pause)
        reservations_alive(work)
    raise AssertionError  # pauses never end


def _present(work: Work) -> set[int]:
    """The request's reservations that are still there: an operator may take one out."""
    now, _ = work.run(reservations.of_request, work.grip.requestid)
    return {sibling.id for sibling in work.reservation.siblings} & set(now)


def _progress(
    rows: list[Entry], children: set[int], done: frozenset[str]
) -> tuple[set[int], list[Entry]]:
    ready = {row.reservationid for row in rows if row.name in done}
    failed = [row for row in rows if row.name == _FAILED and row.reservationid in children]
    return children - ready, failed


def reservations_alive(work: Work) -> None:
    """Show that the parent lives, so that nobody gives up on it."""
    if not work.grip.is_parent:
        work.run(reservations.touch, [work.reservation.id])


def find_doubled(reservation: Reservation) -> str | None:
    """Why the request cannot be served if it wants one computer twice; else None."""
    seen: dict[int, int] = {}
    for sibling in reservation.siblings:
        other = seen.setdefault(sibling.computerid, sibling.id)
        if other != sibling.id:
            return (
                f"reservations {other} and {sibling.id} of the request have the same computer"
                f" {sibling.hostname}; ask again for different computers"
            )
    return None


def await_rows(work: Work, name: str, what: str, limit_seconds: float) -> str | None:
    """Wait until every reservation of the request has the row, or one has failed.

    Returns:
        None when all have it, else why the cluster fails; ``what`` is what the row stands for.
    """
    everyone: set[int] = set()
    failed: list[Entry] = []
    done: set[int] = set()

    def settled() -> bool:
        everyone.clear()
        everyone.update(_present(work))
        rows = work.log_rows((name, _FAILED))
        failed[:] = [row for row in rows if row.name == _FAILED]
        done.update(row.reservationid for row in rows if row.name == name)
        return bool(failed) or everyone <= done

    in_time = wait_until(settled, work.cancellation, limit_seconds=limit_seconds)
    if failed:
        return _failure_of(failed)
    missing = ", ".join(map(str, sorted(everyone - done)))
    return None if in_time else f"reservations {missing} {what} not within {limit_seconds:.0f} s"


def _failure_of(failed: list[Entry]) -> str:
    """Name the first reservation that failed, and its own words."""
    first = min(failed, key=lambda row: row.reservationid)
    text = f": {first.text}" if first.text else ""
    return f"reservation {first.reservationid} of the cluster failed{text}"


def settle(work: Work, outcome: Outcome) -> Outcome:
    """The parent's last duty: let the children end, and fail with them (§7.3, steps 1, 2)."""
    reservation = work.reservation
    if not reservation.is_cluster or not work.grip.is_parent or outcome.request is None:
        return outcome
    children = {sibling.id for sibling in reservation.siblings} - {reservation.id}
    failed: list[Entry] = []

    def ended() -> bool:
        rows = work.log_rows(("begin", "exited", _FAILED))
        failed[:] = [row for row in rows if row.name == _FAILED and row.reservationid in children]
        begun = {row.reservationid for row in rows if row.name == "begin"}
        exited = {row.reservationid for row in rows if row.name == "exited"}
        return not (children & begun) - exited

    limit_seconds = work.settings.cluster_exit_timeout_seconds
    if not wait_until(ended, work.cancellation, limit_seconds=limit_seconds):
        work.log.warning("children of the cluster did not end", limit_seconds=limit_seconds)
    if failed and outcome.request != _FAILED and work.grip.state != "deleted":
        outcome = replace(
            outcome,
            request=_FAILED,
            failed=True,
            ending=_FAILED if work.grip.state in {"new", "reserved"} else outcome.ending,
            reason=_failure_of(failed),
        )
    if outcome.request != _FAILED:
        return outcome
    others = [sibling.computerid for sibling in reservation.siblings[1:]]
    effects: list[transitions.Effect] = [*outcome.effects, partial(_free_loaded, others)]
    if work.grip.state == "reserved":
        effects.append(partial(take_back, work.grip.requestid, reservation.computer.id))
    return replace(outcome, effects=tuple(effects))


def _free_loaded(computerids: list[int], connection: Connection, catalog: Catalog) -> None:
    """Computers that were loaded for the cluster and that it will not use."""
    computers.free_reloading(connection, catalog, computerids)


def take_back(requestid: int, computerid: int, connection: Connection, catalog: Catalog) -> None:
    """The cluster's other computers were handed out, and must be loaded anew."""
    for other in computers.mark_for_reload(connection, catalog, requestid, computerid):
        held = requests.find_held(connection, requestid, other)
        requests.insert_same_again(connection, catalog, other, held)
