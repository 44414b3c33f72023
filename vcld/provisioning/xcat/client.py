"""xCAT's questions as methods: arguments in, data out. One try each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from vcld import clock
from vcld.errors import Blame, ProvisioningError
from vcld.programs import CommandStuckError, Output
from vcld.provisioning.interface import PowerState
from vcld.provisioning.xcat import parsing
from vcld.provisioning.xcat.failures import (
    XcatRefusedError,
    XcatUnavailableError,
)
from vcld.provisioning.xcat.options import Options
from vcld.provisioning.xcat.parsing import Answers
from vcld.provisioning.xcat.runner import Runner
from vcld.waiting import Cancellation, pauses

#: Pauses while xCAT's daemon is away.
AWAY_FIRST_SECONDS, AWAY_LONGEST_SECONDS = 0.5, 15.0
OSIMAGE_ATTRIBUTES = "profile,provmethod,osvers,osarch,imagetype,pkgdir,template,rootimgdir"


class Xcat:
    """One worker's access to xCAT."""

    def __init__(
        self,
        runner: Runner,
        options: Options,
        cancellation: Cancellation,
        log: Any,
    ) -> None:
        self.options = options
        self.cancellation = cancellation
        self._runner = runner
        self.log = log

    @property
    def shared_seconds(self) -> float:
        """Longest time until another worker that asks for us has an answer.

        It may be at an earlier question, and each takes two commands where a node is unknown.
        """
        return 4.0 * self.options.command_timeout + 30.0

    def definitions(self, nodes: Sequence[str], attributes: Sequence[str]) -> Answers:
        """``lsdef -t node``: read with ``parsing.parse_definitions``. One try."""
        names = ",".join(nodes)
        arguments = ["-t", "node", "-o", names, "-i", ",".join(attributes), "-c"]
        return self._not_refused("lsdef", self.ask_once("lsdef", arguments, nodes))

    def osimages(self, names: Sequence[str]) -> Answers:
        """``lsdef -t osimage``: read with ``parsing.parse_definitions``. One try."""
        arguments = ["-t", "osimage", "-o", ",".join(names), "-i", OSIMAGE_ATTRIBUTES, "-c"]
        return self._not_refused("lsdef", self.ask_once("lsdef", arguments, names))

    def powers(self, nodes: Sequence[str]) -> Answers:
        """``rpower stat``: read with ``parsing.parse_power``. One try."""
        return self.ask_known("rpower", nodes, ["stat"])

    def power_states(self, nodes: Sequence[str]) -> dict[str, PowerState | str]:
        """``rpower stat``: a state, or the error's text, for each node. One try."""
        answers = self.powers(nodes)
        return {node: parsing.parse_power(answers, node) for node in nodes}

    def node_states(self, nodes: Sequence[str]) -> dict[str, str]:
        """``nodestat``: such as ``sshd``, ``noping`` or ``installing prep``. One try."""
        answers = self.ask_known("nodestat", nodes, [])
        return {node: parsing.parse_node_state(answers, node) for node in nodes}

    def site_table(self) -> dict[str, str]:
        """``tabdump site`` by key. One try: it is for people who wait."""
        output = self._run("tabdump", ["site"])
        return {row.get("key", ""): row.get("value", "") for row in parsing.parse_table(output)}

    def dhcp_knows(self, node: str) -> bool:
        """``makedhcp -q``: the DHCP server gives the node an address. One try.

        makedhcp(8): ``node01: ip-address = 10.0.0.1, hardware-address = 02:00:…``; nothing for a
        node that it does not know.
        """
        answers = self.ask_once("makedhcp", ["-q", node], [node])
        return "hardware-address" in (answers.last(node) or "")

    def capture_image(self, node: str, method: str, image: str, limit_seconds: float) -> None:
        """``imgcapture``: a running node becomes an osimage. One try."""
        arguments = [node, "-t", method, "-o", image]
        answers = self.ask_once("imgcapture", arguments, [node], limit_seconds=limit_seconds)
        problem = answers.errors.get(node) or (answers.general[0] if answers.general else None)
        if problem is not None:
            msg = f"imgcapture could not make {image} of {node}: {problem}"
            raise XcatRefusedError(msg, blame=Blame.NOBODY)

    def tidy_up(self, command: str, *arguments: str, limit_seconds: float = 20.0) -> None:
        """Run a command after a failure, or when the worker must stop: no repetition."""
        try:
            self._runner.run(
                [command, *arguments], limit_seconds=limit_seconds, cancellation=Cancellation()
            )
        except ProvisioningError as err:
            self.log.warning("xCAT could not tidy up", command=command, reason=str(err))

    @staticmethod
    def _not_refused(command: str, answers: Answers) -> Answers:
        """An answer without any data whose error is of the whole is none.

        Raises:
            XcatUnavailableError: it is; its words are in the message.
        """
        if not answers.lines and answers.refusal is not None:
            raise XcatUnavailableError(f"xCAT refuses {command}: {answers.refusal}")
        return answers

    def ask_known(self, command: str, nodes: Sequence[str], arguments: Sequence[str]) -> Answers:
        """One unknown node makes these commands refuse the whole range: ask without it."""
        answers = self.ask_once(command, [",".join(nodes), *arguments], nodes)
        rest = [node for node in nodes if node not in answers.unknown]
        if not answers.unknown or not rest:
            return answers
        known = self.ask_once(command, [",".join(rest), *arguments], rest)
        return replace(known, unknown=known.unknown | answers.unknown)

    def ask_once(
        self,
        command: str,
        arguments: Sequence[str],
        nodes: Iterable[str],
        *,
        limit_seconds: float | None = None,
    ) -> Answers:
        output = self._run(command, arguments, limit_seconds=limit_seconds)
        answers = parsing.parse_answers(output, nodes)
        if output.code and not (answers.lines or answers.errors or answers.general):
            # Not a word of xCAT's own: its client itself does not run.
            said = output.lines[-1] if output.lines else "and said nothing"
            raise XcatUnavailableError(
                f"xCAT's {command} on {self._runner.where} ended with code {output.code}: {said}"
            )
        return answers

    def _run(
        self, command: str, arguments: Sequence[str], *, limit_seconds: float | None = None
    ) -> Output:
        limit = limit_seconds or float(self.options.command_timeout)
        began = clock.monotonic()
        try:
            output = self._runner.run(
                [command, *arguments], limit_seconds=limit, cancellation=self.cancellation
            )
        except CommandStuckError as err:
            raise XcatUnavailableError(f"xCAT does not answer: {err}") from err
        seconds = round(clock.monotonic() - began, 3)
        self.log.debug("xCAT command", command=output.command, code=output.code, seconds=seconds)
        absence = parsing.find_absence(output)
        if absence is not None:
            raise XcatUnavailableError(
                "xCAT's daemon does not answer: see 'systemctl status xcatd' on"
                f" {self._runner.where} ({absence})"
            )
        return output

    def patiently(self, ask: Any) -> Any:
        """Go on asking while xCAT's daemon is away.

        Raises:
            XcatUnavailableError: it was away for too long.
        """
        return patiently(ask, self.options, self.cancellation, self.log)


def patiently(ask: Any, options: Options, cancellation: Cancellation, log: Any) -> Any:
    """Ask until there is an answer, or xCAT's daemon was away for too long.

    Raises:
        XcatUnavailableError: it was.
    """
    deadline = clock.monotonic() + options.daemon_patience
    for pause in pauses(AWAY_FIRST_SECONDS, AWAY_LONGEST_SECONDS):
        try:
            return ask()
        except XcatUnavailableError as err:
            if clock.monotonic() + pause > deadline:
                raise
            log.warning("waiting for xCAT", reason=str(err))
        cancellation.wait(pause)
    raise AssertionError("pauses never end")
