"""deleted, timeout: take the computer back (VCL daemon specification §8.4)."""

from __future__ import annotations

from functools import partial

from vcld.errors import ProvisioningError, UnsupportedOperationError
from vcld.schema.engine import Connection
from vcld.states import accounts, competition
from vcld.states.outcome import Outcome
from vcld.states.work import Work
from vcld.store import fixed_ip, next_image, requests
from vcld.store.catalog import Catalog
from vcld.store.next_image import NextImage

#: Computers in these states are an administrator's business.
LEFT_ALONE = frozenset({"maintenance", "vmhostinuse"})


def run(work: Work) -> Outcome:
    """Sanitize the computer where that is enough, else have it reloaded."""
    reservation, state = work.reservation, work.grip.state
    computer = reservation.computer
    work.step("reclaim:start")
    if reservation.request.server is not None:
        work.run(fixed_ip.give_back, work.grip.requestid, computer.id)
    work.progress(state, f"{computer.shortname} is being reclaimed")
    if computer.state in LEFT_ALONE:
        return Outcome(reason=f"{computer.shortname} is {computer.state}", request="complete")
    if competition.is_taken(work.run(requests.find_rivals, computer.id, work.grip.requestid)):
        reason = f"{computer.shortname} serves another request"
        return Outcome(reason=reason, request="complete")
    if work.grip.laststate == "new":
        return _available("the user never had it")
    if computer.type == "lab":
        return _sanitize(work)
    if work.grip.laststate == "reserved" and _is_clean(work):
        return _sanitize(work)
    return _reload(work)


def _available(reason: str) -> Outcome:
    return Outcome(reason=reason, request="complete", computer="available")


def _is_clean(work: Work) -> bool:
    """True when nobody used the computer and it holds what the database says."""
    work.step("reclaim:tags")
    try:
        tags = work.guest.tags()
    except ProvisioningError as err:
        work.log.info("the computer could not be asked", reason=str(err))
        return False
    recorded = work.reservation.computer.imagerevisionid
    return not tags.tainted and tags.imagerevision_id == recorded and recorded > 0


def _sanitize(work: Work) -> Outcome:
    work.step("reclaim:sanitize")
    try:
        work.guest.sanitize(accounts.known_accounts(work))
    except ProvisioningError as err:
        work.log.warning("sanitizing failed, the computer is reloaded", reason=str(err))
        return _reload(work)
    return _available("the user's traces were removed")


def _reload(work: Work) -> Outcome:
    reservation = work.reservation
    work.step("reclaim:withdraw")
    try:
        # The reload may have to wait for its turn; the user's time is over now.
        work.guest.withdraw()
    except ProvisioningError as err:
        work.log.warning("access could not be withdrawn", reason=str(err))
    work.step("reclaim:post-reservation")
    try:
        work.guest.post_reservation()
    except ProvisioningError as err:
        work.log.warning("scripts at the end of the reservation failed", reason=str(err))
    work.step("reclaim:next-image")
    chosen = work.run(next_image.choose, work.catalog, reservation)
    if chosen.unload:
        unloaded = _unload(work)
        if unloaded is not None:
            return unloaded
    return Outcome(
        reason=f"{reservation.computer.shortname} is reloaded: {chosen.reason}",
        request="complete",
        computer="reload",
        computer_facts=_forget_plan(work, chosen),
        effects=(partial(_insert_reload, work, chosen),),
    )


def _unload(work: Work) -> Outcome | None:
    """Remove what is loaded; None when that cannot be done and a reload must do."""
    work.step("reclaim:unload")
    try:
        work.provisioner.unload()
    except UnsupportedOperationError as err:
        work.log.info("the computer cannot be unloaded, it is reloaded", reason=str(err))
        return None
    except ProvisioningError as err:
        work.log.warning("unloading failed, the computer is reloaded", reason=str(err))
        return None
    return Outcome(
        reason="the computer was unloaded",
        request="complete",
        computer="available",
        computer_facts=work.catalog.no_image,
    )


def _forget_plan(work: Work, chosen: NextImage) -> dict[str, int | None]:
    """The image that was planned for the computer is what it gets now."""
    nothing = work.catalog.no_image.get("currentimageid")
    return {"nextimageid": nothing} if chosen.uses_next_image and nothing else {}


def _insert_reload(work: Work, chosen: NextImage, connection: Connection, catalog: Catalog) -> None:
    """Ask for the reload in the transaction that ends this request (§6.3)."""
    reservation = work.reservation
    requests.insert_reload(
        connection,
        catalog,
        computerid=reservation.computer.id,
        imageid=chosen.imageid,
        imagerevisionid=chosen.imagerevisionid,
        managementnodeid=reservation.managementnode.id,
    )
