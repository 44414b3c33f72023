"""What happens as a worker passes a named step: a delay, a failure, a death."""

from __future__ import annotations

import hashlib
import math
import os
import signal as signals
from collections.abc import Callable
from dataclasses import astuple

from vcld.errors import Blame, ProvisioningError
from vcld.guest.simulated_world import World
from vcld.guest.simulator_checks import find_error
from vcld.guest.simulator_script import Rule
from vcld.snapshot import Reservation
from vcld.waiting import Cancellation

#: A delay longer than this is told of while it lasts.
QUIET_SECONDS = 1.0
#: How often at most and at least; a cluster's parent must hear of us every 30 minutes.
PARTS, LONGEST_PART_SECONDS = 4, 600.0


def pass_step(
    world: World,
    step: str,
    reservation: Reservation,
    cancellation: Cancellation,
    tell: Callable[[int], None] | None = None,
) -> None:
    """Let happen what the script says: first the rules, then the delay.

    ``tell`` is called with the percentage that is over, now and then during a long delay.

    Raises:
        VcldError: the script wants one.
        WorkerStopped: the worker was told to stop, even where there is no delay.
    """
    for rule in world.script.rules:
        if rule.concerns(step, reservation) and _happens(world, rule, reservation.id):
            _strike(rule, cancellation)
    seconds = world.script.delay_seconds(step, reservation)
    parts = 1
    if tell is not None and seconds > QUIET_SECONDS:
        parts = max(PARTS, math.ceil(seconds / LONGEST_PART_SECONDS))
    for part in range(parts):
        if part and tell is not None:
            tell(100 * part // parts)
        cancellation.wait(seconds / parts)


def pass_host_step(
    world: World, step: str, name: str, key: int, cancellation: Cancellation
) -> None:
    """The same for a step of a host, which no reservation takes; ``key`` is the computer's id.

    Raises:
        VcldError: the script wants one.
        WorkerStopped: the work was told to stop.
    """
    for rule in world.script.rules:
        if rule.concerns_host(step, name) and _happens(world, rule, key):
            _strike(rule, cancellation)
    cancellation.wait(world.script.host_delay_seconds(step, name))


def _happens(world: World, rule: Rule, key: int) -> bool:
    chancy = 0.0 < rule.probability < 1.0
    if rule.times is None and not (chancy and world.script.seed is not None):
        return world.script.draw() < rule.probability
    # Counted before the rule strikes: the process may not live to do it afterwards.
    identity = repr(astuple(rule))
    name = f"rule-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"
    with world.documents.change(name) as counts:
        passes = counts[str(key)] = counts.get(str(key), 0) + 1
        if world.script.draw(identity, key, passes) >= rule.probability:
            return False
        if rule.times is not None and counts.get("happened", 0) >= rule.times:
            return False
        counts["happened"] = counts.get("happened", 0) + 1
    return True


def _strike(rule: Rule, cancellation: Cancellation) -> None:
    if rule.signal is not None:
        os.kill(os.getpid(), signals.Signals[f"SIG{rule.signal}"])
    while rule.hang:
        cancellation.wait(3600)
    kind = find_error(rule.error)
    if kind is None:
        return
    if rule.blame is not None and issubclass(kind, ProvisioningError):
        raise kind(rule.message, blame=Blame[rule.blame])
    raise kind(rule.message)
