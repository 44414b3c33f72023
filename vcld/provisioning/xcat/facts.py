"""What is known of this reservation's node, asked through what all workers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vcld import clock
from vcld.provisioning.interface import PowerState
from vcld.provisioning.xcat import parsing
from vcld.provisioning.xcat.client import Xcat, patiently
from vcld.provisioning.xcat.failures import (
    NodeUndefinedError,
    XcatUnavailableError,
)
from vcld.provisioning.xcat.sharing import Answer, Shared, private_folder
from vcld.provisioning.xcat.tries import Tries

#: What is asked of a node's definition, secrets of its controller not among it.
ATTRIBUTES = (
    "groups", "mac", "mgt", "os", "arch", "profile", "provmethod", "currstate", "status",
    "statustime", "updatestatus",
)  # fmt: skip
#: A name that means one node to xCAT, not a range, a group operation or an option.
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
POWER_MAX_AGE_SECONDS = 2.0


class NodeFacts:
    """Asks xCAT about one node."""

    def __init__(
        self,
        xcat: Xcat,
        folder: Path,
        node: str,
        log: Any,
        others: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """``others``: names of nodes that nobody may have asked for yet."""
        if not NODE_NAME.fullmatch(node):
            raise NodeUndefinedError(f"{node!r} cannot be the name of a node in xCAT")
        self._xcat = xcat
        self._node = node
        self._log = log
        self._others = others
        private_folder(folder)
        keep = 3 * xcat.options.poll

        def shared(kind: str, ask: Any, keep_seconds: float = 0.0) -> Shared:
            limit = xcat.shared_seconds
            return Shared(
                folder, kind, ask, xcat.cancellation, keep_seconds=keep_seconds, limit_seconds=limit
            )

        self._definitions = shared("definitions", self._ask_definitions, keep)
        self._states = shared("nodestat", self._ask_states, keep)
        self._power = shared("power", self._ask_power)
        self._osimages = shared("osimages", self._ask_osimages)

    def neighbours(self) -> list[str]:
        """Names of nodes: those that were asked for, the last first, and then others."""
        return list(dict.fromkeys([*self._definitions.known(), *self._others()]))

    def definition(self, *, max_age: float = 0.0, since: float | None = None) -> dict[str, str]:
        """The node's attributes. One try, for those who look again anyway.

        Raises:
            NodeUndefinedError: xCAT has no such node.
            XcatUnavailableError: xCAT does not answer.
        """
        found = self._definitions.get(self._node, max_age=max_age, since=since)
        if found is None:
            raise XcatUnavailableError(
                f"xCAT's answer leaves out {self._node}: is that the name of a group, or a range?"
            )
        if not found:
            raise NodeUndefinedError(
                f"xCAT does not know {self._node}: define it, or take it out of VCL"
            )
        return found

    def definition_now(self, *, since: float | None = None) -> dict[str, str]:
        """The node's attributes, however long xCAT takes."""
        found: dict[str, str] = self._patiently(partial(self.definition, since=since))
        return found

    def node_state(self, *, max_age: float) -> str:
        """What ``nodestat`` says. One try."""
        found = self._states.get(self._node, max_age=max_age)
        return "" if found is None else found["state"]

    def osimage(self, name: str, *, since: float | None = None) -> dict[str, str] | None:
        """The attributes of an osimage object; None when there is none."""

        def ask() -> Answer:
            found = self._osimages.get(name, max_age=self._xcat.options.poll, since=since)
            if found is None:
                raise XcatUnavailableError(f"xCAT's answer leaves out osimage {name}")
            return found

        return self._patiently(ask) or None

    def power(self, *, since: float | None = None) -> PowerState:
        """The power state.

        Raises:
            ProvisioningError: it cannot be found out; see ``Tries``.
        """
        tries = Tries(self._xcat, self.neighbours, self._node)
        while True:
            ask = partial(self._power.get, self._node, max_age=POWER_MAX_AGE_SECONDS, since=since)
            found = self._patiently(ask) or {"problem": "rpower says nothing of it"}
            if "power" in found:
                return PowerState(found["power"])
            tries.fail("rpower stat", found["problem"], is_left_out=found.get("is_left_out", False))
            since = clock.monotonic()

    def _patiently(self, ask: Any) -> Any:
        return patiently(ask, self._xcat.options, self._xcat.cancellation, self._log)

    def _ask_definitions(self, nodes: Sequence[str]) -> Mapping[str, Answer]:
        answers = self._xcat.definitions(nodes, ATTRIBUTES)
        found: dict[str, Answer] = {**parsing.parse_definitions(answers)}
        return found | {node: {} for node in answers.unknown}

    def _ask_states(self, nodes: Sequence[str]) -> Mapping[str, Answer]:
        return {n: {"state": text} for n, text in self._xcat.node_states(nodes).items()}

    def _ask_osimages(self, names: Sequence[str]) -> Mapping[str, Answer]:
        answers = self._xcat.osimages(names)
        found: dict[str, Answer] = {**parsing.parse_definitions(answers)}
        return found | {name: {} for name in answers.unknown}

    def _ask_power(self, nodes: Sequence[str]) -> Mapping[str, Answer]:
        answers = self._xcat.powers(nodes)
        found: dict[str, Answer] = {}
        for node in nodes:
            state = parsing.parse_power(answers, node)
            if isinstance(state, PowerState):
                found[node] = {"power": state.value}
            else:
                found[node] = {"problem": state, "is_left_out": answers.is_left_out(node)}
        return found
