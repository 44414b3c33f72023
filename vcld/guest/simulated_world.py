"""The world of the simulator: computers and images that exist in files only.

Workers are processes, so the world lives in a folder: one JSON file per computer and one for
the repository, replaced as a whole under a lock. Nothing is forced to the disk: the world need
not survive a power cut. Tests act in it as users and operators do.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vcld.errors import ConfigError
from vcld.guest.simulated_files import Documents
from vcld.guest.simulator_script import load_script
from vcld.snapshot import Account

#: ``open_to`` of a computer that lets in anybody.
ANYBODY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAccount:
    """An account on a computer. The password itself is nowhere."""

    uid: int
    root_access: bool
    public_keys: bool
    salt: str
    #: Empty: no local password.
    password_hash: str = ""

    @classmethod
    def make(cls, account: Account) -> SimulatedAccount:
        """What ``useradd`` would make of it."""
        salt = secrets.token_hex(8)
        return cls(
            uid=account.user.uid,
            root_access=account.root_access,
            public_keys=account.user.usepublickeys and bool(account.user.sshpublickeys),
            salt=salt,
            password_hash=_hash(salt, account.password) if account.password else "",
        )

    def accepts(self, password: str) -> bool:
        """True when this is the account's password."""
        return bool(self.password_hash) and self.password_hash == _hash(self.salt, password)


def _hash(salt: str, password: str) -> str:
    # One quick round: nobody logs in here, and a slow hash would be measured as our own cost.
    return hashlib.blake2b(password.encode(), key=salt.encode(), digest_size=16).hexdigest()


@dataclass(slots=True, kw_only=True)
class SimulatedComputer:
    """A computer as it is at a moment."""

    #: on, off or suspended.
    power: str = "off"
    #: False: it runs, but nothing reaches it.
    reachable: bool = True
    #: What its ``currentimage.txt`` says; None: nothing, or a load that did not end.
    imagerevision_id: int | None = None
    #: Names the contents of the disk; changes with each load and with nothing else.
    disk: str = ""
    post_load: bool = False
    tainted: str = ""
    #: Accounts by login name.
    users: dict[str, SimulatedAccount] = field(default_factory=dict)
    #: Ports of the connect methods that are open, such as ``TCP:22``.
    open_ports: list[str] = field(default_factory=list)
    #: Who gets through to them: None: nobody, ``*``: anybody, else one address.
    open_to: str | None = None
    #: Seconds since 1970 when access was granted.
    opened_at: float = 0.0
    #: Address of each connected user, by login name.
    connected: dict[str, str] = field(default_factory=dict)
    #: True once a test has connected or disconnected a user: from then on, and until the next
    #: load or sanitizing, users do what the test says.
    steered: bool = False
    public_ip: str = ""
    #: Addresses of the cluster's computers, as told by ``update_cluster``.
    cluster: list[str] = field(default_factory=list)
    #: Texts shown on the console.
    notices: list[str] = field(default_factory=list)
    #: Complete loads so far.
    loads: int = 0
    #: Names the load that is going on; empty: none.
    loading: str = ""

    @property
    def accounts(self) -> list[str]:
        """Login names of the accounts."""
        return sorted(self.users)

    @property
    def is_answering(self) -> bool:
        """True when a system runs on it and can be reached."""
        return self.power == "on" and self.reachable and self.imagerevision_id is not None

    def lets_in(self, login: str, address: str) -> bool:
        """True when the user could connect from the address."""
        open_ = bool(self.open_ports) and self.open_to in {ANYBODY, address}
        return open_ and self.is_answering and login in self.users

    def close(self) -> None:
        """Shut the connect methods for everybody, and end the connections."""
        self.open_ports, self.open_to, self.opened_at, self.connected = [], None, 0.0, {}

    def set_power(self, power: str) -> None:
        """Switch; connections end with the system."""
        if power != "on":
            self.connected = {}
        self.power = power

    def wipe(self) -> None:
        """Take away the system and everything on it, but not the number of its loads."""
        self.set_power("off")
        self.close()
        self.imagerevision_id, self.disk, self.post_load, self.tainted = None, "", False, ""
        self.users, self.cluster, self.notices, self.public_ip = {}, [], [], ""
        self.steered, self.loading = False, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image that was captured, or fetched from a partner."""

    size_mib: int
    #: ``disk`` of the computer it was captured from; empty: not captured here.
    disk: str = ""


class World:
    """All computers and images of one ``simulator_config``."""

    def __init__(self, config: str) -> None:
        #: What the file says now. A worker goes on with what it said when the worker began.
        self.script = load_script(config)
        _make_private(self.script.folder, is_shared=self.script.folder_is_shared)
        self.documents = Documents(self.script.folder)

    def computer(self, name: str) -> SimulatedComputer:
        """A computer as it is now; one that was never touched is off and empty."""
        return _computer(self.documents.read(f"computer-{name}"))

    #: The former name.
    machine = computer

    @contextmanager
    def change(self, name: str) -> Iterator[SimulatedComputer]:
        """Change a computer: nobody else does meanwhile, and readers see old or new."""
        with self.documents.change(f"computer-{name}") as data:
            computer = _computer(data)
            yield computer
            data.update(asdict(computer))

    def connect_user(self, name: str, login: str, address: str) -> bool:
        """A user connects to a computer. False when it does not let the user in."""
        with self.change(name) as computer:
            computer.steered = True
            if computer.lets_in(login, address):
                computer.connected[login] = address
            return computer.connected.get(login) == address

    def disconnect_user(self, name: str, login: str) -> None:
        """A user leaves a computer, and stays away."""
        with self.change(name) as computer:
            computer.steered = True
            computer.connected.pop(login, None)

    def set_power(self, name: str, power: str) -> None:
        """Somebody presses the button: on, off or suspended."""
        with self.change(name) as computer:
            computer.set_power(power)

    def set_reachable(self, name: str, *, reachable: bool) -> None:
        """Somebody pulls the network cable, or puts it back."""
        with self.change(name) as computer:
            computer.reachable = reachable

    def images(self) -> dict[str, StoredImage]:
        """What was captured or fetched, by imagename."""
        return {name: StoredImage(**facts) for name, facts in self.documents.read("images").items()}

    def add_image(self, name: str, image: StoredImage) -> bool:
        """Put an image into the repository; False when the name is taken: nothing is done."""
        with self.documents.change("images") as data:
            if name in data:
                return False
            data[name] = asdict(image)
        return True


def _computer(data: dict[str, Any]) -> SimulatedComputer:
    known = {item.name for item in fields(SimulatedComputer)}
    facts = {key: value for key, value in data.items() if key in known}
    users = {login: SimulatedAccount(**user) for login, user in facts.pop("users", {}).items()}
    return SimulatedComputer(**facts, users=users)


def _make_private(folder: Path, *, is_shared: bool) -> None:
    """Make the folder; where others can write, make sure that nobody else made it for us.

    Raises:
        ConfigError: it cannot be made, or is not ours alone.
    """
    try:
        folder.mkdir(mode=0o700, parents=not is_shared, exist_ok=True)
        facts = folder.lstat()
    except OSError as err:
        raise ConfigError(f"the simulator cannot use folder {folder}: {err.strerror}") from err
    ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
    if is_shared and not (ours and facts.st_mode & 0o077 == 0):
        raise ConfigError(
            f"the simulator's folder {folder} is not ours alone; remove it, or name a file with "
            "simulator_config"
        )
