"""One consistent picture of the site, as ``status`` prints it and ``watch`` draws it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import Connection

from vcld.store import flows, loadlog, overview
from vcld.store.flows import LoadStep
from vcld.store.loadlog import Entry
from vcld.store.overview import NodeLine, RequestLine

#: States whose load-log rows are steps of a load.
LOADING = frozenset({"new", "reload", "reinstall", "imageprep", "tovmhostinuse"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a reservation's work is, by its load log."""

    name: str
    text: str
    age_seconds: int
    #: 0 to 1 of the load.
    fraction: float
    #: None: not a load, or nothing is known.
    seconds_left: float | None
    #: How much longer the present step of a load takes than it should; 0: it may end yet.
    late_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    nodes: list[NodeLine]
    requests: list[RequestLine]
    progress: dict[int, Progress]
    computers: dict[str, int]
    #: Names of the computers that are failed or in maintenance, by state.
    out_of_service: dict[str, list[str]]
    #: Requests that are left out, by why.
    hidden: dict[str, int]

    @property
    def hidden_sentence(self) -> str:
        parts = [f"{count} {why}" for why, count in self.hidden.items()]
        return f"Not shown: {', '.join(parts)} (vcld status --all)." if parts else ""


def load_picture(connection: Connection, *, everything: bool = False) -> Picture:
    """Read it in one transaction; without ``everything`` only what matters now."""
    requests = overview.load_requests(connection, everything=everything)
    steps: dict[tuple[str, int, str], list[LoadStep]] = {}
    progress = {}
    rows: dict[int, list[Entry]] = {}
    for entry in loadlog.read(connection, [line.reservationid for line in requests]):
        rows.setdefault(entry.reservationid, []).append(entry)
    for line in requests:
        if line.reservationid not in rows or line.unwatched_because is not None:
            continue  # of work that nobody watches, nobody knows how far it is
        key = line.computer_type, line.imageid, line.provisioning
        if key not in steps:
            steps[key] = flows.load_flow(connection, *key)
        progress[line.reservationid] = reckon(line, rows[line.reservationid], steps[key])
    return Picture(
        nodes=overview.load_nodes(connection),
        requests=requests,
        progress=progress,
        computers=overview.computer_counts(connection),
        out_of_service=overview.out_of_service(connection),
        hidden={} if everything else overview.count_hidden(connection),
    )


def reckon(line: RequestLine, entries: list[Entry], flow: list[LoadStep]) -> Progress:
    """Place the newest rows of the load log in the flow of the computer's type.

    The time left is what the steps after the present one take, by measurement or by the
    site's estimates, and what remains of the present one.
    """
    newest = entries[-1]
    working_on = line.laststate if line.state == "pending" else line.state
    names = [step.name for step in flow]
    reached = [entry for entry in entries if entry.name in names]
    total = sum(step.seconds for step in flow)
    if working_on not in LOADING or not reached or total <= 0:
        done = working_on not in LOADING and bool(reached)
        return Progress(
            name=newest.name,
            text=newest.text,
            age_seconds=newest.age_seconds,
            fraction=1.0 if done else 0.0,
            seconds_left=None,
        )
    furthest = max(reached, key=lambda entry: names.index(entry.name))
    position = names.index(furthest.name)
    spent = min(furthest.age_seconds, flow[position].seconds)
    left = sum(step.seconds for step in flow[position:]) - spent
    return Progress(
        name=newest.name,
        text=newest.text,
        age_seconds=newest.age_seconds,
        fraction=max(0.0, min(1.0, 1 - left / total)),
        seconds_left=left,
        late_seconds=furthest.age_seconds - spent,
    )
