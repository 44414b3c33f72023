"""What the commands of the fake xCAT print, after the man pages of xCAT 2."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fake_xcat.nodes import Node
    from tests.fake_xcat.xcat import FakeXcat


#: As in xCAT's issue 3235.
UNDISPATCHED = (
    "Error: Unable to dispatch hierarchical sub-command to sn3:3001.  Error: Connection failure:"
    " IO::Socket::INET: connect: Connection refused at /opt/xcat/lib/perl/xCAT/Client.pm line 248."
)


@dataclass
class Answer:
    """Text for both outputs, the exit code, and what the client does besides."""

    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    code: int = 0
    act: str = ""

    def fail(self, text: str, node: str | None = None) -> None:
        """As xCAT's client prints errors: on stderr, with the node's name where it has one.

        Since 2.14 with that of the server, too (pull request 5119).
        """
        self.err.append(f"{node}: [mn]: Error: {text}" if node else f"Error: [mn]: {text}")
        self.code = 1

    def be_silent(self, node: Node) -> None:
        """As for a node whose controller does not answer; OpenBMC: issues 4403 and 4942."""
        if node.attributes["mgt"] == "openbmc":
            address = node.attributes["bmc"]
            self.fail(
                f"[500] Login to BMC failed: 500 Can't connect to {address}:443 (No route to host).",
                node.name,
            )
            self.fail(
                "BMC did not respond. Validate BMC configuration and retry the command.", node.name
            )
        else:
            self.fail("ERROR: timeout", node.name)


class UsageError(Exception):
    """The arguments are not what the man page says."""


def answer(xcat: FakeXcat, command: str, arguments: list[str]) -> Answer:
    """Run a command."""
    found = Answer()
    try:
        HANDLERS[command](xcat, arguments, found)
    except UsageError as err:
        found.fail(f"{command}: {err}")
    return found


def _nodes(xcat: FakeXcat, noderange: str, found: Answer) -> list[Node]:
    """The nodes of a range of names and groups; unknown ones are an error for the whole."""
    nodes: list[Node] = []
    unknown = []
    for part in filter(None, noderange.split(",")):
        members = [n for n in xcat.nodes.values() if part in n.attributes["groups"].split(",")]
        if part in xcat.nodes:
            nodes.append(xcat.nodes[part])
        elif members:
            nodes += members
        else:
            unknown.append(part)
    if unknown:
        found.fail(f"Invalid nodes and/or groups in noderange: {','.join(unknown)}")
        return []
    return nodes


def _each(
    xcat: FakeXcat,
    command: str,
    arguments: list[str],
    found: Answer,
    work: Callable[[Node], str | None],
) -> None:
    """Do it for each node of the range, unless a fault says otherwise."""
    nodes = _nodes(xcat, arguments[0], found)
    for node in nodes:
        fault = xcat.find_fault(command, node.name, arguments)
        if fault is not None and fault.kind == "lost":
            continue
        if fault is not None and fault.kind == "undispatched":
            found.err += [UNDISPATCHED, "."]
            found.code = 1
            continue
        if fault is not None and fault.kind in {"error", "quiet-error"}:
            found.fail(fault.text, node.name)
            found.code = 0 if fault.kind == "quiet-error" else 1
            continue
        if fault is not None and fault.kind == "lie":
            found.out.append(f"{node.name}: {arguments[1]}")
            continue
        text = work(node)
        if text is not None:
            found.out.append(f"{node.name}: {text}")


def rpower(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    if len(arguments) != 2:
        raise UsageError("Usage: rpower noderange [on|off|reset|boot|stat|state]")
    action = arguments[1]
    if action not in {"on", "off", "softoff", "reset", "boot", "stat", "state", "status"}:
        raise UsageError(f"Unsupported command: rpower {action}")

    def work(node: Node) -> str | None:
        if node.bmc_down:
            found.be_silent(node)
            return None
        return node.switch(action, time.monotonic())

    _each(xcat, "rpower", arguments, found, work)


def rsetboot(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    if len(arguments) != 2:
        raise UsageError("Usage: rsetboot noderange [net|hd|cd|default|stat]")
    names = {"net": "Network", "hd": "Hard Drive"}

    def work(node: Node) -> str | None:
        # No other plugin of xCAT's has the command.
        if node.attributes["mgt"] not in {"ipmi", "openbmc", "redfish", "fsp"}:
            found.fail(
                "Unable to identify plugin for this command, check relevant tables: nodehm.mgt",
                node.name,
            )
            return None
        if node.bmc_down:
            found.be_silent(node)
            return None
        return names.get(arguments[1], "boot override inactive")

    _each(xcat, "rsetboot", arguments, found, work)


def nodestat(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    def work(node: Node) -> str:
        if node.is_unresolved:  # nodestat.pm
            found.out.append(
                f"{node.name}: Please make sure {node.name} exists in /etc/hosts or DNS"
            )
            return "noping"
        return node.nodestat()

    _each(xcat, "nodestat", arguments, found, work)


def nodeset(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    if len(arguments) != 2:
        raise UsageError("Usage: nodeset [noderange] [boot|stat|osimage=<name>|runimage=<task>]")
    action, _, value = arguments[1].partition("=")
    if action == "osimage" and value not in xcat.osimages:
        found.fail(f"Cannot find the OS image {value} on the osimage table.")
        return
    if action == "install" and not xcat.has_old_forms:
        # anaconda.pm, unless site.disablenodesetwarning is set.
        found.fail(
            'The options "install", "netboot", and "statelite" have been deprecated, use'
            ' "nodeset <noderange> osimage=<osimage_name>" instead.'
        )
        return
    if action == "image" and not xcat.has_old_forms:
        found.fail(f"Unknown state {action} requested")
        return
    if action not in {
        "boot",
        "stat",
        "offline",
        "osimage",
        "runimage",
        "shell",
        "install",
        "image",
    }:
        found.fail(f"Unknown state {action} requested")
        return

    def work(node: Node) -> str:
        if action != "stat":
            _set_destiny(xcat, node, action, value)
        if node.is_unresolved:
            # The table is changed, the boot loader's files are not (issue 964).
            found.fail(f"The {node.name} can not be resolved")
        return node.currstate

    _each(xcat, "nodeset", arguments, found, work)
    if xcat.is_dhcp_down and action != "stat":
        # Issues 1461 and 4717: the nodes' lines come nonetheless.
        found.fail("dhcp server is not running.  please start the dhcp server.")


def _set_destiny(xcat: FakeXcat, node: Node, action: str, value: str) -> None:
    facts = node.attributes
    if action == "osimage":
        image = xcat.osimages[value]
        facts.update(provmethod=value, profile=image["profile"], os=image["osvers"])
        facts["arch"] = image["osarch"]
        action = image["provmethod"]
    if action == "sysclone":  # without the profile (destiny.pm, issue 6769)
        facts["currstate"] = f"{action} {facts['os']}-{facts['arch']}"
    elif action in {"install", "image", "netboot"}:
        facts["currstate"] = f"{action} {facts['os']}-{facts['arch']}-{facts['profile']}"
    else:
        facts["currstate"] = f"{action}={value}" if value else action


@dataclass
class Listing:
    """The options of lsdef(1) that this fake knows."""

    kind: str = "node"
    names: str = ""
    wanted: list[str] = field(default_factory=list)
    compressed: bool = False
    short: bool = False

    @classmethod
    def parse(cls, arguments: list[str]) -> Listing:
        made, rest = cls(), list(arguments)
        while rest:
            word = rest.pop(0)
            if word == "-t":
                made.kind = rest.pop(0)
            elif word == "-i":
                made.wanted = rest.pop(0).split(",")
            elif word in {"-c", "-s"}:
                made.compressed, made.short = made.compressed or word == "-c", word == "-s"
            elif word == "-o" or not word.startswith("-"):
                made.names = rest.pop(0) if word == "-o" else word
            elif word not in {"-l", "-a"}:
                raise UsageError(f"Unknown option: {word}")
        if made.compressed and not made.wanted:
            raise UsageError("The '-c' flag must be used with '-i' flag.")
        return made


def _objects(xcat: FakeXcat, kind: str) -> dict[str, dict[str, str]]:
    if kind == "osimage":
        return xcat.osimages
    return {name: node.attributes for name, node in xcat.nodes.items()}


def lsdef(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    asked = Listing.parse(arguments)
    objects = _objects(xcat, asked.kind)
    for name in filter(None, asked.names.split(",")) if asked.names else sorted(objects):
        fault = xcat.find_fault("lsdef", name, arguments)
        if fault is not None and fault.kind == "lost":
            continue
        if name not in objects:
            found.fail(f"Could not find an object named '{name}' of type '{asked.kind}'.")
            continue
        facts = objects[name]
        keys = asked.wanted or sorted(facts)
        if asked.short:
            found.out.append(f"{name}  ({asked.kind})")
        elif asked.compressed:
            found.out += [f"{name}: {key}={facts.get(key, '')}" for key in keys]
        else:
            found.out.append(f"Object name: {name}")
            found.out += [f"    {key}={facts.get(key, '')}" for key in keys]


def chdef(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    _define(xcat, arguments, found, may_make=False)


def mkdef(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    _define(xcat, arguments, found, may_make=True)


def _define(xcat: FakeXcat, arguments: list[str], found: Answer, *, may_make: bool) -> None:
    kind, name, mode, pairs = "node", "", "", []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in {"-t", "-o"}:
            kind, name = (rest.pop(0), name) if word == "-t" else (kind, rest.pop(0))
        elif word in {"-p", "-m"}:
            mode = word
        elif "=" in word:
            key, _, value = word.partition("=")
            pairs.append((key, value))
        elif word.startswith("-"):
            raise UsageError(f"Unknown option: {word}")
        else:
            name = word
    objects = _objects(xcat, kind)
    for one in name.split(","):
        if one not in objects and not may_make:
            found.fail(f"Could not find an object named '{one}' of type '{kind}'.")
            continue
        if one in objects and may_make:
            found.fail(f"A definition for '{one}' already exists.")
            continue
        facts = objects.setdefault(one, {})
        for key, value in pairs:
            facts[key] = _merge(facts.get(key, ""), value, mode)
    if not found.code:
        count = len(name.split(","))
        found.out.append(f"{count} object definitions have been created or modified.")


def _merge(old: str, value: str, mode: str) -> str:
    members, given = [m for m in old.split(",") if m], value.split(",")
    if mode == "-p":
        return ",".join([*members, *(v for v in given if v not in members)])
    if mode == "-m":
        return ",".join(m for m in members if m not in given)
    return value


def nodels(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    nodes = _nodes(xcat, arguments[0], found) if arguments else list(xcat.nodes.values())
    column = arguments[1].partition(".")[2] if len(arguments) > 1 else ""
    for node in nodes:
        value = node.attributes.get(column, "")
        found.out.append(f"{node.name}: {value}" if column else node.name)


def tabdump(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    if arguments != ["site"]:
        raise UsageError("only the site table is kept by this fake")
    found.out.append("#key,value,comments,disable")
    found.out += [f'"{key}","{value}",,' for key, value in sorted(xcat.site.items())]


def makedhcp(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    if arguments and arguments[0] == "-q":
        for node in _nodes(xcat, arguments[1], found):
            if node.name in xcat.without_dhcp:
                continue
            found.out.append(
                f"{node.name}: ip-address = {node.attributes.get('ip', '')}, "
                f"hardware-address = {node.attributes.get('mac', '')}"
            )
    elif arguments:
        _nodes(xcat, arguments[0], found)


def makedns(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    for node in _nodes(xcat, arguments[0], found) if arguments else []:
        found.out.append(f"Handling {node.name} in /etc/hosts.")
    found.out.append("DNS setup is completed")


def rinstall(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    nodes = _nodes(xcat, arguments[0], found)
    if not nodes:
        return
    found.out.append(f"Provision node(s): {' '.join(node.name for node in nodes)}")
    image = next((a for a in arguments[1:] if a.startswith("osimage=")), "osimage=")
    inner = Answer()
    nodeset(xcat, [arguments[0], image], inner)
    if not inner.code:
        rpower(xcat, [arguments[0], "boot"], inner)
    found.out += inner.out
    found.err += inner.err
    if inner.code:
        failed = " ".join(node.name for node in nodes)
        found.fail(f"[mn]: Failed to run 'rpower' against the following nodes: {failed}")


def imgcapture(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    nodes = _nodes(xcat, arguments[0], found)
    if "-o" not in arguments or "-t" not in arguments or len(nodes) != 1:
        raise UsageError("Usage: imgcapture node -t {diskless|sysclone} -o osimage")
    node, name = nodes[0], arguments[arguments.index("-o") + 1]
    if node.phase != "booted":
        found.fail(f"The node {node.name} is not running.", None)
        return
    fault = xcat.find_fault("imgcapture", node.name, arguments)
    if fault is not None:
        found.fail(fault.text)
        return
    how = "sysclone" if "sysclone" in arguments else "netboot"
    xcat.osimages[name] = {  # as in issue 6769
        "profile": "compute" if how == "sysclone" else name, "provmethod": how,
        "osvers": "rhels8", "osarch": "x86_64", "imagetype": "linux",
    }  # fmt: skip
    xcat.note_capture(node, name)
    found.out += [f"Capturing image from {node.name}...", "done."]


def rinv(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    _each(xcat, "rinv", arguments, found, lambda node: "Board manufacturer: FAKE")


def lsxcatd(xcat: FakeXcat, arguments: list[str], found: Answer) -> None:
    found.out.append("Version 2.16.5 (a fake)")


HANDLERS: dict[str, Callable[[FakeXcat, list[str], Answer], None]] = {
    name: made
    for name, made in list(globals().items())
    if callable(made) and re.fullmatch(r"[a-z]+", name) and name not in {"field", "dataclass"}
}
HANDLERS.pop("answer", None)
