"""What an operator may ask before trusting a blade: does xCAT know it, would a load work?

Nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vcld.errors import ProvisioningError
from vcld.provisioning.xcat import parsing, plan
from vcld.provisioning.xcat.load import SETBOOT_METHODS, check_definition
from vcld.provisioning.xcat.site import NodeSite
from vcld.store.blades import Blade

MODULE = "provisioning_xcat"
#: Beginnings of what a node does at its next start instead of using its disk as it is.
REWRITES = ("install", "image", "sysclone", "runimage")


@dataclass(slots=True, kw_only=True)
class NodeCheck:
    """What was found out about a node."""

    node: str
    power: str = "unknown"
    nodestat: str = ""
    status: str = ""
    next_boot: str = ""
    groups: str = ""
    #: A sentence each, with the remedy.
    problems: list[str] = field(default_factory=list)


def check_node(site: NodeSite, blade: Blade | None) -> NodeCheck:
    """Ask xCAT, the node's controller and VCL's own row."""
    found = NodeCheck(node=site.node)
    if blade is None:
        found.problems.append(
            f"VCL has no computer {site.node!r}: a node is called like its computer's hostname"
            " without the domain"
        )
    elif blade.provisioning_module != MODULE:
        found.problems.append(
            f"VCL does not load {site.node} with xCAT, but with {blade.provisioning_module}"
        )
    try:
        definition = site.facts.definition_now()
        found.status, found.groups = definition.get("status", ""), definition.get("groups", "")
        found.next_boot = definition.get("currstate", "")
        found.problems += _definition_problems(site.node, definition, blade)
        if not site.xcat.dhcp_knows(site.node):
            found.problems.append(
                f"the DHCP server does not know {site.node}: makedhcp {site.node}"
            )
        found.nodestat = site.facts.node_state(max_age=site.options.poll)
        if found.nodestat.startswith(parsing.UNRESOLVED):
            found.problems.append(
                f"xCAT finds no address of {site.node}: makehosts {site.node}, makedns {site.node}"
            )
        found.power = site.facts.power().value
    except ProvisioningError as err:
        found.problems.append(str(err))
    return found


def site_warnings(site: NodeSite) -> list[str]:
    """What VCL's variables and xCAT's own settings mean for loads, a sentence each."""
    warnings = list(site.options.nonsense)
    try:
        table = site.xcat.site_table()
    except ProvisioningError as err:
        return [*warnings, str(err)]
    if not table.get("master"):
        warnings.append("xCAT's site table has no master: chdef -t site master=ADDRESS")
    if table.get("nodestatus", "y").lower() in {"0", "n", "no"}:
        warnings.append(
            "nodes do not report their status (site.nodestatus): the end of a load is seen only"
            " when the guest answers"
        )
    syslog = site.options.syslog
    if syslog not in {"", "none", "journal"} and not Path(syslog).is_file():
        warnings.append(
            f"variable xcat|syslog: there is no file {syslog}, so DHCP requests of nodes are not"
            " seen; write journal where there is none"
        )
    return warnings


def _definition_problems(node: str, definition: dict[str, str], blade: Blade | None) -> list[str]:
    problems = []
    try:
        check_definition(node, definition)
    except ProvisioningError as err:
        problems.append(str(err))
    mac = definition.get("mac", "").lower()
    known = ((blade.eth0macaddress if blade else None) or "").lower()
    if mac and known and known not in mac:
        problems.append(f"xCAT has MAC address {mac} for {node}, VCL has {known}")
    installs = definition.get("currstate", "").startswith(REWRITES)
    if installs and not (blade and blade.is_busy):
        problems.append(
            f"{node} would install itself, or run a task, at its next start: nodeset {node} boot"
        )
    return problems


def rehearse(site: NodeSite) -> list[str]:
    """The commands that a load of the wanted image would run, in their order.

    Raises:
        ProvisioningError: it would fail; why.
    """
    made = plan.make_plan(site)
    image = site.wanted.imagename
    if made is None:
        return [f"# {image} is not here: partner management nodes would be asked for it"]
    definition = site.facts.definition_now()
    check_definition(site.node, definition)
    commands = []
    if made.osimage:
        pairs = " ".join(f"{key}={value}" for key, value in made.osimage.items())
        commands.append(f"mkdef -t osimage -o {image} {pairs}")
    changed = made.differences(definition)
    if changed:
        pairs = " ".join(f"{key}={value}" for key, value in changed.items())
        commands.append(f"chdef -t node -o {site.node} {pairs}")
    groups = definition.get("groups", "").split(",")
    if made.group not in groups:
        commands.append(f"chdef -t node -o {site.node} -p groups={made.group}")
    if plan.CAPTURE_GROUP in groups and made.group != plan.CAPTURE_GROUP:
        commands.append(f"chdef -t node -o {site.node} -m groups={plan.CAPTURE_GROUP}")
    commands.append(f"nodeset {site.node} {made.action}")
    if definition.get("mgt") in SETBOOT_METHODS:
        commands.append(f"rsetboot {site.node} net")
    commands.append(f"rpower {site.node} boot")
    return commands
