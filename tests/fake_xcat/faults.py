"""What may go wrong with a command of the fake xCAT."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Fault:
    """The command does this instead of its work, so many times.

    ``kind``: ``error`` (a line for the node, and exit code 1), ``quiet-error`` (the same with
    exit code 0), ``refuse`` (an error without a node), ``hang`` (with a child that holds the
    output open), ``flood``, ``no-newline``, ``bad-utf8``, ``cut`` (xcatd ends in the middle),
    ``lost`` (the node is missing in the answer), ``undispatched`` (xcatd could not pass it to the
    node's service node; nodes of others have their answers) or ``lie`` (all seems well, nothing is done).
    """

    command: str
    kind: str
    #: None: whichever node is asked for.
    node: str | None = None
    #: Only with this among the arguments, such as ``stat``.
    argument: str | None = None
    #: None: for ever.
    times: int | None = None
    text: str = "something is wrong"

    def concerns(self, command: str, node: str | None, arguments: list[str]) -> bool:
        if self.times == 0 or command != self.command:
            return False
        if self.argument is not None and self.argument not in arguments:
            return False
        return self.node is None or self.node == node

    def strike(self) -> None:
        if self.times is not None:
            self.times -= 1
