"""new, reload, reinstall, imageprep, tovmhostinuse, tomaintenance: prepare a computer.

VCL daemon specification §8.1.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from vcld.errors import Blame, ProvisioningError, UnknownModuleError
from vcld.schema.engine import Connection
from vcld.states import accounts, cluster, failure, load
from vcld.states.competition import win_computer
from vcld.states.outcome import Outcome, Result, Wait
from vcld.states.work import Work
from vcld.store import images, loadlog, requests, reservations
from vcld.store.catalog import Catalog

#: Requests that hand the computer to a user.
USER_STATES = frozenset({"new", "reinstall"})


def run(work: Work) -> Result:
    """Prepare the computer as the request's state asks."""
    doubled = cluster.find_doubled(work.reservation)
    if doubled is not None:
        return _refuse(work, doubled)
    if work.grip.state == "reload":
        _use_production_revision(work)
    work.step("new:compete")
    taken = win_computer(work)
    if taken is not None:
        return _computer_taken(work, taken)
    if work.grip.state == "tomaintenance":
        return _to_maintenance(work)
    try:
        if not _needs_no_load(work):
            load.load_computer(work)
    except ProvisioningError as err:
        if work.reservation.preload_only:
            return _back_from_preload(work, f"could not be loaded in advance: {err}")
        raise
    if work.reservation.is_cluster and work.grip.is_parent:
        failed = _await_children(work)
        if failed is not None:
            return failed
    return _finish(work)


def _refuse(work: Work, reason: str) -> Outcome:
    """Fail before anything is touched; every reservation of the request sees the same."""
    return Outcome(
        reason=reason,
        request="failed",
        ending="failed" if work.grip.state == "new" else None,
        entries=(("failed", reason),),
        failed=True,
    )


def _use_production_revision(work: Work) -> None:
    """A reload for a block allocation takes the image's production revision (§8.1 A)."""
    revision = work.run(images.production_for_block, work.reservation)
    if revision is not None:
        work.reservation = dataclasses.replace(work.reservation, imagerevision=revision)


def _needs_no_load(work: Work) -> bool:
    reservation = work.reservation
    return work.grip.state == "tovmhostinuse" and (
        reservation.image.name == "noimage" or reservation.computer.provisioning == "none"
    )


def _computer_taken(work: Work, reason: str) -> Result:
    state = work.grip.state
    if state == "tomaintenance" and work.reservation.computer.state != "maintenance":
        waited = work.memo.get("waited_seconds", 0)
        if waited >= work.settings.tomaintenance_timeout_seconds:
            return Outcome(
                reason=reason, request="failed", entries=(("failed", reason),), failed=True
            )
        pause = work.settings.tomaintenance_retry_seconds
        return Wait(seconds=pause, reason=reason, memo={"waited_seconds": waited + pause})
    if state == "reinstall":
        # Its user has it, and the request must not end without giving it back.
        return Outcome(reason=f"not possible: {reason}", request="timeout", ending="failed")
    if state != "new":
        return Outcome(reason=f"not needed or not possible: {reason}", request="complete")
    if work.reservation.preload_only:
        reservation = work.reservation

        def plan(connection: Connection, _catalog: Catalog) -> None:
            images.set_next(connection, reservation.computer.id, reservation.image.id)

        outcome = _back_from_preload(work, reason)
        return dataclasses.replace(outcome, computer=None, effects=(*outcome.effects, plan))
    return failure.outcome_for(work, reason, Blame.NOBODY)


def _back_from_preload(work: Work, reason: str) -> Outcome:
    """A load in advance leaves everything as it was, but does not come back (§8.1 D, G)."""
    before = work.reservation.computer.state
    effects = (partial(_note_preload, work),) if work.grip.is_parent else ()
    return Outcome(
        reason=reason,
        request=work.grip.state,
        laststate=work.grip.state,
        # What else it was before, it is no more: the computer was won since.
        computer=before if before in failure.KEPT_STATES else "available",
        effects=effects,
    )


def _note_preload(work: Work, connection: Connection, catalog: Catalog) -> None:
    """What was done in advance must not be taken for a part of the load at the start."""
    requests.set_preload(connection, work.grip.requestid)
    ids = {sibling.id for sibling in work.reservation.siblings} | {work.grip.reservationid}
    loadlog.delete(connection, catalog, ids)


def _to_maintenance(work: Work) -> Outcome:
    computer = work.reservation.computer
    work.step("new:maintenance")
    removed = False
    try:
        removed = work.provisioner.post_maintenance()
    except (ProvisioningError, UnknownModuleError) as err:
        work.log.error("action after maintenance failed", reason=str(err))

    facts = {**work.catalog.no_image, "vmhostid": None} if removed else {}
    return Outcome(
        reason=f"{computer.shortname} is in maintenance",
        request="complete",
        computer="maintenance",
        computer_facts=facts,
    )


def _await_children(work: Work) -> Outcome | None:
    work.step("new:children")
    work.progress("nodeready", f"{work.reservation.computer.shortname} is ready")
    failed = cluster.await_children_loaded(work)
    if failed is None:
        return None
    return Outcome(
        reason=failed,
        request="failed",
        computer="available",
        ending="failed" if work.grip.state == "new" else None,
        entries=(("failed", failed),),
        failed=True,
    )


def _finish(work: Work) -> Outcome:
    state, computer = work.grip.state, work.reservation.computer
    ready = ("nodeready", f"{computer.shortname} is ready")
    if work.reservation.preload_only and state in USER_STATES:
        outcome = _back_from_preload(work, f"{computer.shortname} was loaded in advance")
        return outcome if work.grip.is_parent else dataclasses.replace(outcome, entries=(ready,))
    if state not in USER_STATES:
        target = "vmhostinuse" if state == "tovmhostinuse" else "available"
        return Outcome(
            reason=f"{computer.shortname} is ready",
            request="complete",
            computer=target,
            entries=(ready,),
        )
    address = _reserve(work)

    def keep(connection: Connection, _catalog: Catalog) -> None:
        request = work.reservation.request
        reservations.log_address(connection, request.logid, computer.id, address)

    return Outcome(
        reason=f"{computer.shortname} is ready for its user",
        request="reserved",
        entries=(ready,),
        effects=(keep,),
    )


def _reserve(work: Work) -> str:
    """Make the accounts; return the computer's public address."""
    name = work.reservation.computer.shortname
    work.step("new:reserve")
    work.progress("addinguser", f"adding {work.reservation.request.user.login} to {name}")
    address = work.guest.reserve(accounts.prepare_accounts(work))
    load.keep_address(work, address)
    if work.reservation.computer.nathost is not None:
        # The web site shows the public ports as soon as the user may connect.
        work.log.debug("public ports chosen", methods=len(work.connect_methods))
    return address or work.reservation.computer.IPaddress
