"""What the accounting asks of a provisioner: how much of a host, and of its VMs, is in use.

Optional: a provisioner without a probe is accounted for by what VCL says of its computers.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vcld.config import Settings
from vcld.snapshot import VMHost
from vcld.waiting import Cancellation


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUsage:
    """A host as it was just measured; None for what it does not tell."""

    #: 100 a core.
    max_cpu_percent: int | None = None
    used_cpu_percent: int | None = None
    max_memory_kib: int | None = None
    used_memory_kib: int | None = None
    #: Of all the datastores that VMs are put on.
    max_disk_mib: int | None = None
    used_disk_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmUsage:
    """A VM as it was just measured; None for what the host does not tell."""

    #: 100 for one core that is fully busy.
    cpu_percent: int | None = None
    memory_kib: int | None = None
    #: Since the VM was made.
    sent_kib: int | None = None
    received_kib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one probe found."""

    host: HostUsage
    #: By reservation id; a VM that is left out keeps its last figures.
    vms: Mapping[int, VmUsage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedVm:
    """A VM that the accounting believes to be on the host."""

    reservationid: int
    #: What VCL calls its computer, and what ``Placement.deploy_id`` said of it.
    node_name: str
    deploy_id: str
    ram_mib: int
    procnumber: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedHost:
    """A VM host, or a computer that is its own host, as VCL describes it."""

    computerid: int
    hostname: str
    IPaddress: str
    privateIPaddress: str | None
    ram_mib: int
    procnumber: int
    #: With its profile and credentials; None for a computer that is no VM host.
    vmhost: VMHost | None
    #: Where the profile's password is a secret of the web site: its key, encrypted for this node.
    secret: str | None = field(default=None, repr=False)
    vms: tuple[ProbedVm, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTools:
    """What the daemon lends to a probe."""

    settings: Settings
    #: Stops the probe when its time is over.
    cancellation: Cancellation
    #: The host counts as failed when no answer has come by then.
    limit_seconds: float
    log: Any


class HostProbe(abc.ABC):
    """Measures one host, once.

    Runs in a process of its own beside the probes of other hosts, each in a thread, so it
    must not change what is common to the process: signals, environment, working directory.
    """

    def __init__(self, host: ProbedHost, tools: ProbeTools) -> None:
        self.host = host
        self.tools = tools

    @abc.abstractmethod
    def measure(self) -> Measurement:
        """Ask the host.

        Raises:
            ProvisioningError: it does not answer, or not to us.
        """
