"""What the accounting says of a VM, its owner and its host, from a reservation's snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape, unescape

from vcld.accounting.tables import fitting
from vcld.provisioning.interface import Placement, default_placement
from vcld.snapshot import Reservation

#: Characters that no XML document may hold, in whatever spelling.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Where VMs run: a VM host, or a blade, which is its own host."""

    oid: int
    hostname: str
    #: provisioning.name
    provisioning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """A reservation as a VM."""

    oid: int
    uid: int
    user_name: str
    name: str
    memory_kib: int
    #: 100 a core.
    cpu_percent: int
    template: str
    #: The part of the template that only a VM of this request has.
    mark: str
    host: HostFacts
    placement: Placement


def facts_of(reservation: Reservation) -> VmFacts:
    """Describe a reservation as the accounting sees it."""
    computer, user = reservation.computer, reservation.request.user
    vmhost = computer.vmhost
    host = HostFacts(
        oid=vmhost.computerid if vmhost else computer.id,
        hostname=vmhost.hostname if vmhost else computer.hostname,
        provisioning=computer.provisioning,
    )
    return VmFacts(
        oid=reservation.id,
        uid=user.id,
        user_name=full_name(user.unityid, user.affiliation.name),
        name=vm_name(reservation.image.prettyname, computer.shortname),
        memory_kib=fitting(computer.ram_mib * 1024),
        cpu_percent=fitting(computer.procnumber * 100),
        template=_template(reservation),
        mark=_mark(reservation),
        host=host,
        placement=default_placement(reservation),
    )


def full_name(unityid: str, affiliation: str) -> str:
    """The user with the affiliation, which alone makes a name unique in VCL."""
    return unityid if "@" in unityid or not affiliation else f"{unityid}@{affiliation}"


def vm_name(prettyname: str, shortname: str) -> str:
    """The name of a VM; it may be put into XML as it is."""
    return safe(f"{prettyname} on {shortname}")


def safe(text: str) -> str:
    """The text as the content of an XML element or attribute."""
    return escape(_NO_XML.sub("", text), {'"': "&quot;", "'": "&apos;"})


def plain_name(text: str | None) -> str:
    """A name that was made safe for XML, as people read it."""
    return unescape(text or "", {"&quot;": '"', "&apos;": "'"})


def template(pairs: Iterable[tuple[str, object]]) -> str:
    """The XML of a template; what is None is left out."""
    return f"<TEMPLATE>{_elements(pairs)}</TEMPLATE>"


def _elements(pairs: Iterable[tuple[str, object]]) -> str:
    return "".join(
        f"<{name}>{safe(str(value))}</{name}>" for name, value in pairs if value is not None
    )


def allocation(cores: int, ram_mib: int) -> tuple[tuple[str, int], ...]:
    """What the VM was given, for its template: ``vm_pool`` may come to hold what it uses."""
    return (("ALLOCATED_CPU", cores), ("ALLOCATED_MEMORY", ram_mib))


def _identity(reservation: Reservation) -> tuple[tuple[str, int | None], ...]:
    """What tells a VM from another that was given the same id: ``log.id`` never comes again."""
    request = reservation.request
    return (
        ("REQUEST_ID", request.id),
        ("RESERVATION_ID", reservation.id),
        ("LOG_ID", request.logid),
    )


def _mark(reservation: Reservation) -> str:
    return _elements(_identity(reservation))


def _template(reservation: Reservation) -> str:
    image, request = reservation.image, reservation.request
    parent = reservation.siblings[0].id if reservation.is_cluster else None
    return template(
        (
            ("IMAGE", image.prettyname),
            ("IMAGE_ID", image.id),
            ("REVISION", reservation.imagerevision.revision),
            ("REVISION_ID", reservation.imagerevision.id),
            *_identity(reservation),
            ("COMPUTER", reservation.computer.hostname),
            ("COMPUTER_ID", reservation.computer.id),
            ("CPU", image.minprocnumber),
            ("MEMORY", image.minram_mib),
            *allocation(reservation.computer.procnumber, reservation.computer.ram_mib),
            ("OWNER", full_name(request.user.unityid, request.user.affiliation.name)),
            ("CLUSTER_PARENT", parent),
            ("SERVER_REQUEST", request.server.name if request.server else None),
        )
    )
