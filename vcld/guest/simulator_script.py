"""What happens to the simulated hardware: the file that ``simulator_config`` names.

docs/simulator.md describes the file. Nothing here changes anything: a script only answers how
long a step takes, which rules concern it and what a user does.
"""

from __future__ import annotations

import functools
import json
import os
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from vcld.errors import ConfigError
from vcld.guest.simulator_checks import Reading
from vcld.snapshot import Reservation

#: Size of an image of which nothing else is said.
IMAGE_SIZE_MIB = 1450
#: How the names of the steps begin that belong to a host, and to no reservation.
HOST_STEPS = "host:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that goes wrong at a step, for some reservations. Names may be patterns."""

    step: str
    computer: str = "*"
    #: imagename of the revision.
    image: str = "*"
    request: int | None = None
    #: The request's state when it was claimed.
    state: str = "*"
    #: 0 to 1.
    probability: float = 1.0
    #: Happens this many times, counted over all processes; None: always.
    times: int | None = None
    #: Name of a class in vcld.errors.
    error: str | None = None
    #: Name of a ``Blame``; None: the error's own.
    blame: str | None = None
    message: str = "simulated failure"
    #: Nothing more happens until the worker is told to stop.
    hang: bool = False
    #: The worker sends itself this signal.
    signal: str | None = None

    def concerns(self, step: str, reservation: Reservation) -> bool:
        """True when this may happen to the reservation at the step."""
        return (
            fnmatchcase(step, self.step)
            and fnmatchcase(reservation.computer.node_name, self.computer)
            and fnmatchcase(reservation.imagerevision.imagename, self.image)
            and fnmatchcase(reservation.request.state, self.state)
            and self.request in {None, reservation.request.id}
        )

    def concerns_host(self, step: str, name: str) -> bool:
        """True when this may happen to a host. A pattern for all steps means none of its."""
        of_host = self.step.startswith(HOST_STEPS) and fnmatchcase(step, self.step)
        return of_host and fnmatchcase(name, self.computer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Whether and when a user connects. Times count from the moment access was granted."""

    computer: str = "*"
    user: str = "*"
    request: int | None = None
    #: Seconds; None: never.
    connects_after: float | None = 0.0
    #: Address the user comes from; None: the one that the web site knows.
    address: str | None = None
    #: Seconds; None: stays.
    leaves_after: float | None = None

    def concerns(self, reservation: Reservation) -> bool:
        """True when this is what the reservation's user does."""
        return (
            fnmatchcase(reservation.computer.node_name, self.computer)
            and fnmatchcase(reservation.request.user.login, self.user)
            and self.request in {None, reservation.request.id}
        )

    def is_present(self, since_access_seconds: float) -> bool:
        """True while the user wants to be connected."""
        came = self.connects_after is not None and since_access_seconds >= self.connects_after
        return came and (self.leaves_after is None or since_access_seconds < self.leaves_after)


#: Seconds by pattern of the step: the first that fits counts. A pair is a range to draw from.
Delays = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the file says."""

    folder: Path
    #: True when the folder is of our own choosing, in a place where others can write.
    folder_is_shared: bool = False
    seed: int | None = None
    delays: Delays = field(default_factory=dict)
    delays_by_computer: Mapping[str, Delays] = field(default_factory=dict)
    delays_by_image: Mapping[str, Delays] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    users: tuple[Visit, ...] = ()
    #: imagenames that the repository lacks; every other image is there.
    missing_images: frozenset[str] = frozenset()
    #: imagenames that a partner management node has.
    partner_images: frozenset[str] = frozenset()
    image_sizes_mib: Mapping[str, int] = field(default_factory=dict)
    #: imagename → the imagename under which its capture must be stored.
    capture_as: Mapping[str, str] = field(default_factory=dict)
    #: Computer → the public address that it turns out to have.
    addresses: Mapping[str, str] = field(default_factory=dict)
    #: Computers on which a script runs once access is granted.
    post_reserve_scripts: tuple[str, ...] = ()

    def draw(self, *facts: object) -> float:
        """A number from 0 up to 1; with a seed always the same one for the same facts."""
        if self.seed is None:
            return random.random()
        return random.Random("/".join(map(str, (self.seed, *facts)))).random()

    def delay_seconds(self, step: str, reservation: Reservation) -> float:
        """How long the step takes: what is said of the computer, the image or all, in order."""
        for delays in self._delays_for(reservation):
            for pattern, (shortest, longest) in delays.items():
                if fnmatchcase(step, pattern):
                    share = self.draw("delay", step, reservation.id) if longest > shortest else 0.0
                    return shortest + share * (longest - shortest)
        return 0.0

    def host_delay_seconds(self, step: str, name: str) -> float:
        """The same for a step of a host, where only its own delays count."""
        own = [d for p, d in self.delays_by_computer.items() if fnmatchcase(name, p)]
        for delays in [*own, self.delays]:
            for pattern, (_, longest) in delays.items():
                if pattern.startswith(HOST_STEPS) and fnmatchcase(step, pattern):
                    return longest
        return 0.0

    def find_visit(self, reservation: Reservation) -> Visit:
        """What the reservation's user does; unless said otherwise, connects at once and stays."""
        return next((visit for visit in self.users if visit.concerns(reservation)), Visit())

    def find_address(self, computer: str) -> str | None:
        """The public address that the computer turns out to have."""
        return next((a for name, a in self.addresses.items() if fnmatchcase(computer, name)), None)

    def has_post_reserve_script(self, computer: str) -> bool:
        """True when a script runs on the computer once access is granted."""
        return any(fnmatchcase(computer, pattern) for pattern in self.post_reserve_scripts)

    def _delays_for(self, reservation: Reservation) -> list[Delays]:
        by_name = (
            (self.delays_by_computer, reservation.computer.node_name),
            (self.delays_by_image, reservation.imagerevision.imagename),
        )
        chosen = [
            delays
            for table, name in by_name
            for pattern, delays in table.items()
            if fnmatchcase(name, pattern)
        ]
        return [*chosen, self.delays]


def load_script(path: str) -> Script:
    """Read the file; an empty ``path`` is a world in which everything works, at once.

    Raises:
        ConfigError: the file cannot be read, or says something that means nothing; with
            every problem.
    """
    if not path:
        folder = Path(tempfile.gettempdir()) / f"vcld-simulator-{os.getuid()}"
        return Script(folder=folder, folder_is_shared=True)
    try:
        content = Path(path).read_bytes()
    except OSError as err:
        raise ConfigError(f"simulator_config={path}: cannot be read: {err.strerror}") from err
    return _parse(path, content)


@functools.lru_cache(maxsize=4)
def _parse(path: str, content: bytes) -> Script:
    # By content, not by time: tests change the file twice within a tick of the file system.
    file = Path(path)
    try:
        data = json.loads(content) if file.suffix == ".json" else _load_yaml(content)
    except (ValueError, yaml.YAMLError) as err:
        raise ConfigError(f"simulator_config={path}: cannot be read: {err}") from err
    reading = Reading(path, {} if data is None else data)
    folder = reading.text("state_dir", "simulator")
    script = Script(
        folder=file.parent / folder,
        seed=reading.seed(),
        delays=reading.delays("delays"),
        delays_by_computer=reading.delays_by("delays_by_computer"),
        delays_by_image=reading.delays_by("delays_by_image"),
        rules=reading.entries("rules", Rule),
        users=reading.entries("users", Visit),
        missing_images=frozenset(reading.names("missing_images")),
        partner_images=frozenset(reading.names("partner_images")),
        image_sizes_mib=reading.sizes("image_sizes_mib"),
        capture_as=reading.texts("capture_as"),
        addresses=reading.texts("addresses"),
        post_reserve_scripts=reading.names("post_reserve_scripts"),
    )
    reading.finish()
    return script


def _load_yaml(content: bytes) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(content, Loader=loader)  # noqa: S506 - both are safe loaders
