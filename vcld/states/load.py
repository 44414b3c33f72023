"""Getting the wanted image revision onto the computer (VCL daemon specification §8.1 D)."""

from __future__ import annotations

import dataclasses

from vcld.errors import BackendUnavailableError, Blame, ImageNotFoundError, ProvisioningError
from vcld.provisioning.interface import LoadStatus
from vcld.schema.engine import Connection
from vcld.states.work import Work
from vcld.store import computers, durations, fixed_ip, reservations

#: Nobody needs to know how long a shorter load will take.
SHORTEST_FORECAST_SECONDS = 1.0


def load_computer(work: Work) -> None:
    """Make the computer ready, by the shortest way that its own state allows.

    Raises:
        ProvisioningError: it could not be made ready; ``blame`` says whose fault it is.
        ReservationChangedError: the claim was taken away.
    """
    computer = work.reservation.computer
    work.step("new:status")
    work.progress("statuscheck", f"checking what {computer.shortname} holds")
    status = _status(work)
    if status is LoadStatus.POST_LOAD and _finish_load(work):
        status = LoadStatus.READY
    if status is not LoadStatus.READY:
        _load(work)
    server = work.reservation.request.server
    if server is not None and server.fixedIP:
        _fix_address(work, server.fixedIP)


def _fix_address(work: Work, address: str) -> None:
    work.step("new:fixed-address")
    other = work.run(fixed_ip.take, work.reservation)
    if other is not None:
        raise ProvisioningError(
            f"the fixed address {address} is that of {other} already", blame=Blame.NOBODY
        )
    work.guest.set_fixed_ip(address)
    computer = dataclasses.replace(work.reservation.computer, IPaddress=address)
    work.reservation = dataclasses.replace(work.reservation, computer=computer)


def _status(work: Work) -> LoadStatus:
    if work.grip.state == "reinstall":
        return LoadStatus.RELOAD
    if work.reservation.computer.state == "reload":
        return LoadStatus.RELOAD
    found = work.provisioner.node_status()
    work.log.info("computer checked", status=found.status.value, reason=found.reason)
    return found.status


def _finish_load(work: Work) -> bool:
    """Finish a load that was not finished; False when it must be done over."""
    work.step("new:post-load")
    try:
        address = work.guest.post_load()
        work.guest.tag_post_load()
    except ProvisioningError as err:
        work.log.warning("post-load failed, the computer is loaded anew", reason=str(err))
        return False
    keep_address(work, address)
    return True


def _load(work: Work) -> None:
    reservation = work.reservation
    name, image = reservation.computer.shortname, reservation.imagerevision.imagename
    work.step("new:image")
    is_here = work.provisioner.image_exists()
    work.step("new:reloading")
    where = "is here" if is_here else "is not here, asking partners for it"
    work.set_computer(
        "reloading",
        ("loadimageblade", f"{name} must be loaded with {image}"),
        ("info", f"{name} is reloading"),
        ("doesimageexists", f"{image} {where}"),
    )
    if not is_here:
        _get_image(work, image)
    work.step("new:pre-reload")
    if work.guest.is_responding():
        work.guest.pre_reload()
    work.step("new:load")
    if reservation.computer.type != "lab":  # whose system nobody installs here
        work.guest.expect_new_system()
    try:
        address = work.provisioner.load()
        work.guest.tag_post_load()
    except ProvisioningError as err:
        work.progress("loadimagefailed", str(err))
        raise
    work.step("new:loaded")
    _note_placement(work)
    spent = work.load_durations()

    def note(connection: Connection) -> None:
        facts = {
            "currentimageid": reservation.image.id,
            "imagerevisionid": reservation.imagerevision.id,
        }
        computers.write(connection, work.catalog, reservation.computer.id, facts)
        if sum(spent.values()) >= SHORTEST_FORECAST_SECONDS:
            durations.remember(
                connection, reservation.image.id, reservation.computer.provisioning, spent
            )
        if address and address != reservation.computer.IPaddress:
            reservations.set_public_ip(connection, reservation, address)

    work.report(("loadimagecomplete", f"{image} is loaded on {name}"), alongside=note)


def _note_placement(work: Work) -> None:
    """For the accounting: a load is none the worse if nobody can say where it went."""
    if not work.recorder.is_on:
        return
    try:
        work.placement = work.provisioner.placement()
    except ProvisioningError as err:
        work.log.warning("where the system was put is not known", reason=str(err))


def _get_image(work: Work, image: str) -> None:
    try:
        work.provisioner.retrieve_image()
    except BackendUnavailableError:
        raise  # the next attempt may have it
    except ProvisioningError as err:
        raise ImageNotFoundError(f"image {image} could not be had: {err}") from err
    work.progress("copyfrompartnerMN", f"{image} was copied from a partner")


def keep_address(work: Work, address: str | None) -> None:
    """Store a public address that the guest found out, if it is new."""
    if address and address != work.reservation.computer.IPaddress:
        work.run(reservations.set_public_ip, work.reservation, address)
