"""A fake blade: off, in its self test, installing, booting or booted, on set times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a phase of a fake blade lasts, in seconds."""

    post: float = 0.1
    install: float = 0.3
    boot: float = 0.1
    capture: float = 0.3


@dataclass
class Hooks:
    """What happens outside a node when it changes."""

    log: Callable[[str], None] = lambda line: None
    #: A disk was overwritten or the power went.
    down: Callable[[Node, bool], None] = lambda node, wiped: None
    #: A system runs; its image.
    up: Callable[[Node, str], None] = lambda node, image: None
    #: Whether the system still runs; None: nobody shuts it down from inside.
    runs: Callable[[Node], bool] | None = None
    #: An image of the disk is written: how far, 0 to 1.
    capture: Callable[[Node, float], None] = lambda node, share: None


@dataclass
class Node:
    """One node: what the tables say of it, and what it does."""

    name: str
    attributes: dict[str, str]
    times: Times = field(default_factory=Times)
    hooks: Hooks = field(default_factory=Hooks)
    power: str = "off"
    #: off, post, installing, capturing, booting, booted, dead or stuck
    phase: str = "off"
    #: The image on the disk; empty: nothing that boots.
    disk: str = ""
    #: Faults of the hardware: the power is on, and nothing else happens.
    dead: bool = False
    #: The next so many starts end as if it were dead.
    dead_starts: int = 0
    #: The board's controller does not answer.
    bmc_down: bool = False
    #: xCAT cannot find out its address.
    is_unresolved: bool = False
    #: ``rpower off`` is accepted and does nothing.
    stays_on: bool = False
    #: The phase in which it stays for ever.
    stuck_in: str = ""
    #: Starts so far.
    starts: int = 0
    installs: int = 0
    began: float = 0.0

    @property
    def currstate(self) -> str:
        return self.attributes.get("currstate", "boot")

    def set_status(self, status: str) -> None:
        """As ``nodelist.status``, with the time of the change, to the second."""
        self.attributes["status"] = status
        self.attributes["statustime"] = time.strftime("%m-%d-%Y %H:%M:%S")

    def switch(self, action: str, now: float) -> str:
        """Do what ``rpower`` asks; return what it prints."""
        if action in {"stat", "state", "status"}:
            return self.power
        if action in {"off", "softoff"}:
            if self.power == "on" and not self.stays_on:
                self.power, self.phase = "off", "off"
                self.set_status("powering-off")
                self.hooks.down(self, False)
            return "off"
        if action == "on" and self.power == "on":
            return "on"
        was_off = self.power == "off"
        self.power = "on"
        self.starts += 1
        self.set_status("powering-on")
        self.hooks.down(self, False)
        self._enter("post", now)
        if self.dead or self.dead_starts > 0:
            self.dead_starts -= 1
            self.phase = "dead"
        if action == "boot":
            return "off on" if was_off else "on reset"
        return action

    def advance(self, now: float) -> None:
        """Let pass what the time allows."""
        if self.phase == self.stuck_in:
            return
        past = now - self.began
        if self.phase == "post" and past >= self.times.post:
            self._after_post(now)
        elif self.phase == "installing" and past >= self.times.install:
            self._end_install(now)
        elif self.phase == "capturing":
            self.hooks.capture(self, min(1.0, past / self.times.capture))
            if past >= self.times.capture:
                self.attributes["currstate"] = "boot"
                self._enter("booting", now)
        elif self.phase == "booted" and past >= 0.2 and self.hooks.runs is not None:
            self.began = now
            if not self.hooks.runs(self):
                self.power, self.phase = "off", "off"
        elif self.phase == "booting" and past >= self.times.boot:
            self._end_boot(now)

    def nodestat(self) -> str:
        """As ``nodestat`` shows it: ports first, then what the installer or the chain says."""
        if self.phase in {"off", "post", "dead"}:
            return "noping"
        if self.phase == "installing" and self.currstate.startswith("sysclone"):
            return self.currstate  # nodestat.pm asks for an installer's word after "install" only
        if self.phase == "installing":
            return "installing post scripts" if "install" in self.stuck_in else "installing prep"
        if self.phase == "capturing":
            return "partimage"
        return "sshd" if self.phase == "booted" else "noping"

    def _enter(self, phase: str, now: float) -> None:
        self.phase, self.began = phase, now

    def _after_post(self, now: float) -> None:
        self._tell_dhcp()
        verb, _, _ = self.currstate.partition(" ")
        verb = verb.partition("=")[0]
        if verb in {"install", "sysclone"}:
            self.installs += 1
            self.disk = ""
            self.hooks.down(self, True)
            if verb == "install":
                self.set_status("installing")
            self._enter("installing", now)
        elif verb in {"image", "runimage"}:
            self._enter("capturing", now)
        elif verb == "netboot":
            self.set_status("netbooting")
            self.disk = self.attributes.get("profile", "")
            self._enter("booting", now)
        else:
            self._enter("booting", now)

    def _end_install(self, now: float) -> None:
        if self.attributes.get("profile", "").startswith("broken"):
            self.set_status("failed")
            self._enter("stuck", now)
            return
        is_clone = self.currstate.startswith("sysclone")
        self.disk = self.attributes.get("provmethod" if is_clone else "profile", "")
        self.attributes["currstate"] = "boot"
        self.set_status("booting")
        self._enter("booting", now)

    def _end_boot(self, now: float) -> None:
        if not self.disk:
            self._enter("stuck", now)
            return
        self.set_status("booted")
        self._enter("booted", now)
        self.hooks.up(self, self.disk)

    def _tell_dhcp(self) -> None:
        mac, ip = self.attributes.get("mac", ""), self.attributes.get("ip", "10.0.0.9")
        stamp = time.strftime("%b %e %H:%M:%S")
        for text in (
            f"DHCPDISCOVER from {mac} via eth1",
            f"DHCPOFFER on {ip} to {mac} via eth1",
            f"DHCPREQUEST for {ip} (10.0.0.1) from {mac} via eth1",
            f"DHCPACK on {ip} to {mac} via eth1",
        ):
            self.hooks.log(f"{stamp} mn dhcpd[812]: {text}")
