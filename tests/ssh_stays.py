"""Stays of users on Linux computers, through the daemon: the steps that many tests begin with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.daemon import Daemon, Daemons, eventually
from tests.site import Site
from tests.ssh_hosts import Host, Login, Network
from tests.ssh_site import TAGS, password_of, press_connect, until_reserved, use_linux


@dataclass
class LinuxSite:
    """A site with one Linux computer, and two users' computers: ``home`` and ``elsewhere``."""

    site: Site
    daemons: Daemons
    network: Network
    home: str = ""
    elsewhere: str = ""
    daemon: Daemon = field(init=False)
    host: Host = field(init=False)

    def install(self, *, kind: str = "virtualmachine", prepare: str = "") -> LinuxSite:
        """Make the hosts; the computer's disk holds the image that requests ask for."""
        self.host = self.network.host("vm1", prepare=f"{TAGS}\n{prepare}")
        self.home = self.network.client("home", 201)
        self.elsewhere = self.network.client("elsewhere", 202)
        use_linux(self.site, self.network, self.host, kind=kind)
        return self

    def start(self, **settings: Any) -> LinuxSite:
        self.daemon = self.daemons.start(**settings)
        return self

    def reserve(self, **facts: Any) -> int:
        """Ask for the computer and wait until it is offered; the request's id."""
        request = self.site.ask("new", 1, **facts)
        until_reserved(self.site, 1, self.daemon.describe)
        return request

    def open(self, request: int, client: str = "home") -> None:
        """Press Connect and wait until the computer lets this client in."""
        press_connect(self.site, request, self.home)
        self.until(lambda: self.network.reaches(client, self.host.public))

    def log_in(
        self, request: int, client: str = "home", user: str = "ada", command: str = "exec sh"
    ) -> Login:
        """The user's own ssh, with the password that the web site shows."""
        password = password_of(self.site, request)
        return Login(self.network, client, user, self.host.public, password, command=command)

    def until_pair(self, request: int, pair: str) -> None:
        self.until(lambda: self.site.pair(request) == pair)

    def until(self, condition: Any, limit_seconds: float = 60) -> None:
        eventually(condition, self.daemon.describe, limit_seconds)

    def reason_of(self, request: int) -> str:
        """Why it failed, as the web site tells the user."""
        log = self.site.load_log(request)
        return next(text for name, text in reversed(log) if name == "failed")
