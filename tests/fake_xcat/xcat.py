"""The fake xcatd: listens on a socket, keeps the nodes, lets their time pass."""

from __future__ import annotations

import contextlib
import json
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fake_xcat import client, commands
from tests.fake_xcat.faults import Fault
from tests.fake_xcat.nodes import Hooks, Node, Times

#: Where real xCAT has each command.
SBIN = frozenset({"nodeset", "makedhcp", "makedns", "rinstall", "imgcapture", "tabdump"})
#: Faults of a whole command; the others are of single nodes.
WHOLE = frozenset({"hang", "flood", "no-newline", "bad-utf8", "cut", "refuse"})


@dataclass(frozen=True)
class Call:
    """A command that was run."""

    at: float
    command: str
    arguments: tuple[str, ...]


@dataclass
class FakeXcat:
    """One fake xCAT under ``root``; use it as a context manager."""

    root: Path
    times: Times = field(default_factory=Times)
    #: ``nodeset NODE install`` and ``image`` still work, as before xCAT 2.9.
    has_old_forms: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    osimages: dict[str, dict[str, str]] = field(default_factory=dict)
    site: dict[str, str] = field(default_factory=lambda: {"master": "10.0.0.1"})
    #: Nodes that the DHCP server was not told of.
    without_dhcp: set[str] = field(default_factory=set)
    #: The DHCP server does not run: ``nodeset`` says so, and does the rest.
    is_dhcp_down: bool = False
    faults: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    hooks: Hooks = field(default_factory=Hooks)
    #: How long every command takes at least, in seconds.
    delay: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._server: Server | None = None
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self.hooks = replace(self.hooks, log=self._log, capture=self._capture)

    @property
    def syslog(self) -> Path:
        return self.root / "messages"

    @property
    def images(self) -> Path:
        """Where captured images are kept, as ``<installpath>/image/x86``."""
        return self.root / "install" / "image" / "x86"

    def __enter__(self) -> FakeXcat:
        for folder in ("bin", "sbin", "install/image/x86"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.syslog.touch()
        self.install(self.root, str(self._socket))
        self.start()
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._ended.set()
        self._clock.join()

    def install(self, root: Path, socket: str, python: str = sys.executable) -> None:
        """Put the commands below a folder; ``socket`` is the path by which they find xcatd."""
        body = f"#!{python} -IS\n{Path(client.__file__).read_text()}\nsys.exit(main({socket!r}))\n"
        for name in commands.HANDLERS:
            path = root / ("sbin" if name in SBIN else "bin") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
            path.chmod(0o755)

    def start(self) -> None:
        """Start the fake xcatd."""
        self._server = Server(str(self._socket), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop it; commands cannot connect from now on. The nodes live on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self._socket.unlink(missing_ok=True)

    def add_node(self, name: str, **attributes: str) -> Node:
        number = len(self.nodes) + 1
        facts = {
            "groups": "all,blade,compute", "mgt": "ipmi", "bmc": f"10.1.0.{number}",
            "mac": f"02:00:00:00:00:{number:02x}", "ip": f"10.0.0.{number}", "arch": "x86_64",
            "os": "rhels8", "profile": "compute", "netboot": "xnba", "currstate": "boot",
            "status": "defined",
        }  # fmt: skip
        node = Node(name, {**facts, **attributes}, self.times, self.hooks)
        self.nodes[name] = node
        return node

    def add_osimage(self, name: str, **attributes: str) -> None:
        facts = {
            "profile": name, "provmethod": "install", "osvers": "rhels8", "osarch": "x86_64",
            "imagetype": "linux",
        }  # fmt: skip
        self.osimages[name] = {**facts, **attributes}

    def fault(self, command: str, kind: str, **facts: Any) -> Fault:
        """Let a command go wrong from now on."""
        made = Fault(command, kind, **facts)
        with self._lock:
            self.faults.append(made)
        return made

    def count(self, command: str, *arguments: str) -> int:
        """How often it was run with these among its arguments."""
        return sum(
            call.command == command and set(arguments) <= set(call.arguments)
            for call in list(self.calls)
        )

    def find_fault(self, command: str, node: str | None, arguments: list[str]) -> Fault | None:
        whole = node is None
        for fault in self.faults:
            if (fault.kind in WHOLE) == whole and fault.concerns(command, node, arguments):
                fault.strike()
                return fault
        return None

    def note_capture(self, node: Node, image: str) -> None:
        """An image of the node's disk is there, as files in the repository."""
        self.images.mkdir(parents=True, exist_ok=True)
        (self.images / f"{image}.img").write_bytes(b"disk " * 300_000)
        node.disk = image

    def serve(self, command: str, arguments: list[str]) -> bytes:
        """Answer one command; empty: the daemon dies in the middle."""
        if self.delay:
            time.sleep(self.delay)
        with self._lock:
            self.calls.append(Call(time.monotonic(), command, tuple(arguments)))
            names = arguments[0].split(",") if arguments else []
            fault = next(
                (
                    f for f in self.faults
                    if f.kind in WHOLE and f.concerns(command, f.node, arguments)
                    and (f.node is None or f.node in names)
                ),
                None,
            )  # fmt: skip
            found = commands.Answer()
            if fault is not None:
                fault.strike()
                if fault.kind == "cut":
                    return b""
                if fault.kind == "refuse":
                    found.fail(fault.text)
                else:
                    found.act = fault.kind
            else:
                found = commands.answer(self, command, arguments)
        facts = {
            "out": "".join(f"{line}\n" for line in found.out),
            "err": "".join(f"{line}\n" for line in found.err),
            "code": found.code,
            "act": found.act,
        }
        return json.dumps(facts).encode()

    @property
    def _socket(self) -> Path:
        return self.root / "xcatd.socket"

    def _tick(self) -> None:
        while not self._ended.wait(0.02):
            with self._lock:
                now = time.monotonic()
                for node in self.nodes.values():
                    node.advance(now)

    def _log(self, line: str) -> None:
        with open(self.syslog, "a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def _capture(self, node: Node, share: float) -> None:
        image = node.attributes["profile"]
        marker = "capturefailed" if image.startswith("unwritable") else "capturedone"
        path = self.images / f"{image}.img"
        with open(path, "ab") as disk:
            disk.truncate(int(share * 3 * 2**20) + 1)
        if share >= 1.0:
            (self.images / f"{image}.img.{marker}").touch()


class Server(socketserver.ThreadingUnixStreamServer):
    """One thread a command, as xcatd has one process for each."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, path: str, xcat: FakeXcat) -> None:
        self.xcat = xcat
        super().__init__(path, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(socketserver.StreamRequestHandler):
    """One command."""

    server: Server

    def handle(self) -> None:
        command, arguments, _pid = json.loads(self.rfile.readline())
        self.wfile.write(self.server.xcat.serve(command, arguments))


@contextlib.contextmanager
def fake_xcat(root: Path, **facts: Any) -> Iterator[FakeXcat]:
    """A fake xCAT that runs until the block ends."""
    with FakeXcat(root, **facts) as made:
        yield made
