"""Repetitions: what a retry can mend and what it cannot are counted apart (§9.3)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from vcld.errors import Blame, ProvisioningError
from vcld.provisioning.interface import PowerState
from vcld.provisioning.xcat import parsing
from vcld.provisioning.xcat.client import Xcat
from vcld.provisioning.xcat.failures import (
    BmcUnreachableError,
    XcatRefusedError,
    XcatUnavailableError,
)

#: How many other controllers are asked before one is blamed, and how many say enough.
WITNESSES, FEWEST_WITNESSES = 4, 2
#: What a node's controller does itself.
CONTROLLERS_COMMANDS = ("rpower", "rsetboot")


class Tries:
    """The tries of one command for one node. ``neighbours`` names other nodes in use."""

    def __init__(self, xcat: Xcat, neighbours: Callable[[], Sequence[str]], node: str) -> None:
        self._xcat = xcat
        self._neighbours = neighbours
        self._node = node
        self._timeouts = self._errors = 0
        self._is_spared = False

    def fail(self, command: str, problem: str, *, is_left_out: bool = False) -> None:
        """Note a failure, and wait before the next try.

        ``is_left_out``: xCAT did not get as far as the node, so the node is not at fault.

        Raises:
            BmcUnreachableError: the controller did not answer ``timeout_error_limit`` times.
            XcatUnavailableError: nor did those of other nodes, or they refused like this one; or
                the node was left out ``rpower_error_limit`` times.
            XcatRefusedError: another error came ``rpower_error_limit`` times.
        """
        options = self._xcat.options
        if parsing.is_timeout(problem) and not is_left_out:
            self._timeouts += 1
        else:
            self._errors += 1
        self._xcat.log.warning(
            "xCAT command failed", command=command, node=self._node, reason=problem,
            timeouts=self._timeouts, errors=self._errors,
        )  # fmt: skip
        if self._timeouts >= options.timeout_error_limit:
            self._judge_silence(f"{command} timed out {self._timeouts} times")
        if self._errors >= options.rpower_error_limit:
            msg = f"{command} of {self._node} failed {self._errors} times: {problem}"
            if is_left_out:
                raise XcatUnavailableError(msg)
            if command.startswith(CONTROLLERS_COMMANDS):
                self._spare_all(msg)
            raise XcatRefusedError(msg)
        # At random, so that a cluster's blades do not come upon the chassis all together.
        longest = options.retry_pause * (self._errors + self._timeouts)
        self._xcat.cancellation.wait(random.uniform(longest / 4, longest))

    def _spare_all(self, problem: str) -> None:
        """Blame nobody where no controller obeys: their password may have been changed."""
        others = self._witnesses()
        if len(others) < FEWEST_WITNESSES:
            return
        states = self._xcat.power_states(others).values()
        if not any(isinstance(state, PowerState) for state in states):
            raise XcatUnavailableError(
                f"{problem}; nor do the controllers of {', '.join(others)} obey", blame=Blame.NOBODY
            )

    def _witnesses(self) -> list[str]:
        return [name for name in self._neighbours() if name != self._node][:WITNESSES]

    def _judge_silence(self, what: str) -> None:
        """Raise whose fault it is; one that answers by now gets one more try."""
        others = self._witnesses()
        if len(others) < FEWEST_WITNESSES or self._is_spared:
            raise self._unreachable(what)
        states = self._xcat.power_states([self._node, *others])
        if isinstance(states[self._node], PowerState):
            self._is_spared = True
            return
        if all(isinstance(state, str) and parsing.is_timeout(state) for state in states.values()):
            raise XcatUnavailableError(
                f"no controller answers, neither of {self._node} nor of {', '.join(others)}:"
                " is the management network down?",
                blame=Blame.NOBODY,
            )
        raise self._unreachable(what)

    def _unreachable(self, what: str) -> ProvisioningError:
        return BmcUnreachableError(f"the controller of {self._node} does not answer: {what}")
