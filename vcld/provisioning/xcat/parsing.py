"""What xCAT's commands print, as data. One parser for each form of output; all are pure.

xCAT's client prints a line ``NODE: TEXT`` for each node, errors as ``NODE: Error: TEXT`` or, from
a plugin, ``NODE: [SERVER]: Error: TEXT``, and errors of the whole as ``Error: TEXT``. They come on
either stream, with exit code 0 or 1. Source: ``handle_response`` in xCAT's Client.pm, and the man
pages that each parser names.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vcld.programs import Output
from vcld.provisioning.interface import PowerState

_NODE = r"(?P<node>[A-Za-z0-9][\w.-]*)"
_NODE_ERROR = re.compile(
    rf"^{_NODE}: (?:\[[^\]]*\]: ?)?(?:Error|ERROR)\s*:\s*(?P<text>.*)$", re.ASCII
)
#: nodestat(1) shows columns, ``node1   sshd``, where the client prints ``node1: sshd``; with
#: XCATSHOWSVR in the environment ``node1: [SERVER]: sshd``.
_NODE_LINE = re.compile(rf"^{_NODE}(?:: ?|[ \t]{{2,}})(?:\[[^\]]*\]: ?)?(?P<text>.*)$", re.ASCII)
#: nodestat.pm, of a node whose address it does not find; ``noping`` follows.
UNRESOLVED = "Please make sure"
#: Says nothing of whether the command did its work.
_WARNING = re.compile(r"^Warning\s*:", re.I)
#: Of a service node that xcatd could not pass a command to; other nodes have their answers.
#: xCAT's issues 3233 and 3235 show it as ``Error: Unable …``, pull request 6452 without that.
_UNDISPATCHED = re.compile(
    r"(?:Unable to dispatch (?:hierarchical sub-)?command to"
    r"|Failed to dispatch command to any of) .*"
)
_GENERAL = re.compile(r"^(?:\[[^\]]*\]: ?)?(?:Error|ERROR)\s*:\s*(?P<text>.*)$")
_CHANGED = re.compile(r"^[1-9]\d* object definitions? ha(?:ve|s) been created or modified")
_PREFIX = re.compile(r"^(?:(?:\[[^\]]*\]|Error|ERROR)\s*:\s*)+")
_UNKNOWN_RANGE = re.compile(r"Invalid nodes and/or groups in noderange:\s*(?P<names>.+)$")
_UNKNOWN_OBJECT = re.compile(r"Could not find an object named '(?P<name>[^']*)' of type")
#: What the client says when xcatd is away, or goes away while it works. It begins the line: of
#: a service node that is away, xcatd itself reports a ``Connection failure:``.
_AWAY = re.compile(
    r"Unable to open socket connection to xcatd|Connection failure:"
    r"|(?:ERROR/WARNING: )?communication with the xCAT server seems to have been ended prematurely"
)
#: Gateways of controllers answer so when the controller behind them does not. OpenBMC, as in
#: xCAT's issues 4403 and 4942: ``[500] Login to BMC failed: 500 Can't connect to 10.0.0.9:443 (No
#: route to host).`` and ``BMC did not respond. Validate BMC configuration …``.
_TIMEOUT = re.compile(
    r"time[d -]*out|50[34] (?:service|gateway)|service unavailable|no response|unreachable"
    r"|not respond|(?:can't|cannot|failed to|unable to) connect|no route to host"
    r"|connection refused|not pingable",
    re.I,
)
#: ``nodeset`` tells the new state and sets no DHCP server up (xCAT's issues 1461 and 4717): the
#: nodes cannot start from the network, whatever their lines say. Nor can a node at fault.
_NO_DHCP = re.compile(r"dhcpd?(?: server)? is not running", re.I)
#: What xCAT's plugins for installations and stateless images miss of the osimage itself: issues
#: 2846, 3783 and 4345, and their sources (anaconda.pm). Told of a node or of the whole.
_IMAGE = re.compile(
    r"\b(?:genimage|packimage|pkglist|pkgdir|templates?|osimage|os ?image|install image)\b"
    r"|have been deprecated",
    re.I,
)
_HTTP_ERROR = re.compile(r"^[45]\d\d \S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a command said of each node, and of the whole."""

    #: Lines by node, in their order.
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    #: Errors that name no node.
    general: tuple[str, ...] = ()
    #: Nodes that xCAT does not know.
    unknown: frozenset[str] = frozenset()
    #: Objects were created or modified.
    has_changed: bool = False

    def last(self, node: str) -> str | None:
        """The last line of a node: where a command tells twice, the later holds."""
        lines = self.lines.get(node)
        return lines[-1] if lines else None

    @property
    def refusal(self) -> str | None:
        """What keeps xCAT from answering at all, apart from names that it does not know."""
        return next((text for text in self.general if not _unknown_names(text)), None)

    def is_left_out(self, node: str) -> bool:
        """True when xCAT says why nothing was done for the node, and does not name it."""
        if node in self.errors or self.own_error(node) is not None:
            return False
        return bool(self.general) and (node not in self.lines or self.no_dhcp is not None)

    def own_error(self, node: str) -> str | None:
        """An error of the whole that names the node: ``The n1 can not be resolved``.

        It counts although there is a line, as in xCAT's own ``rinstall`` (issue 964).
        """
        own = re.compile(rf"(?<![\w.-]){re.escape(node)}(?![\w-])")
        return next((text for text in self.general if own.search(text)), None)

    @property
    def no_dhcp(self) -> str | None:
        """The error that the DHCP server does not run."""
        return next((text for text in self.general if _NO_DHCP.search(text)), None)


