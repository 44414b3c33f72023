"""The rules by which ``vcld explain`` says what becomes of a request, as text and by name."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import Connection

from vcld import schedule
from vcld.cli.output import duration
from vcld.schedule import Action
from vcld.states.table import STATES
from vcld.store import strangers
from vcld.store.candidates import Candidate
from vcld.store.overview import NodeLine, RequestLine
from vcld.store.rerun import CAPTURES, LIVE
from vcld.store.strangers import SILENT_SECONDS, Here


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that holds for a request now."""

    #: None: for the request as a whole.
    reservation: int | None
    #: A name that programs may rely on.
    rule: str
    text: str


_ACTIONS = {
    Action.NOTHING: "nothing is to be done",
    Action.REMOVE: "it is about to be removed",
    Action.PRELOAD: "it is about to be loaded in advance",
}


def of_states(line: RequestLine) -> list[Rule]:
    """What the request's pair of states means."""
    rules = []
    row = STATES.get(line.state)
    if line.state == "?":
        text = "Its state has no row in the table state: set request.stateid to one that has."
        rules.append(Rule(None, "state-without-row", text))
    elif line.state == "maintenance":
        rules.append(Rule(None, "state", _maintenance(line)))
    elif row is not None:
        again = f" 'vcld retry {line.requestid}' tries it again." if line.state == "failed" else ""
        rules.append(Rule(None, "state", f"{row.summary}{again}"))
    else:
        text = f"State {line.state!r} is none that vcld processes."
        rules.append(Rule(None, "state-unknown", text))
    if line.laststate == "?":
        text = (
            "Its last state has no row in the table state, so no management node will ever look"
            " at it: set request.laststateid to one that has."
        )
        rules.append(Rule(None, "laststate-without-row", text))
    return rules


def of_unattended(line: RequestLine, node: NodeLine | None) -> str:
    """What is wrong with a request that nobody has, in a few words; empty: nothing is."""
    row = STATES.get(line.state)
    if line.phase is not None or line.state == "complete":
        return ""
    if not line.reservationid:
        what = "it has no reservation"
    elif row is None or line.laststate == "?":
        what = "no management node processes such a state"
    elif line.state in {"maintenance", "failed"}:
        what = "an administrator is waited for" if line.state == "maintenance" else "it failed"
    elif node is None:
        what = "its management node has no row"
    elif node.pid is None:
        return ""  # a Perl daemon's, as far as anybody knows
    elif not node.is_served:
        what = f"no vcld runs for {node.hostname}"
    elif line.state == "pending":
        what = "nobody has it"
    else:
        return ""
    return f"{what}: vcld explain {line.requestid}"


def _maintenance(line: RequestLine) -> str:
    if line.laststate in CAPTURES:
        return (
            "Its capture failed, and the computer is kept for an administrator: mend what the"
            f" load log says; 'vcld retry {line.requestid}' captures again."
        )
    if line.laststate in LIVE:
        return (
            "Its session was broken off, and nobody looks after it: mend what the load log says;"
            f" 'vcld retry {line.requestid}' lets the session go on."
        )
    return "It waits for an administrator: no management node will look at it."


def of_reservation(
    connection: Connection,
    line: RequestLine,
    candidate: Candidate | None,
    node: NodeLine,
    here: Here,
) -> list[Rule]:
    """What is wrong with one reservation, and what becomes of it."""
    id_, name = line.reservationid, f"Reservation {line.reservationid} on {line.computer}"
    rules = [
        Rule(id_, "missing-row", f"{name}: its {part} has no row, so it cannot be processed.")
        for part, value in (
            ("computer", line.computer),
            ("image revision", line.image),
            ("user", line.user),
            ("provisioning", line.provisioning),
        )
        if value == "?"
    ]
    if line.phase is not None:
        rule, text = _claimed(line)
    elif candidate is None:
        return rules
    elif candidate.state == "pending":
        rule, text = _unclaimed(connection, line, node, here)
    else:
        verdict = schedule.decide(candidate.timing)
        rule = verdict.action.value
        text = f"{_ACTIONS.get(verdict.action, 'it is about to be processed')}: {verdict.reason}"
    return [*rules, Rule(id_, rule, f"{name}: {text}.")]


def _claimed(line: RequestLine) -> tuple[str, str]:
    worker = f"worker {line.last_pid}" if line.last_pid else "a worker that is about to start"
    left = line.next_in_seconds or 0
    if line.unwatched_because is not None:
        what = f"{worker} had it" if line.phase == "running" else f"{line.phase}: {line.reason}"
        return "unwatched", (
            f"{what}; {line.unwatched_because}, so what became of it is not known, and it goes on"
            " only when vcld runs there again or another node takes over"
        )
    if line.phase == "running":
        about = f": {line.reason}" if line.reason else ""
        return "worker", f"{worker} works on it, attempt {line.attempts + 1}{about}"
    when = f"taken up in {duration(left)}" if left > 0 else "about to be taken up"
    return str(line.phase), f"{line.phase}, {when}: {line.reason}"


def _unclaimed(
    connection: Connection, line: RequestLine, node: NodeLine, here: Here
) -> tuple[str, str]:
    """Pending, without a claim: a Perl daemon's worker has it, or nobody."""
    stranger = strangers.find(connection, line.requestid, line.laststate, here)
    if stranger is not None and stranger.reservationid == line.reservationid:
        return "stranger", (
            f"pending, and {stranger.sign}. 'vcld retry {line.requestid}' is refused:"
            f" {stranger.remedy}"
        )
    if stranger is not None:
        return "stranger", f"pending, and reservation {stranger.reservationid} is not free yet"
    frees = "vcld frees such a request after a minute; " if node.is_served else ""
    now = "now" if frees else "by hand"
    return "stray", (
        f"pending, but nobody has it. {frees}'vcld retry {line.requestid}' does it {now}"
    )


def of_node(line: RequestLine, node: NodeLine) -> Rule | None:
    """Why nothing can be expected of the management node; None: a vcld lives there."""
    if node.is_served:
        return None
    name, silent = node.hostname, node.silent_seconds
    if node.gone:
        text = (
            f"vcld for {name} has died (pid {node.pid} on this machine): start it. Workers that"
            " live go on, and are adopted."
        )
        return Rule(line.reservationid, "node-died", text)
    if (node.pid is None or node.stopped) and silent is not None and silent <= SILENT_SECONDS:
        # Right after a stop the heartbeat is as young.
        ran = "vcld was stopped" if node.stopped else "No vcld has ever run"
        text = (
            f"{ran} for {name}. Its heartbeat is {duration(silent)} old: another daemon serves it,"
            " or it has just stopped; start vcld if none does."
        )
        return Rule(line.reservationid, "node-served-otherwise", text)
    if node.pid is None:
        return Rule(line.reservationid, "node-without-vcld", f"No vcld has ever run for {name}.")
    if node.stopped:
        text = f"vcld was stopped for {name}: start it."
        return Rule(line.reservationid, "node-stopped", text)
    text = f"vcld for {name} has been silent for {duration(silent)}: is it running?"
    return Rule(line.reservationid, "node-silent", text)
