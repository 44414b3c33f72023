"""Changes that xCAT makes: repeated where that can help, together with other workers' nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vcld.errors import Blame
from vcld.provisioning.xcat import parsing
from vcld.provisioning.xcat.client import Xcat
from vcld.provisioning.xcat.failures import (
    ImageBrokenError,
    NodeUndefinedError,
    XcatUnavailableError,
)
from vcld.provisioning.xcat.parsing import Answers
from vcld.provisioning.xcat.sharing import Shared, private_folder
from vcld.provisioning.xcat.tries import Tries

#: What xCAT says when no repetition can help.
FINAL = ("Cannot find the OS image", "Unknown state", "Usage:", "Unknown option", "must be set")
LONGEST_KIND = 150
#: How long a worker that must stop waits for another's joint command to end.
SETTLE_SECONDS = 20.0
#: Commands that one worker runs for many nodes; ``COMMAND NODES ARGUMENT``.
JOINT_COMMANDS = frozenset({"nodeset", "rsetboot", "rpower"})


class Changes:
    """What one worker lets xCAT do.

    ``folder``: by which workers find together for one command. ``neighbours``: names of other
    nodes that are in use.
    """

    def __init__(self, xcat: Xcat, folder: Path, neighbours: Callable[[], Sequence[str]]) -> None:
        self._xcat = xcat
        self._folder = folder
        self._neighbours = neighbours

    def change_node(
        self, node: str, attributes: Mapping[str, str], *, mode: str | None = None
    ) -> None:
        """``chdef``; ``mode`` ``-p`` adds to lists, ``-m`` takes out of them."""
        pairs = [f"{key}={value}" for key, value in attributes.items()]
        arguments = ["-t", "node", "-o", node, *([mode] if mode else []), *pairs]
        self._change("chdef", arguments, node)

    def define_osimage(self, name: str, attributes: Mapping[str, str]) -> None:
        """``mkdef -t osimage``."""
        pairs = [f"{key}={value}" for key, value in attributes.items()]
        self._change("mkdef", ["-t", "osimage", "-o", name, *pairs], name)

    def set_next_boot(self, node: str, action: str) -> None:
        """``nodeset``: ``boot``, ``osimage=NAME``, ``runimage=TASK``, or an older form."""
        self._change("nodeset", [node, action], node)

    def boot_from_network(self, node: str) -> None:
        """``rsetboot NODE net``: once, at the next start."""
        self._change("rsetboot", [node, "net"], node)

    def switch(self, node: str, action: str) -> None:
        """``rpower NODE on|off|boot``: what the controller confirms may not have happened yet."""
        self._change("rpower", [node, action], node)

    def _change(self, command: str, arguments: Sequence[str], node: str) -> None:
        """Repeat until it is done; timeouts of the controller and other errors count apart.

        The first time together with other nodes, afterwards alone, so that a node with which
        xCAT has trouble holds up nobody else for long.

        Raises:
            ProvisioningError: it does not come to be; see ``Tries``.
        """
        tries = Tries(self._xcat, self._neighbours, node)
        is_joint = command in JOINT_COMMANDS
        while True:
            if is_joint:
                answers = self._together(command, node, arguments[-1])
                is_joint = False
            else:
                ask = partial(self._xcat.ask_once, command, arguments, [node])
                answers = self._xcat.patiently(ask)
            parse = parsing.parse_change if command in {"chdef", "mkdef"} else parsing.parse_action
            problem = parse(answers, node)
            if problem is None:
                return
            self._refuse_final(command, node, problem, answers)
            is_left_out = answers.is_left_out(node)
            tries.fail(f"{command} {arguments[-1]}", problem, is_left_out=is_left_out)

    def _together(self, command: str, node: str, argument: str) -> Answers:
        """Run a command for all nodes whose workers want the same at this moment."""

        def ask(nodes: Sequence[str]) -> dict[str, dict[str, Any]]:
            answers = self._xcat.ask_known(command, nodes, [argument])
            return {name: _pack(answers, name) for name in nodes}

        try:
            found = self._shared(command, argument, ask).get(node)
        except XcatUnavailableError as err:
            self._xcat.log.warning("a joint command failed", command=command, reason=str(err))
            found = None
        if found is None:
            ask_alone = partial(self._xcat.ask_once, command, [node, argument], [node])
            return self._xcat.patiently(ask_alone)  # type: ignore[no-any-return]
        return _unpack(found, node)

    def settle(self, command: str, argument: str) -> None:
        """Wait until no joint command runs that another worker may have begun for our node."""
        self._shared(command, argument, lambda _: {}).settle(SETTLE_SECONDS)

    def _shared(
        self, command: str, argument: str, ask: Callable[[Sequence[str]], dict[str, dict[str, Any]]]
    ) -> Shared:
        kind = "-".join((command, quote(argument, safe="")))
        if len(kind) > LONGEST_KIND:  # it becomes the name of a file
            kind = f"{command}-{hashlib.sha256(argument.encode()).hexdigest()}"
        folder, limit = private_folder(self._folder), self._xcat.shared_seconds
        return Shared(folder, kind, ask, self._xcat.cancellation, limit_seconds=limit)

    def _refuse_final(self, command: str, node: str, problem: str, answers: Answers) -> None:
        """Raise what no repetition mends."""
        if node in answers.unknown:
            raise NodeUndefinedError(
                f"xCAT does not know {node}: define it, or take it out of VCL",
                blame=Blame.COMPUTER,
            )
        texts = (problem, *answers.general)
        is_images = command == "nodeset" and any(map(parsing.is_images, texts))
        if is_images or any(mark in problem for mark in FINAL):
            raise ImageBrokenError(f"{command} refuses {node}: {'; '.join(dict.fromkeys(texts))}")


def _pack(answers: Answers, node: str) -> dict[str, Any]:
    return {
        "lines": list(answers.lines.get(node, ())),
        "error": answers.errors.get(node),
        "general": list(answers.general),
        "unknown": node in answers.unknown,
    }


def _unpack(found: Mapping[str, Any], node: str) -> Answers:
    return Answers(
        lines={node: tuple(found["lines"])} if found["lines"] else {},
        errors={node: found["error"]} if found["error"] else {},
        general=tuple(found["general"]),
        unknown=frozenset({node} if found["unknown"] else ()),
    )