def find_absence(output: Output) -> str | None:
    """What the client says when xcatd did not take the command, or ended while it ran.

    The reason comes last: ``Connection failure: SSL connect attempt failed …``.
    """
    found = [line for line in output.lines if _AWAY.match(line)]
    return found[-1] if found else None


def is_timeout(text: str) -> bool:
    """True for an error that says the node's controller did not answer in time."""
    return _TIMEOUT.search(text) is not None


def is_images(text: str) -> bool:
    """True for an error of ``nodeset`` that says the osimage is not fit to be loaded."""
    return _IMAGE.search(text) is not None


def parse_answers(output: Output, nodes: Iterable[str]) -> Answers:
    """Sort lines by the nodes that were asked for; lines of others are left out."""
    asked = set(nodes)
    lines: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    general: list[str] = []
    unknown: set[str] = set()
    for line in output.lines:
        undispatched = _UNDISPATCHED.search(line)
        if undispatched is not None:
            general.append(undispatched[0])
            continue
        error = _NODE_ERROR.match(line)
        if error is not None and error["node"] in asked:
            errors.setdefault(error["node"], _plain(error["text"]))
            continue
        whole = _GENERAL.match(line)
        if whole is not None:
            text = _plain(whole["text"])
            unknown |= _unknown_names(text) & asked
            general.append(text)
            continue
        found = _NODE_LINE.match(line)
        if found is not None and found["node"] in asked and not _WARNING.match(found["text"]):
            lines.setdefault(found["node"], []).append(found["text"].strip())
    return Answers(
        lines={node: tuple(texts) for node, texts in lines.items()},
        errors=errors,
        general=tuple(general),
        unknown=frozenset(unknown),
        has_changed=any(_CHANGED.match(line) for line in output.lines),
    )


def _plain(text: str) -> str:
    return _PREFIX.sub("", text).strip()


def _unknown_names(text: str) -> set[str]:
    found = _UNKNOWN_RANGE.search(text)
    if found is not None:
        return {name.strip() for name in found["names"].split(",")}
    missing = _UNKNOWN_OBJECT.search(text)
    return {missing["name"]} if missing else set()


def parse_power(answers: Answers, node: str) -> PowerState | str:
    """The state after ``rpower NODE stat``, or else the error's text.

    rpower(1): ``node4: on``. OpenBMC adds ``on (Chassis)``, and errors of its HTTP interface
    come as plain lines: ``gpu001: 503 Service Unavailable``.
    """
    text = answers.last(node)
    if node in answers.errors:
        return answers.errors[node]
    if text is None:
        return answers.refusal or f"rpower says nothing of {node}"
    word = text.split()[0].lower() if text.split() else ""
    known = {"on": PowerState.ON, "off": PowerState.OFF, "suspend": PowerState.SUSPENDED}
    return known.get(word, text or "an empty answer")


def parse_action(answers: Answers, node: str) -> str | None:
    """Why a command did nothing for a node, or None when it says that it did.

    rpower(1) prints what it did: ``node5: on``, ``reset``, ``on reset``; rsetboot(1)
    ``node1: Network``; nodeset(8) the new state, ``node1: install rhels8-x86_64-compute``.
    """
    text = answers.last(node)
    problem = answers.errors.get(node) or answers.own_error(node) or answers.no_dhcp
    if problem is not None:
        return problem
    if text is None:
        return answers.general[0] if answers.general else "no line about it came"
    return text if _HTTP_ERROR.match(text) else None


def parse_node_state(answers: Answers, node: str) -> str:
    """What ``nodestat`` says; empty when that is nothing.

    nodestat(1): ``sshd``, ``noping``, ``installing prep`` and the like.
    """
    lines = answers.lines.get(node, ("",))
    return next((line for line in lines if line.startswith(UNRESOLVED)), lines[-1])


def parse_change(answers: Answers, name: str) -> str | None:
    """Why ``chdef`` or ``mkdef`` changed nothing, or None when it says that it did.

    chdef(1): ``1 object definitions have been created or modified.`` What ``mkdef`` finds there
    already was made by another worker a moment ago.
    """
    if any("already exist" in text for text in answers.general):
        return None
    if name in answers.errors:
        return answers.errors[name]
    if answers.general:
        return answers.general[0]
    return None if answers.has_changed else "it does not say that anything was changed"


def parse_definitions(answers: Answers) -> dict[str, dict[str, str]]:
    """Attributes by object, from ``lsdef -c -i``; an attribute that is not set is empty.

    lsdef(1), ``-c``: each line has the format ``<object name>: <data>``, and the data are
    ``attribute=value``.
    """
    found: dict[str, dict[str, str]] = {}
    for name, lines in answers.lines.items():
        facts = found.setdefault(name, {})
        for line in lines:
            key, mark, value = line.partition("=")
            if mark:
                facts[key.strip()] = value.strip()
    return found


def parse_table(output: Output) -> list[dict[str, str]]:
    """Rows of ``tabdump TABLE``.

    tabdump(8): CSV whose first line is the header with a ``#`` before it.
    """
    lines = list(itertools.dropwhile(lambda line: line[:1] != "#", output.out.splitlines()))
    if not lines:
        return []
    names = lines[0][1:].split(",")
    return [dict(zip(names, row, strict=False)) for row in csv.reader(lines[1:]) if row]
