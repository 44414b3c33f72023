"""Is the user there? Asked by reserved and inuse (VCL daemon specification §7.5)."""

from __future__ import annotations

from vcld import clock
from vcld.errors import ProvisioningError
from vcld.guest.interface import UserConnection
from vcld.states.work import Work
from vcld.store import reservations


def is_checked(work: Work) -> bool:
    """True when an absent user ends the reservation."""
    return work.reservation.request.checkuser and work.reservation.image.meta.checkuser


def _is_taken_as_present(work: Work) -> bool:
    request = work.reservation.request
    hours = work.timing("ignore_connections_gte") // 60
    return request.is_server or request.duration_seconds // 3600 >= hours


def await_user(work: Work, limit_seconds: float) -> UserConnection | None:
    """Look for the user until found or the time is over; at least once.

    Trouble in asking the computer counts as "not seen", never as a failure: a live session
    is not failed by the network.

    Raises:
        WorkerStopped: the request was changed.
        ReservationChangedError: likewise.
    """
    if _is_taken_as_present(work):
        work.progress("connected", "the user's connection is not checked")
        return UserConnection(None)
    deadline = clock.monotonic() + limit_seconds
    while True:
        found = _look(work)
        if found is not None:
            _note(work, found)
            return found
        left = deadline - clock.monotonic()
        if left <= 0:
            return None
        work.cancellation.wait(min(work.settings.connect_poll_seconds, left))
        work.check_unchanged()


def _look(work: Work) -> UserConnection | None:
    remote_ip = work.run(reservations.find_remote_ip, work.reservation.id)
    try:
        found = work.guest.find_connection(remote_ip, work.connect_methods)
    except ProvisioningError as err:
        work.log.warning("the computer could not be asked for its user", reason=str(err))
        return None
    if found is None and work.reservation.is_cluster:
        return _seen_by_sibling(work)
    return found


def _seen_by_sibling(work: Work) -> UserConnection | None:
    """A user who is on one computer of a cluster is on the cluster."""
    connected = {row.reservationid for row in work.log_rows(("connected",))}
    return UserConnection(None) if connected - {work.reservation.id} else None


def _note(work: Work, found: UserConnection) -> None:
    work.progress("connected", "the user is connected")
    if found.remote_ip:
        work.run(
            reservations.log_connection,
            work.reservation,
            found.remote_ip,
            verified=found.verified,
        )
    if work.reservation.is_cluster:
        work.run(reservations.touch, [sibling.id for sibling in work.reservation.siblings])


def keep_address(work: Work, found: UserConnection | None) -> None:
    """Follow the user to another address."""
    known = work.run(reservations.find_remote_ip, work.reservation.id)
    address = found.remote_ip if found else None
    if address and address != known:
        work.log.info("the user came from another address", remote_ip=address)
        work.run(reservations.set_remote_ip, work.reservation.id, address)


def find_allowed(work: Work) -> str | None:
    """The one address to let in while the computer is in use; None: any.

    A server with groups of users has users at several addresses; the web site keeps that of
    whoever pressed Connect last.
    """
    server = work.reservation.request.server
    if server is not None and (server.admingroupid or server.logingroupid):
        return None
    return work.run(reservations.find_remote_ip, work.reservation.id)


def tell_user(work: Work, key: str, **facts: str) -> None:
    """Send a message; a cluster's parent speaks for all."""
    if work.grip.is_parent:
        work.notices.user(work.reservation, key, **facts)
