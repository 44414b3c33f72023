"""image, checkpoint: make an image of the user's computer (VCL daemon specification §8.6).

Nothing here may cost the user the disk: a failure at any point ends in maintenance with the
computer as it is, for an administrator to look at.
"""

from __future__ import annotations

from functools import partial

from vcld.errors import (
    Blame,
    FatalProvisioningError,
    ProvisioningError,
    UnsupportedOperationError,
    ValueRefusedError,
)
from vcld.provisioning.interface import PowerAction
from vcld.schema.engine import Connection
from vcld.states import accounts, load
from vcld.states.outcome import Outcome
from vcld.states.work import Work
from vcld.store import images, notices, requests
from vcld.store.catalog import Catalog


def run(work: Work) -> Outcome:
    """Capture, and for a checkpoint hand the computer back to its user."""
    try:
        return _capture(work)
    except ProvisioningError:
        _tell_failure(work)
        raise


def _capture(work: Work) -> Outcome:
    checkpoint = work.grip.state == "checkpoint"
    work.step("image:check")
    name = work.provisioner.check_image_os() or work.reservation.imagerevision.imagename
    if not work.memo.get("announced"):
        work.notices.admins(work.reservation, "image_creation_started")
        work.remember(announced=True)
    if _must_capture(work, name):
        work.step("image:post-reservation")
        work.guest.post_reservation()
        work.step("image:capture")
        work.progress("info", f"capturing {name}")
        work.provisioner.capture(keep_running=checkpoint)
    work.step("image:captured")
    size_mib = _size(work, name)
    _note_capture(work, name, size_mib)
    if checkpoint:
        _hand_back(work)
    work.step("image:post-capture")
    work.guest.post_capture()
    tell = partial(_tell_success, work, size_mib)
    if checkpoint:
        return Outcome(
            reason=f"image {name} was captured; the user keeps the computer",
            request="reserved",
            computer="checkpoint",
            effects=(partial(_end_capture, work),),
            afterwards=(tell,),
        )
    return Outcome(
        reason=f"image {name} was captured",
        request="complete",
        computer="reload",
        ending="EOR",
        effects=(partial(_end_capture, work), partial(_insert_reload, work)),
        afterwards=(tell,),
    )


def _must_capture(work: Work, name: str) -> bool:
    """False when an attempt at this capture, whose worker died late, has stored the image.

    Provisioners show an image only when it is complete, and nobody else makes this revision. Only
    a capture that an operator lets go on, out of maintenance, counts: who asks for one anew wants
    what is on the disk now.

    Raises:
        FatalProvisioningError: somebody else's image has the name.
    """
    ours = work.grip.requestid, work.reservation.imagerevision.id
    if not work.provisioner.image_exists(name):
        work.run(notices.begin_capture, *ours)
        return True
    goes_on = work.grip.laststate == "maintenance" and work.run(notices.is_capture_begun, *ours)
    if not goes_on:
        raise FatalProvisioningError(f"image {name} exists already; nothing was captured")
    work.progress("info", f"{name} was captured before, only the rest is done")
    return False


def _note_capture(work: Work, name: str, size_mib: int | None) -> None:
    revisionid = work.reservation.imagerevision.id
    try:
        work.run(images.note_capture, work.reservation, name, size_mib)
    except ValueRefusedError as err:
        holder = work.run(images.find_namesake, revisionid, name)
        who = f"{holder} has that name already; rename or remove it" if holder else str(err)
        raise FatalProvisioningError(
            f"the image was captured as {name}, but imagerevision {revisionid} cannot get that"
            f" name: {who}, then set imagename and deleted = 0 of imagerevision {revisionid}"
            " and end the request",
            blame=Blame.NOBODY,
        ) from err


def _size(work: Work, name: str) -> int | None:
    try:
        return work.provisioner.image_size_mib(name)
    except UnsupportedOperationError:
        return None
    except ProvisioningError as err:
        work.log.warning("the image's size is not known", reason=str(err))
        return None


def _hand_back(work: Work) -> None:
    work.step("image:power-on")
    work.provisioner.power(PowerAction.ON)
    address = work.guest.post_load()
    work.guest.tag_post_load()
    work.step("image:reserve")
    address = work.guest.reserve(accounts.prepare_accounts(work)) or address
    load.keep_address(work, address)
    work.run(requests.set_checkuser, work.grip.requestid, check=False)


def _end_capture(work: Work, connection: Connection, _catalog: Catalog) -> None:
    notices.end_capture(connection, work.grip.requestid, work.reservation.imagerevision.id)


def _insert_reload(work: Work, connection: Connection, catalog: Catalog) -> None:
    """The computer gets the image that was made of it."""
    reservation = work.reservation
    requests.insert_reload(
        connection,
        catalog,
        computerid=reservation.computer.id,
        imageid=reservation.image.id,
        imagerevisionid=reservation.imagerevision.id,
        managementnodeid=reservation.managementnode.id,
    )


def _tell_success(work: Work, size_mib: int | None) -> None:
    checkpoint = work.grip.state == "checkpoint"
    key = "image_checkpoint_success" if checkpoint else "image_creation_success"
    facts = {} if size_mib is None else {"image_size": str(size_mib)}
    work.notices.user(work.reservation, key, **facts)
    work.notices.admins(work.reservation, "image_creation_complete", **facts)


def _tell_failure(work: Work) -> None:
    if work.grip.laststate != "maintenance":
        work.notices.user(work.reservation, "image_creation_delayed")
    work.notices.admins(work.reservation, "image_creation_failed")
