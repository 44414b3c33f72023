"""reserved: the computer is ready; wait for the user to ask for it and to connect.

VCL daemon specification §8.2. Waiting for the Connect button holds no process: the claim is
parked and woken when the web site writes the user's address. Waiting for the connection does,
because the computer itself must be asked.
"""

from __future__ import annotations

from functools import partial

from vcld.errors import Blame, ProvisioningError
from vcld.guest.interface import UserConnection
from vcld.schema.engine import Connection
from vcld.states import cluster, presence
from vcld.states.outcome import Outcome, Result, Wait
from vcld.states.work import Work
from vcld.store import computers, loadlog, reservations

#: Load-log rows that start a user's time limit and go when it has served (§8.2, steps 8, 15).
ACKNOWLEDGE = "acknowledgetimeout"
CONNECT = "initialconnecttimeout"
RECONNECT = "reconnecttimeout"


def run(work: Work) -> Result:
    """Offer the computer, then wait for its user."""
    if not work.memo.get("offered"):
        _offer(work)
    waited = _await_acknowledgement(work)
    if waited is not None:
        return waited
    work.step("reserved:grant-access")
    started_ago = _start_connection_window(work)
    work.guest.grant_access(work.connect_methods)
    if work.reservation.is_cluster:
        work.step("reserved:cluster")
        work.guest.update_cluster()
    work.step("reserved:post-reserve")
    if work.guest.post_reserve():
        work.guest.tag_tainted("scripts ran after the reservation was made")
    work.progress("postreserve", "access is granted")
    return _await_connection(work, started_ago)


def _offer(work: Work) -> None:
    """Tell the web site and the user that the computer is ready; once."""
    work.step("reserved:offer")
    reservation, grip = work.reservation, work.grip
    name = reservation.computer.shortname
    entries = [("reserved", f"{name} is reserved")]
    if grip.is_parent:
        entries.append((ACKNOWLEDGE, "waiting for the user to connect"))

    def offer(connection: Connection) -> bool:
        if grip.is_parent:
            reservations.log_loaded(connection, reservation.request.logid)
        if not computers.set_own_state(connection, work.catalog, grip, "reserved"):
            return False
        return loadlog.add(
            connection,
            work.catalog,
            reservation.id,
            reservation.computer.id,
            entries,
            token=grip.token,
        )

    work.tell(entries)
    work.keep_going(work.run(offer))
    work.step("reserved:tell")
    if grip.is_parent:
        key = "reinstalled" if grip.laststate == "reinstall" else "reserved"
        minutes = str(work.timing(ACKNOWLEDGE) // 60)
        work.notices.user(reservation, key, acknowledge_minutes=minutes)
    work.remember(offered=True)


def _await_acknowledgement(work: Work) -> Result | None:
    """None once the user has asked to connect; else how long to wait, or the time-out."""
    work.step("reserved:acknowledge")
    reservation = work.reservation
    if reservation.request.is_server or work.run(reservations.find_remote_ip, reservation.id):
        return None
    limit_seconds = work.timing(ACKNOWLEDGE)
    parentid = reservation.siblings[0].id if reservation.siblings else reservation.id
    rows = [row for row in work.log_rows((ACKNOWLEDGE,)) if row.reservationid == parentid]
    if not rows:
        # Only a child can come here: the parent wrote its row with the offer. A parent that
        # is done waiting has deleted it, but then the user's address is there too.
        started_ago = work.memo.get("asked_seconds", 0)
    else:
        started_ago = rows[0].age_seconds
    left = limit_seconds - started_ago
    if left > 0:
        pause = left if rows else min(left, 5)
        memo = {**work.memo, "asked_seconds": started_ago if rows else started_ago + pause}
        return Wait(
            seconds=pause + 1,
            reason="waits for the user to press Connect",
            wake_on="acknowledge",
            memo=memo,
        )
    return Outcome(
        reason=f"the user did not press Connect within {limit_seconds} s",
        request="timeout",
        computer="available",
        ending="noack",
        afterwards=(partial(presence.tell_user, work, "timeout_no_acknowledgement"),),
    )


def _start_connection_window(work: Work) -> int:
    """Start the time in which the user has to connect; return how long ago it began."""
    reservation, catalog = work.reservation, work.catalog
    parentid = reservation.siblings[0].id if reservation.siblings else reservation.id
    rows = [row for row in work.log_rows((CONNECT,)) if row.reservationid == parentid]
    entries = [("noinitialconnection", "waiting for the user's first connection")]
    window = (CONNECT, "waiting for a first connection")
    is_for_parent = reservation.request.is_server and reservation.id != parentid
    if not rows and not is_for_parent:
        entries.append(window)

    def start(connection: Connection) -> bool:
        loadlog.delete(connection, catalog, [reservation.id], [ACKNOWLEDGE])
        if not rows and is_for_parent:
            loadlog.add(connection, catalog, parentid, reservation.computer.id, [window])
        return loadlog.add(
            connection,
            catalog,
            reservation.id,
            reservation.computer.id,
            entries,
            token=work.grip.token,
        )

    work.keep_going(work.run(start))
    work.tell(entries)
    return rows[0].age_seconds if rows else 0


def _await_connection(work: Work, started_ago: int) -> Outcome:
    work.step("reserved:connect")
    reservation = work.reservation
    limit_seconds = work.timing(CONNECT)
    found = presence.await_user(work, limit_seconds - started_ago)
    work.run(loadlog.delete, work.catalog, [reservation.id], [CONNECT, RECONNECT])
    if found is None and presence.is_checked(work):
        work.check_unchanged()
        return Outcome(
            reason=f"the user did not connect within {limit_seconds} s",
            request="timeout",
            computer="reserved",
            ending="nologin",
            afterwards=(partial(presence.tell_user, work, "timeout_no_initial_connection"),),
        )
    work.step("reserved:connected")
    _hand_over(work, found)
    if reservation.is_cluster and work.grip.is_parent:
        _await_cluster(work)
    return Outcome(
        reason="the user is connected" if found else "the user's presence is not checked",
        request="inuse",
        computer="inuse",
    )


def _hand_over(work: Work, found: UserConnection | None) -> None:
    """The computer is the user's now: nobody else may have it without a reload."""
    reservation = work.reservation
    work.guest.tag_tainted("a user may have logged in")
    presence.keep_address(work, found)
    work.guest.restrict_access(presence.find_allowed(work), work.connect_methods)
    work.guest.post_initial_connection()
    work.run(reservations.touch, [reservation.id])


def _await_cluster(work: Work) -> None:
    limit_seconds = work.settings.postreserve_timeout_seconds
    failed = cluster.await_rows(work, "postreserve", "granted access", limit_seconds)
    if failed is not None:
        raise ProvisioningError(failed, blame=Blame.NOBODY)
