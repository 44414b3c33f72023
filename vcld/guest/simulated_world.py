"""The world of the simulator: computers, images and users that exist in files only.

Workers are processes, so the world lives in a folder: one JSON file per computer, replaced as
a whole under a lock. What happens in it, and what goes wrong, is said by the file that
``simulator_config`` names; docs/simulator.md describes it. Without that file everything works,
at once.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import random
import signal as signals
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from vcld import clock, errors
from vcld.errors import Blame, ConfigError, ProvisioningError
from vcld.snapshot import Reservation
from vcld.waiting import Cancellation

_SIGNALS = {"KILL", "STOP", "SEGV", "TERM", "ABRT"}


@dataclass(slots=True)
class Machine:
    """A simulated computer."""

    power: str = "off"
    #: Revision on the disk; None: nothing, or a load that did not end.
    imagerevision_id: int | None = None
    #: Changes with each load: tests see whether a disk survived.
    disk: str = ""
    post_load: bool = False
    tainted: str = ""
    #: Login names of the accounts on it.
    accounts: list[str] = field(default_factory=list)
    #: Who may connect: None: nobody, "*": anybody, else one address.
    open_to: str | None = None
    #: Seconds since 1970 when access was granted.
    opened_at: float = 0.0
    #: Address of the connected user.
    connected_from: str | None = None
    notices: list[str] = field(default_factory=list)
    loads: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that goes wrong at a step, for some reservations."""

    number: int
    step: str
    computer: str = "*"
    image: str = "*"
    request: int | None = None
    state: str = "*"
    probability: float = 1.0
    #: Happens this many times in all; None: always.
    times: int | None = None
    error: str | None = None
    blame: str | None = None
    message: str = "simulated failure"
    hang: bool = False
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """Whether and when a user connects."""

    computer: str = "*"
    request: int | None = None
    #: Seconds after access was granted; None: never.
    connects_after: float | None = 0.0
    #: Address the user comes from; None: the one that the web site knows.
    address: str | None = None
    #: Seconds after access was granted; None: stays.
    leaves_after: float | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What the configuration file says."""

    folder: Path
    #: Seconds by step name or pattern; a pair is a range to draw from.
    delays: dict[str, float | tuple[float, float]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    visits: tuple[Visit, ...] = ()
    missing_images: frozenset[str] = frozenset()
    partner_images: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=4)
def _load_script(path: str, _changed_at: int) -> Script:
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise ConfigError(f"simulator_config={path}: cannot be read: {err}") from err
    data = data or {}
    try:
        return Script(
            folder=Path(data.get("state_dir") or file.parent / "simulator"),
            delays={k: tuple(v) if isinstance(v, list) else v
                    for k, v in data.get("delays", {}).items()},
            rules=tuple(Rule(number, **rule) for number, rule in enumerate(data.get("rules", []))),
            visits=tuple(Visit(**visit) for visit in data.get("users", [])),
            missing_images=frozenset(data.get("missing_images", ())),
            partner_images=frozenset(data.get("partner_images", ())),
        )  # fmt: skip
    except TypeError as err:
        raise ConfigError(f"simulator_config={path}: {err}; see docs/simulator.md") from err


def load_script(path: str) -> Script:
    """Read the simulator's configuration, again when the file has changed.

    Raises:
        ConfigError: it cannot be read or holds a key that means nothing.
    """
    if not path:
        return Script(folder=Path(tempfile.gettempdir()) / f"vcld-simulator-{os.getuid()}")
    try:
        changed_at = os.stat(path).st_mtime_ns
    except OSError as err:
        raise ConfigError(f"simulator_config={path}: {err.strerror}") from err
    return _load_script(path, changed_at)


class World:
    """All simulated computers of one configuration."""

    def __init__(self, config: str) -> None:
        self.script = load_script(config)
        self._folder = self.script.folder
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def machine(self, name: str) -> Machine:
        """A computer as it is now; one that was never touched is off and empty."""
        try:
            data = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Machine()
        return Machine(**data)

    @contextmanager
    def change(self, name: str) -> Iterator[Machine]:
        """Change a computer: nobody else does meanwhile, and readers see old or new."""
        path = self._path(name)
        with open(self._folder / f"{path.stem}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            machine = self.machine(name)
            yield machine
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(asdict(machine)), encoding="utf-8")
            partial.replace(path)

    def images(self) -> dict[str, int]:
        """Captured images and their sizes in MiB."""
        try:
            loaded: dict[str, int] = json.loads((self._folder / "images.json").read_text())
        except FileNotFoundError:
            return {}
        return loaded

    def add_image(self, name: str, size_mib: int) -> None:
        """Put an image into the repository, whole or not at all."""
        with open(self._folder / "images.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            partial = self._folder / "images.partial"
            partial.write_text(json.dumps({**self.images(), name: size_mib}), encoding="utf-8")
            partial.replace(self._folder / "images.json")

    def pass_step(self, step: str, reservation: Reservation, cancellation: Cancellation) -> None:
        """Let happen what the script says for this step: a delay, a failure, a death.

        Raises:
            ProvisioningError: the script wants one.
            WorkerStopped: the worker was told to stop meanwhile.
        """
        for rule in self.script.rules:
            if _concerns(rule, step, reservation) and self._happens(rule):
                _strike(rule, cancellation)
        for pattern, seconds in self.script.delays.items():
            if fnmatchcase(step, pattern):
                low, high = seconds if isinstance(seconds, tuple) else (seconds, seconds)
                cancellation.wait(random.uniform(low, high))
                return

    def visit(self, reservation: Reservation) -> Visit:
        """What the reservation's user does."""
        for visit in self.script.visits:
            if fnmatchcase(reservation.computer.shortname, visit.computer) and visit.request in {
                None,
                reservation.request.id,
            }:
                return visit
        return Visit()

    def _happens(self, rule: Rule) -> bool:
        if rule.probability < 1.0 and random.random() >= rule.probability:
            return False
        if rule.times is None:
            return True
        path = self._folder / f"rule{rule.number}.count"
        with open(path, "a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            count = int(file.read() or 0)
            if count >= rule.times:
                return False
            file.truncate(0)
            file.write(str(count + 1))
        return True

    def _path(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):x}" for c in name)
        return self._folder / f"computer-{safe}.json"


def _concerns(rule: Rule, step: str, reservation: Reservation) -> bool:
    return (
        fnmatchcase(step, rule.step)
        and fnmatchcase(reservation.computer.shortname, rule.computer)
        and fnmatchcase(reservation.imagerevision.imagename, rule.image)
        and fnmatchcase(reservation.request.state, rule.state)
        and rule.request in {None, reservation.request.id}
    )


def _strike(rule: Rule, cancellation: Cancellation) -> None:
    if rule.signal is not None:
        if rule.signal not in _SIGNALS:
            raise ConfigError(f"simulator: signal {rule.signal!r} is none of {sorted(_SIGNALS)}")
        os.kill(os.getpid(), signals.Signals[f"SIG{rule.signal}"])
    if rule.hang:
        while True:
            cancellation.wait(3600)
    if rule.error is not None:
        kind = getattr(errors, rule.error, None)
        if not (isinstance(kind, type) and issubclass(kind, ProvisioningError)):
            raise ConfigError(f"simulator: {rule.error!r} is no ProvisioningError of vcld.errors")
        if rule.blame is None:
            raise kind(rule.message)
        raise kind(rule.message, blame=Blame[rule.blame.upper()])


def now() -> float:
    """Seconds since 1970: the only clock that processes share here."""
    return clock.epoch()
