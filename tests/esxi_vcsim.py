"""vcsim, VMware's API simulator, as a process of its own (sources in tests/vcsim)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

SOURCES = Path(__file__).parent / "vcsim"
GOPATH = "/usr/share/gocode"
USER, PASSWORD = "root", "vcsim-pw"


class VcsimMissingError(Exception):
    """vcsim cannot be built here."""


def build() -> Path:
    """Build vcsim into a cache folder; a second call finds it there.

    Raises:
        VcsimMissingError: Go or govmomi's sources are not installed.
    """
    sources = sorted(SOURCES.glob("*.go"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    program = Path(base) / "vcld-tests" / f"vcsim-{digest}"
    if program.exists():
        return program
    if not shutil.which("go") or not Path(GOPATH, "src/github.com/vmware/govmomi").exists():
        raise VcsimMissingError(
            "vcsim needs Debian's packages golang-go and golang-github-vmware-govmomi-dev"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    partial = program.with_suffix(f".{os.getpid()}")
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": GOPATH}
    subprocess.run(
        ["go", "build", "-o", str(partial), "."], cwd=SOURCES, env=environ, check=True, timeout=300
    )
    partial.replace(program)
    return program


@dataclass
class Vcsim:
    """One stand-alone host (``esx``) or one vCenter with a cluster (``vc``)."""

    mode: str
    #: Datastore names and the folders that hold their files.
    datastores: dict[str, Path]
    world: str = ""
    shared: Sequence[str] = ()
    hosts: int = 2
    networks: Sequence[str] = ("Private", "Public")
    #: A port that it had before; 0: any.
    port: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        options = {
            "mode": self.mode,
            "hosts": self.hosts,
            "datastores": {name: str(path) for name, path in self.datastores.items()},
            "shared": list(self.shared),
            "networks": list(self.networks),
            "world": self.world,
            "user": USER,
            "password": PASSWORD,
            "port": self.port,
        }
        self.process = subprocess.Popen(
            [str(build()), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(next(iter(self.datastores.values())).parent)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("vcsim did not start")
        self.facts = json.loads(line)
        self.port = self.facts["port"]
        return self

    def stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
            self.process.stdout.close()
            self.process = None

    def kill(self) -> None:
        """The host loses its power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(5)
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def rules(self, *rules: dict[str, Any]) -> None:
        """Say what goes wrong from now on, in place of what was said before."""
        self._control("/rules", list(rules))

    def free_space(self, *, seen: bool = True, **bytes_: int) -> None:
        """Set the free space that datastores report; unseen: once they are told to look."""
        self._control("/space" if seen else "/space?unseen=1", bytes_)

    def list_whole_disks(self) -> None:
        """List a disk as one file from now on, as real hosts do, not its descriptor and data."""
        self._control("/whole", True)

    def set_licence(self, edition: str, name: str) -> None:
        self._control("/licence", {"Edition": edition, "Name": name})

    def set_connection(self, vm: str, state: str) -> None:
        """Let VMs whose names begin so be ``invalid`` or ``inaccessible``."""
        self._control("/vm", {"Name": vm, "Connection": state})

    def statistics(self, name: str, *, mhz: int, mib: int) -> None:
        """Let VMs whose names begin so, or the host of the name, use so much.

        Without a name all do.
        """
        self._control("/stats", {"Name": name, "Cpu": mhz, "Memory": mib})

    def counted(self, *, reset: bool = False) -> dict[str, dict[str, int]]:
        """Calls by method, and the most tasks of a kind that ran at one time."""
        method = "DELETE" if reset else "GET"
        request = urllib.request.Request(f"{self.facts['control']}/calls", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, dict[str, int]] = json.load(answer)
        return found

    def _control(self, path: str, value: object) -> None:
        data = json.dumps(value).encode()
        with urllib.request.urlopen(f"{self.facts['control']}{path}", data, timeout=10):
            pass

    def connect(self) -> Any:
        """A session of the test's own, as an administrator has one."""
        return SmartConnect(
            host="127.0.0.1", port=self.port, user=USER, pwd=PASSWORD, disableSslCertValidation=True
        )

    def machines(self) -> dict[str, Any]:
        """The VMs by name, each with what it is at this moment."""
        session = self.connect()
        try:
            content = session.RetrieveContent()
            view = content.viewManager.CreateContainerView(
                content.rootFolder, [vim.VirtualMachine], True
            )
            return {vm.name: Machine(vm) for vm in view.view}
        finally:
            Disconnect(session)

    def administer(self, name: str, work: Callable[[Any], Any]) -> None:
        """Do something with a VM, as an administrator does by hand."""
        session = self.connect()
        try:
            content = session.RetrieveContent()
            kinds = [vim.VirtualMachine]
            view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
            (found,) = (vm for vm in view.view if vm.name == name)
            work(found)
        finally:
            Disconnect(session)

    def expire_sessions(self) -> int:
        """End every session but our own; return how many there were."""
        session = self.connect()
        try:
            manager = session.RetrieveContent().sessionManager
            own = manager.currentSession.key
            keys = [item.key for item in manager.sessionList if item.key != own]
            if keys:
                manager.TerminateSession(keys)
            return len(keys)
        finally:
            Disconnect(session)


class Machine:
    """A VM as an administrator sees it."""

    def __init__(self, vm: Any) -> None:
        device: Any = vim.vm.device
        self.power = str(vm.runtime.powerState)
        self.path = vm.config.files.vmPathName
        self.cpus = vm.config.hardware.numCPU
        self.memory_mib = vm.config.hardware.memoryMB
        self.guest_id = vm.config.guestId
        self.extra = {item.key: item.value for item in vm.config.extraConfig}
        devices = vm.config.hardware.device
        disks = [d.backing for d in devices if isinstance(d, device.VirtualDisk)]
        self.disks = [backing.fileName for backing in disks]
        self.parents = [backing.parent.fileName if backing.parent else None for backing in disks]
        cards = [d for d in devices if isinstance(d, device.VirtualEthernetCard)]
        self.macs = [card.macAddress for card in cards]


def wait_for_port(vcsim: Vcsim, limit_seconds: float = 10) -> None:
    """Wait until the API answers."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        try:
            Disconnect(vcsim.connect())
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("vcsim does not answer")
