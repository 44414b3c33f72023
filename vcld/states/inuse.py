"""inuse, imageinuse, rebootsoft, reboothard, servermodified: a user has the computer.

VCL daemon specification §8.3. Between two looks, between two notices before the end, and
while an absent user is waited for, no process is held.
"""

from __future__ import annotations

import math

from vcld import clock
from vcld.errors import ProvisioningError
from vcld.states import accounts, presence
from vcld.states.capture_call import capture_at_end
from vcld.states.outcome import Outcome, Result, Wait
from vcld.states.work import Work
from vcld.store import notices, requests

RECONNECT = "reconnecttimeout"
#: The end is attended to this long before the first notice, as the Perl daemon does.
END_PHASE_AHEAD_SECONDS = 360
#: Longest sleep between two looks at a request's end or at an absent user.
LOOK_SECONDS = 60
DAY_SECONDS = 86400
#: Before the end of a long reservation its user is told once, when so much is left.
FUTURE_NOTICES = (
    (DAY_SECONDS, "24 hours"),
    (2 * DAY_SECONDS, "2 days"),
    (7 * DAY_SECONDS, "1 week"),
    (14 * DAY_SECONDS, "2 weeks"),
)
#: A notice that could not go out in this time is not sent late.
FUTURE_NOTICE_WINDOW_SECONDS = 3600


def run(work: Work) -> Result:
    """Look after a session."""
    work.step("inuse:start")
    state = work.grip.state
    if state in {"rebootsoft", "reboothard"}:
        return _reboot(work)
    if state == "servermodified":
        work.step("inuse:accounts")
        work.guest.sync_accounts(accounts.prepare_accounts(work))
        return _goes_on("the accounts were changed")
    left = _seconds_left(work)
    first_minutes = work.timing("general_end_notice_first") // 60
    if "grace_seconds" in work.memo or left // 60 <= first_minutes + END_PHASE_AHEAD_SECONDS // 60:
        return _end(work, left)
    return _look_after(work, left)


def _seconds_left(work: Work) -> int:
    left = work.run(requests.seconds_to_end, work.grip.requestid)
    if left is not None:
        return left
    # An end that was never set is over since it was first seen.
    now = clock.utc_now().timestamp()
    if "endless_since" not in work.memo:
        work.remember(endless_since=now)
    return int(work.memo["endless_since"] - now)


def _goes_on(reason: str) -> Outcome:
    return Outcome(reason=reason, request="inuse", computer="inuse")


def _reboot(work: Work) -> Outcome:
    work.step("inuse:reboot")
    try:
        work.guest.reboot(hard=work.grip.state == "reboothard")
        # What the user comes in by may not come back by itself.
        work.guest.restrict_access(presence.find_allowed(work), work.connect_methods)
    except ProvisioningError as err:
        work.log.error("the computer could not be restarted", reason=str(err))
        return _goes_on(f"the computer could not be restarted: {err}")
    return _goes_on("the computer was restarted")


def _end(work: Work, left: int) -> Result:
    """Give the notices before the end, then end the session."""
    work.step("inuse:end")
    if not work.grip.is_parent:
        return Outcome(reason="the cluster's parent attends to the end")
    first = work.timing("general_end_notice_first")
    end = str(work.reservation.request.end or "")
    if "grace_seconds" not in work.memo:
        # A daemon that comes late, after an outage, still gives the full notice.
        work.remember(grace_seconds=max(0, first - left), end=end, told=[])
    if end > work.memo["end"]:
        return _goes_on("the end of the reservation was moved")
    effective = left + int(work.memo["grace_seconds"])
    told = list(work.memo["told"])
    for name, seconds in (
        ("first", first),
        ("second", work.timing("general_end_notice_second")),
    ):
        if effective > seconds:
            return _until(work, effective - seconds)
        if name not in told:
            _tell_end_is_near(work, math.ceil(effective / 60))
            told.append(name)
            work.remember(told=told)
    if effective > 0:
        return _until(work, effective)
    return _finish(work)


def _until(work: Work, seconds: float) -> Wait:
    return Wait(
        seconds=min(seconds, LOOK_SECONDS),
        reason="waits for the next notice before the end",
        memo=work.memo,
    )


def _tell_end_is_near(work: Work, minutes: int) -> None:
    if minutes <= 0:
        return
    imaging = work.reservation.request.forimaging
    key = "endtime_imminent_imaging" if imaging else "endtime_imminent"
    interval = f"{minutes} minute{'' if minutes == 1 else 's'}"
    text = work.notices.user(work.reservation, key, notice_interval=interval)
    _tell_console(work, text)


def _tell_console(work: Work, text: str | None) -> None:
    if not text:
        return
    try:
        work.guest.notify_console(text)
    except ProvisioningError as err:
        work.log.warning("the user could not be told on the console", reason=str(err))


def _finish(work: Work) -> Outcome:
    work.step("inuse:finish")
    request = work.reservation.request
    key = "endtime_reached_imaging" if request.forimaging else "endtime_reached"
    work.notices.user(work.reservation, key)
    if request.forimaging and not work.reservation.is_cluster:
        return capture_at_end(work)
    return Outcome(
        reason="the end of the reservation is reached",
        request="timeout",
        computer="timeout",
        ending="EOR",
    )


def _look_after(work: Work, left: int) -> Result:
    """One look at a running session."""
    reservation = work.reservation
    if work.grip.is_parent and reservation.request.duration_seconds >= DAY_SECONDS:
        _tell_future_end(work, left)
    work.step("inuse:look")
    if not work.guest.is_responding():
        return _goes_on("the computer does not answer; the session is left alone")
    work.guest.restrict_access(presence.find_allowed(work), work.connect_methods)
    reconnect = work.timing(RECONNECT)
    if left < reconnect + work.timing("general_end_notice_first"):
        return _goes_on("too close to its end for a check of the user's presence")
    if reservation.is_cluster or not _is_presence_checked(work):
        return _goes_on("the user's presence is not checked")
    return _check_presence(work, reconnect)


def _is_presence_checked(work: Work) -> bool:
    request = work.reservation.request
    return (
        presence.is_checked(work)
        and not request.is_server
        and not request.forimaging
        and request.duration_seconds <= DAY_SECONDS
    )


def _check_presence(work: Work, limit_seconds: int) -> Result:
    work.step("inuse:presence")
    if presence.await_user(work, 0) is not None:
        return _goes_on("the user is connected")
    rows = [r for r in work.log_rows((RECONNECT,)) if r.reservationid == work.reservation.id]
    if not rows:
        work.progress(RECONNECT, "the user is not connected")
    left = limit_seconds - (rows[0].age_seconds if rows else 0)
    if left > 0:
        return Wait(
            seconds=min(left, LOOK_SECONDS),
            reason=f"the user is away; the session ends in {left} s",
            memo=work.memo,
        )
    work.check_unchanged()
    presence.tell_user(work, "timeout_inactivity")
    return Outcome(
        reason=f"the user was away for {limit_seconds} s",
        request="timeout",
        computer="inuse",
        ending="timeout",
    )


def _tell_future_end(work: Work, left: int) -> None:
    for seconds, interval in FUTURE_NOTICES:
        if seconds - FUTURE_NOTICE_WINDOW_SECONDS < left <= seconds:
            request = work.reservation.request
            name = f"{interval} before {request.end}"
            if work.run(notices.is_first, request.id, name):
                work.notices.user(work.reservation, "future_endtime", notice_interval=interval)
