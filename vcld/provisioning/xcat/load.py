"""Loading a blade: define, start, watch (provisioning specification, §9.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from vcld import clock
from vcld.errors import ImageNotFoundError
from vcld.guest.interface import Guest
from vcld.provisioning.leasing import Turn
from vcld.provisioning.xcat import dhcplog, plan, power
from vcld.provisioning.xcat.failures import (
    InstallStuckError,
    NodeNeverBootedError,
    NodeUndefinedError,
    XcatRefusedError,
    XcatUnavailableError,
)
from vcld.provisioning.xcat.plan import Plan
from vcld.provisioning.xcat.site import XcatSite
from vcld.provisioning.xcat.watch import Phase, Sight, Watch, limits_for

ATTEMPTS = 2
#: Controllers (``mgt``) that rsetboot(1) is for, as xCAT's own ``rinstall`` has it, and Redfish
#: (xCAT's pull request 5914). Others, a BladeCenter's among them, refuse it: their nodes start
#: from the network by ``rbootseq``.
SETBOOT_METHODS = frozenset({"ipmi", "openbmc", "redfish"})
#: A cluster's parent must hear of us; the load log's row is also a sign of life.
TELL_SECONDS = 300.0
#: Row of the load log at the entry of each phase: the ``blade`` flow.
ROWS = {
    Phase.DHCP: ("xcatstage1", "{node} asks for its address"),
    Phase.INSTALLING: ("xcatstage5", "{node} installs {image}"),
    Phase.BOOTING: ("bootstate", "the installation of {image} ends, {node} starts from its disk"),
    Phase.BOOTED: ("machinebooted", "{node} has booted {image}"),
}
#: Phases that a load passes though nobody may have looked at that moment.
CERTAIN = frozenset({Phase.INSTALLING, Phase.BOOTING})


class Load:
    """One load of a reservation's image on its blade."""

    def __init__(self, site: XcatSite, guest: Guest) -> None:
        self._site = site
        self._guest = guest
        self._told = Phase.POWERED
        self._told_at = clock.monotonic()

    def run(self) -> None:
        """Load until the node has booted its image; the guest's work comes after."""
        site = self._site
        made = plan.make_plan(site)
        if made is None:
            name = site.reservation.imagerevision.imagename
            raise ImageNotFoundError(f"image {name} is not on this management node")
        self._tell("rinstall", f"preparing the installation of {made.image} on {site.node}")
        definition = site.facts.definition_now()
        check_definition(site.node, definition)
        plan.apply_definition(site, made, definition)
        host = site.reservation.managementnode.hostname
        limit = site.options.throttle
        # Nobody stops an installation because its worker was held up for a moment.
        turn = Turn(limit=limit, wait_seconds=site.options.throttle_wait, is_vital=False)
        what = f"a place among the {limit} loads of {host}"
        with (
            site.leases.take(f"xcat-load:{host}", what, turn),
            boot_from_disk_after_failure(site, made.action),
        ):
            site.changes.set_next_boot(site.node, made.action)
            self._attempts(made, definition)

    def _attempts(self, made: Plan, definition: Mapping[str, str]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._attempt(made, definition, is_first=attempt == 1)
            except (NodeNeverBootedError, InstallStuckError) as err:
                if attempt == ATTEMPTS:
                    msg = f"{err} ({ATTEMPTS} attempts)"
                    raise type(err)(msg, blame=err.blame) from err
                self._tell("info", f"{err}; trying again from the power cycle")
            else:
                return

    def _attempt(self, made: Plan, definition: Mapping[str, str], *, is_first: bool) -> None:
        site = self._site
        before = self._see(since=clock.monotonic())
        if is_first and before.currstate == "boot":
            raise XcatRefusedError(f"nodeset {made.action} has no effect on {site.node}")
        # Opened before the power cycle, so that no early line is lost.
        mac = definition.get("mac", "")
        log = dhcplog.open_log(site.options.syslog, mac, site.runner, site.tools.cancellation)
        if is_first:
            self._tell("xcatstage2", f"restarting {site.node} for the installation of {made.image}")
        if definition.get("mgt") in SETBOOT_METHODS:
            site.changes.boot_from_network(site.node)
        if is_first:
            power.start(site)
        else:
            power.cycle(site)
        # From now on: until the power cycle is done the node can show no sign of life.
        began = clock.monotonic()
        limits = limits_for(
            site.reservation.image.reloadtime_minutes,
            boot_wait=site.options.boot_wait,
            no_progress=site.options.no_progress,
            overall=site.options.load_limit,
        )
        self._watch(made, Watch(site.node, before, limits, began), log)

    def _watch(self, made: Plan, watch: Watch, log: dhcplog.DhcpLog) -> None:
        site = self._site
        while True:
            asked = clock.monotonic()
            sight = self._look(watch)
            now = clock.monotonic()
            answers = watch.is_guests_turn(sight) and self._guest.is_responding()
            phase = watch.look(sight, log.news(), now, answers=answers)
            self._pass(phase, made, is_heard=watch.is_heard)
            if phase is Phase.BOOTED:
                return
            if now - self._told_at > TELL_SECONDS:
                self._tell("info", f"{site.node} is being loaded: {sight}")
            left = site.options.poll - (clock.monotonic() - asked)
            site.tools.cancellation.wait(max(0.05, left))

    def _look(self, watch: Watch) -> Sight:
        """See the node. While xCAT is away, no time passes; while it is only slow, it does."""
        began = clock.monotonic()
        while True:
            asked = clock.monotonic()
            try:
                sight = self._see(max_age=self._site.options.poll * 0.8)
            except XcatUnavailableError as err:
                if clock.monotonic() - began > self._site.options.daemon_patience:
                    raise
                self._site.tools.log.warning("the load is not seen for now", reason=str(err))
                self._site.tools.cancellation.wait(min(self._site.options.poll, 15.0))
                continue
            watch.excuse(asked - began)
            return sight

    def _see(self, *, max_age: float = 0.0, since: float | None = None) -> Sight:
        facts = self._site.facts
        if since is None:
            definition = facts.definition(max_age=max_age)
        else:
            definition = facts.definition_now(since=since)
        nodestat = ""
        with contextlib.suppress(XcatUnavailableError):
            nodestat = facts.node_state(max_age=max_age or self._site.options.poll)
        return Sight(
            currstate=definition.get("currstate", ""),
            status=definition.get("status", ""),
            statustime=definition.get("statustime", ""),
            updatestatus=definition.get("updatestatus", ""),
            nodestat=nodestat,
        )

    def _pass(self, phase: Phase, made: Plan, *, is_heard: bool) -> None:
        """Write the rows of the phases up to this one that were not written yet."""
        certain = CERTAIN | ({Phase.DHCP} if is_heard else set())
        for step in Phase:
            if self._told < step <= phase and (step in certain or step is phase):
                name, text = ROWS[step]
                self._tell(name, text.format(node=self._site.node, image=made.image))
        self._told = max(self._told, phase)

    def _tell(self, name: str, text: str) -> None:
        self._told_at = clock.monotonic()
        self._site.tools.progress(name, text)


@contextlib.contextmanager
def boot_from_disk_after_failure(site: XcatSite, action: str) -> Iterator[None]:
    """A node whose load failed must not install itself at its next start.

    One that is no longer ours is left alone: somebody else may be loading it. ``action``: what
    ``nodeset`` sets meanwhile.
    """
    try:
        yield
    except BaseException:
        if site.leases.is_claimed():
            site.changes.settle("nodeset", action)
            site.xcat.tidy_up("nodeset", site.node, "boot")
        raise


def check_definition(node: str, definition: Mapping[str, str]) -> None:
    """Refuse a node that cannot be installed.

    Raises:
        NodeUndefinedError: what is missing, and the remedy.
    """
    if not definition.get("mac"):
        raise NodeUndefinedError(
            f"xCAT has no MAC address of {node}: chdef -t node -o {node} mac=ADDRESS"
        )
    if not definition.get("mgt"):
        raise NodeUndefinedError(
            f"xCAT does not know how {node} is switched: chdef -t node -o {node} mgt=ipmi"
        )
