"""Switching a node, and making sure that it happened."""

from __future__ import annotations

from vcld import clock
from vcld.errors import LoadTimeoutError
from vcld.provisioning.interface import PowerAction, PowerState
from vcld.provisioning.xcat.site import XcatSite
from vcld.waiting import pauses

#: A command whose effect is not seen is given once more.
COMMANDS = 2


def switch(site: XcatSite, action: PowerAction) -> None:
    """Switch; being so already is success.

    Raises:
        LoadTimeoutError: the controller takes the command and nothing happens.
        BmcUnreachableError: it does not answer.
    """
    if action is PowerAction.RESET:
        start(site)
        return
    wanted = PowerState(action.value)
    if site.facts.power() is wanted:
        return
    for _ in range(COMMANDS):
        since = clock.monotonic()
        site.changes.switch(site.node, action.value)
        if _await(site, wanted, since):
            return
    raise LoadTimeoutError(
        f"{site.node} is not {wanted.value}: rpower {action.value} was accepted {COMMANDS} times"
        f" without effect within {site.options.power_wait:g} s each"
    )


def start(site: XcatSite) -> None:
    """Start anew, whether it is on or off: ``boot``, which rpower(1) recommends over ``cycle``."""
    since = clock.monotonic()
    site.changes.switch(site.node, "boot")
    if not _await(site, PowerState.ON, since):
        switch(site, PowerAction.ON)


def cycle(site: XcatSite) -> None:
    """Take the power away and give it back, for a node that a reset did not bring to life."""
    switch(site, PowerAction.OFF)
    switch(site, PowerAction.ON)


def _await(site: XcatSite, wanted: PowerState, since: float) -> bool:
    deadline = since + site.options.power_wait
    for pause in pauses(0.2, 5.0):
        if site.facts.power(since=since) is wanted:
            return True
        left = deadline - clock.monotonic()
        if left <= 0:
            return False
        site.tools.cancellation.wait(min(pause, left))
        since = clock.monotonic()
    return False
