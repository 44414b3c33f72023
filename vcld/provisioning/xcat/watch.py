"""Judging a load by what is seen of the node: how far it is, whether it moves. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from vcld.provisioning.xcat.failures import (
    ImageBrokenError,
    InstallStuckError,
    NodeNeverBootedError,
)

#: ``nodelist.status`` of a node that has begun to start into its image (nodelist(5)).
MOVING = frozenset({"installing", "netbooting", "booting", "postbooting", "configuring"})
#: What nodestat(1) says of a node that writes its disk: the installer's own word, or, of one
#: that answers a ping and nothing else, what ``nodeset`` set; with fping after ``ping``.
WRITING = re.compile(r"(?:ping )?(?:install|partimage|sysclone)")
MINUTE = 60


class Phase(enum.IntEnum):
    """How far a load is."""

    POWERED = 0
    DHCP = 1
    INSTALLING = 2
    BOOTING = 3
    BOOTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen of a node at one look."""

    currstate: str
    status: str
    statustime: str = ""
    updatestatus: str = ""
    nodestat: str = ""

    def __str__(self) -> str:
        parts = [f"status {self.status or 'unknown'}"]
        if self.statustime:
            parts[0] += f" since {self.statustime}"
        if self.nodestat:
            parts.append(f"nodestat {self.nodestat}")
        parts.append(f"next boot {self.currstate or 'unknown'}")
        return ", ".join(parts)


@dataclass(slots=True, kw_only=True)
class Limits:
    """Seconds."""

    boot_wait: float
    no_progress: float
    overall: float


@dataclass(slots=True)
class Watch:
    """One attempt at a load, from its power cycle on."""

    node: str
    #: As it was before the power cycle.
    before: Sight
    limits: Limits
    began: float
    phase: Phase = Phase.POWERED
    last: Sight | None = None
    #: The DHCP server heard of it.
    is_heard: bool = False
    moved: float = field(init=False)

    def __post_init__(self) -> None:
        self.moved = self.began

    def look(self, sight: Sight, dhcp: list[str], now: float, *, answers: bool = False) -> Phase:
        """Take in what is seen; ``answers``: the guest takes commands.

        Raises:
            ImageBrokenError: xCAT says that the installation failed.
            NodeNeverBootedError, InstallStuckError: a limit is passed.
        """
        if sight != (self.last or self.before) or dhcp:
            self.moved = now
        self.last = sight
        self.is_heard = self.is_heard or bool(dhcp)
        if self._is_news(sight) and sight.status == "failed":
            raise ImageBrokenError(f"the installation failed on {self.node}: {sight}")
        self.phase = max(self.phase, self._phase(sight, dhcp, answers=answers))
        self._check_limits(sight, now)
        return self.phase

    def is_guests_turn(self, sight: Sight) -> bool:
        """True when the installer is at its end and xCAT was not told how it ended."""
        is_told = self._is_news(sight) and sight.status in {"booted", "failed"}
        return sight.currstate == "boot" and not is_told

    def excuse(self, seconds: float) -> None:
        """Time in which nothing could be seen does not count."""
        self.began += seconds
        self.moved += seconds

    def _is_news(self, sight: Sight) -> bool:
        """True when the status was set after the power cycle."""
        return (sight.status, sight.statustime) != (self.before.status, self.before.statustime)

    def _phase(self, sight: Sight, dhcp: list[str], *, answers: bool) -> Phase:
        status = sight.status if self._is_news(sight) else ""
        # What monitoring calls alive may be the installer.
        if status == "booted" or (status == "alive" and not sight.currstate.startswith("install")):
            return Phase.BOOTED
        if sight.currstate == "boot":
            # The installer is at its end. Where the node does not report, its guest must answer.
            return Phase.BOOTED if answers else Phase.BOOTING
        if status in MOVING or WRITING.match(sight.nodestat):
            return Phase.INSTALLING
        return Phase.DHCP if dhcp else Phase.POWERED

    def _check_limits(self, sight: Sight, now: float) -> None:
        if self.phase is Phase.BOOTED:
            return
        if self.phase is Phase.POWERED and now - self.began > self.limits.boot_wait:
            raise NodeNeverBootedError(
                f"{self.node} gave no sign of life within {_minutes(now - self.began)} of its"
                f" power cycle; last seen: {sight}"
            )
        for since, limit, text in (
            (self.moved, self.limits.no_progress, "has not moved for"),
            (self.began, self.limits.overall, "is not loaded after"),
        ):
            if now - since > limit:
                raise InstallStuckError(
                    f"{self.node} {text} {_minutes(now - since)}; last seen: {sight}"
                )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} min"


def limits_for(
    reloadtime_minutes: int, *, boot_wait: float, no_progress: float, overall: float
) -> Limits:
    """Provisioning specification, §9.2: steps 8; 0 means that the site sets none."""
    still = no_progress or max(reloadtime_minutes, 10) * MINUTE
    return Limits(
        boot_wait=min(boot_wait, still) if no_progress else boot_wait,
        no_progress=still,
        overall=overall or max(60 * MINUTE, 2 * still),
    )
