"""Everything about xCAT for one node, put together once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vcld.config import Settings
from vcld.errors import ConfigError, StoreError
from vcld.guest.interface import Tools
from vcld.provisioning.leasing import Leases, Renewing
from vcld.provisioning.xcat.changes import Changes
from vcld.provisioning.xcat.client import Xcat
from vcld.provisioning.xcat.facts import NodeFacts
from vcld.provisioning.xcat.options import Options
from vcld.provisioning.xcat.repository import Repository
from vcld.provisioning.xcat.runner import LocalRunner, Runner
from vcld.provisioning.xcat.servicenode import SshRunner, parse_servers
from vcld.provisioning.xcat.tries import WITNESSES
from vcld.snapshot import ManagementNode, Reservation
from vcld.store import blades
from vcld.store.blades import WantedImage
from vcld.waiting import Cancellation

#: States of requests that make the image they name.
CAPTURE_STATES = frozenset({"image", "checkpoint"})


class NodeSite:
    """The commands, one node, and the images it may get."""

    def __init__(
        self,
        node: str,
        wanted: WantedImage,
        host: ManagementNode,
        *,
        settings: Settings,
        variables: Callable[[str], str | None],
        cancellation: Cancellation,
        log: Any,
        runner: Runner | None = None,
    ) -> None:
        """``runner``: that of another node's, to be shared."""
        self.node = node
        self.wanted = wanted
        self._folder = shared_folder(settings)
        self._log = log
        self.options = Options.read(variables, host.hostname)
        self.runner = runner or make_runner(self.options, host, settings, log)
        self.xcat = Xcat(self.runner, self.options, cancellation, log)
        self.repository = Repository(host.installpath, wanted, self.options.root)

    @cached_property
    def facts(self) -> NodeFacts:
        """Made when it is needed: a node that is only put aside need not be one for xCAT."""
        return NodeFacts(self.xcat, self._folder, self.node, self._log, self.others)

    def others(self) -> Sequence[str]:
        """Names of some other nodes, for a look whether they answer."""
        return ()

    @cached_property
    def changes(self) -> Changes:
        """What may be done to the node."""
        return Changes(self.xcat, self._folder, self.facts.neighbours)


class XcatSite(NodeSite):
    """The same for a reservation."""

    def __init__(self, reservation: Reservation, tools: Tools) -> None:
        leases = Leases(reservation, tools)
        # Whatever waits for xCAT, or for a node, renews the leases that are held meanwhile.
        tools = replace(tools, cancellation=Renewing(tools.cancellation, leases.tick))
        super().__init__(
            reservation.computer.node_name,
            wanted_image(reservation),
            reservation.managementnode,
            settings=tools.settings,
            variables=tools.variables,
            cancellation=tools.cancellation,
            log=tools.log,
        )
        self.reservation = reservation
        self.tools = tools
        self.leases = leases

    def others(self) -> Sequence[str]:
        module = self.reservation.computer.provisioning_module
        try:
            found: list[str] = self.tools.run(blades.find_others, self.node, module, WITNESSES)
        except StoreError:
            return ()
        return found


def wanted_image(reservation: Reservation) -> WantedImage:
    """The reservation's image revision."""
    image = reservation.image
    return WantedImage(
        imagename=reservation.imagerevision.imagename,
        architecture=image.architecture,
        os_name=image.os_name,
        os_type=image.os_type,
        os_installtype=image.os_installtype,
        os_sourcepath=image.os_sourcepath,
        project=image.project,
        is_new=reservation.request.state in CAPTURE_STATES,
    )


def make_runner(options: Options, host: ManagementNode, settings: Settings, log: Any) -> Runner:
    """Where the site's xCAT commands run: on this machine, or where the site says.

    One machine for all nodes, as with xCAT's own variable XCATHOST: xCAT passes on by itself
    what the service node of a node must do (its attribute ``servicenode``, node(7)).

    Raises:
        ConfigError: the variable cannot be read, or there is no key to log in with.
    """
    servers = parse_servers(options.servicenode, host.keys)
    if not servers:
        return LocalRunner(options.root)
    if not host.keys:
        raise ConfigError(
            f"variable xcat|servicenode is set, but {host.hostname} has no private key to log in"
            " with: fill in its managementnode.keys"
        )
    return SshRunner(
        servers,
        options.root,
        Path(f"{host.keys[0]}.known_hosts"),
        connect_seconds=settings.ssh_connect_timeout_seconds,
        log=log,
    )


def shared_folder(settings: Settings) -> Path:
    """Where workers of this daemon share answers."""
    return settings.pid_path.parent / f"{settings.processname}-xcat"
