"""Real hosts with real OpenSSH servers, each in namespaces of its own.

A host has its own addresses, firewall, accounts, processes, ``/etc``, ``/home``, ``/usr`` and
``/var``; what happens on it leaves the machine alone. It boots as SysV init does, or with a real
systemd as its first process (``init="systemd"``; its namespaces are those of a container, so
there is no udev). The networks: ``private``, where the management node is; ``public``, where users are;
``inside``, behind the NAT host. Needs root and the packages that tools/need-hosts installs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

INIT = Path(__file__).with_name("ssh_host_init.sh")
#: The public network exists only inside the namespaces, so every run may use the same.
PUBLIC, INSIDE = "198.51.100", "203.0.113"
NEEDED = ("ip", "nft", "iptables", "unshare", "nsenter", "sshd", "ssh", "ss", "useradd")
_numbers = itertools.count(1)


class HostsMissingError(Exception):
    """No such hosts can be made here; the message says why."""


def run(*command: str, check: bool = True, stdin: str | None = None) -> str:
    """Run a command of the machine; its standard output."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{shlex.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


@dataclass
class Host:
    """One host. ``private`` and ``public`` are its addresses."""

    network: Network
    name: str
    number: int
    folder: Path
    #: ``sysv`` or ``systemd``.
    system: str = "sysv"
    private: str = ""
    public: str = ""
    inside: str = ""
    init: subprocess.Popen[bytes] | None = None
    pid: int = 0

    @property
    def namespace(self) -> str:
        return f"{self.network.tag}h{self.number}"

    def boot(self) -> Host:
        """Switch it on and wait until its boot scripts have run."""
        if self.init is not None and self.init.poll() is None:
            return self
        (self.folder / "booted").unlink(missing_ok=True)
        with open(self.folder / "console.log", "ab") as console:
            self.init = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.namespace,
                 "unshare", "--mount", "--uts", "--pid",
                 "--ipc", "--fork", "--kill-child", "bash", str(INIT), str(self.folder), self.name,
                 self.system, f"vcld-{self.namespace}"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True,
            )  # fmt: skip
        self.await_boot()
        return self

    def await_boot(self) -> None:
        deadline = time.monotonic() + 30
        while not (self.folder / "booted").exists():
            if self.init is None or self.init.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "console.log").read_text(errors="replace")
                raise AssertionError(f"host {self.name} did not boot:\n{log}")
            time.sleep(0.01)
        assert self.init is not None
        # The command becomes unshare, whose one child is the host's first process; with systemd
        # that keeps another unshare, whose child is systemd.
        self.pid = _only_child(self.init.pid)
        if self.system == "systemd":
            self.pid = _only_child(_only_child(self.pid))

    @property
    def is_on(self) -> bool:
        return self.init is not None and self.init.poll() is None

    def power_off(self) -> None:
        """Pull the plug. The disk is lost too: a boot after it is a fresh installation."""
        if self.init is not None:
            self.init.kill()
            self.init.wait(10)
            self.pid = 0

    def sh(self, script: str, *, check: bool = True) -> str:
        """Act on the host as somebody at its console; standard output."""
        return run(
            "nsenter", "-t", str(self.pid), "--mount", "--uts", "--pid", "--ipc", "--net",
            "--cgroup", "--root", "--wd", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", script,
            check=check,
        )  # fmt: skip

    def restart(self) -> None:
        """Reset it as a power button does; the disk stays."""
        (self.folder / "booted").unlink()
        if self.system == "systemd":
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.sh("echo reboot > /run/initctl", check=False)  # it may end with the rest
        self.await_boot()

    def change_key(self) -> None:
        """Give it another host key, as a new installation would."""
        self.sh("cd /etc/ssh && rm ssh_host_* && ssh-keygen -q -t ed25519 -N '' "
                "-f ssh_host_ed25519_key && /etc/init.d/ssh restart >/dev/null 2>&1 </dev/null")  # fmt: skip
        wait_for_port(self.private)

    def users(self) -> list[str]:
        """Accounts that people could have."""
        lines = (line.split(":") for line in self.sh("getent passwd").splitlines())
        return sorted(f[0] for f in lines if 500 <= int(f[2]) < 65000 and f[0] not in _own_users())

    def cut(self) -> None:
        """The network swallows every packet, both ways, and tells nobody."""
        self.sh("tc qdisc add dev eth0 root netem loss 100% || "
                "nft add table inet cut && nft 'add chain inet cut i { type filter hook input "
                "priority -300; policy drop; }' && nft 'add chain inet cut o { type filter hook "
                "output priority -300; policy drop; }'")  # fmt: skip

    def remove(self) -> None:
        self.power_off()
        run("ip", "netns", "del", self.namespace, check=False)
        if self.system == "systemd":
            _remove_groups(f"vcld-{self.namespace}")


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return int(children.split()[0])


def _remove_groups(name: str) -> None:
    """Remove the control groups of a host, once its last process is gone from them."""
    mounts = Path("/proc/mounts").read_text(encoding="ascii").splitlines()
    roots = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    deadline = time.monotonic() + 10
    for root in roots[:1]:
        while list(Path(root).glob(f"{name}.*")) and time.monotonic() < deadline:
            run("find", root, "-depth", "-type", "d", "-path", f"{root}/{name}.*",
                "-exec", "rmdir", "{}", "+", check=False)  # fmt: skip
            time.sleep(0.02)


def _own_users() -> set[str]:
    """Accounts of the machine, which shine through into every host."""
    text = Path("/etc/passwd").read_text(encoding="utf-8")
    return {line.split(":")[0] for line in text.splitlines()}


@dataclass
class Network:
    """The three networks of a test, and what is on them."""

    folder: Path
    tag: str = ""
    prefix: str = ""
    hosts: list[Host] = field(default_factory=list)
    clients: dict[str, str] = field(default_factory=dict)

    def build(self) -> Network:
        missing = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
        if missing or os.geteuid() != 0:
            why = f"{', '.join(missing)} missing" if missing else "root is needed"
            raise HostsMissingError(f"{why}; see tools/need-hosts")
        self.tag = f"v{os.getpid() % 100000}{next(_numbers) % 100}"
        for bridge in "pui":
            run("ip", "link", "add", f"{self.tag}{bridge}", "type", "bridge")
            run("ip", "link", "set", f"{self.tag}{bridge}", "up")
        self.prefix = self._choose_prefix()
        self.node_key = self.folder / "node.key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.node_key))
        return self

    def _choose_prefix(self) -> str:
        """A network of the management node that nobody on the machine uses yet."""
        for _ in range(50):
            prefix = f"10.{random.randrange(64, 240)}.{random.randrange(256)}"
            taken = run("ip", "-4", "-o", "addr")
            if f" {prefix}." not in taken:
                run("ip", "addr", "add", f"{prefix}.1/24", "dev", f"{self.tag}p")
                # Two runs may have drawn the same: the one that finds the other's gives way.
                if run("ip", "-4", "-o", "addr").count(f" {prefix}.1/") == 1:
                    return prefix
                run("ip", "addr", "del", f"{prefix}.1/24", "dev", f"{self.tag}p")
        raise AssertionError("no free network was found")

    @property
    def node_address(self) -> str:
        """The management node's address as the hosts see it."""
        return f"{self.prefix}.1"

    def host(
        self,
        name: str,
        *,
        networks: Sequence[str] = ("private", "public"),
        prepare: str = "",
        is_awaited: bool = True,
        system: str = "sysv",
    ) -> Host:
        """Install and boot a host.

        ``prepare`` is a shell script run before its first boot; without ``is_awaited`` nobody
        will listen on port 22.
        """
        number = len(self.hosts) + 11
        folder = self.folder / name
        folder.mkdir()
        host = Host(self, name, number, folder, system)
        self.hosts.append(host)
        run("ip", "netns", "add", host.namespace)
        self._ns(host.namespace, "ip", "link", "set", "lo", "up")
        places = {"private": self.prefix, "public": PUBLIC, "inside": INSIDE}
        for index, kind in enumerate(networks):
            address = f"{places[kind]}.{number}"
            self._plug(host.namespace, f"eth{index}", kind, address)
            setattr(host, kind, address)
        shutil.copy(self.node_key.with_suffix(".key.pub"), folder / "authorized_keys")
        if not is_awaited:
            prepare = f"touch /mnt/silent\n{prepare}"
        if prepare:
            script = folder / "prepare"
            script.write_text(f"#!/bin/sh -e\n{prepare}\n", encoding="utf-8")
            script.chmod(0o755)
        return host.boot()

    def client(self, name: str, number: int) -> str:
        """A user's computer on the public network; returns its address."""
        namespace = f"{self.tag}c{number}"
        run("ip", "netns", "add", namespace)
        self._ns(namespace, "ip", "link", "set", "lo", "up")
        address = f"{PUBLIC}.{number}"
        self._plug(namespace, "eth0", "public", address)
        self.clients[name] = namespace
        return address

    def _plug(self, namespace: str, device: str, kind: str, address: str) -> None:
        end = f"{self.tag}{next(_numbers)}"[-15:]
        run("ip", "link", "add", end, "type", "veth", "peer", "name", device, "netns", namespace)
        bridge = f"{self.tag}{ {'private': 'p', 'public': 'u', 'inside': 'i'}[kind] }"
        run("ip", "link", "set", end, "master", bridge, "up")
        self._ns(namespace, "ip", "addr", "add", f"{address}/24", "dev", device)
        self._ns(namespace, "ip", "link", "set", device, "up")

    def _ns(self, namespace: str, *command: str) -> str:
        return run("ip", "netns", "exec", namespace, *command)

    def on_client(self, name: str, *command: str) -> list[str]:
        """The command line that runs a command on a user's computer."""
        return ["ip", "netns", "exec", self.clients[name], *command]

    def reaches(self, client: str, address: str, port: int = 22) -> bool:
        """True when a user's computer gets a TCP connection within a second."""
        probe = f"import socket; socket.create_connection(({address!r}, {port}), 1)"
        done = subprocess.run(
            self.on_client(client, sys.executable, "-c", probe),
            capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def remove(self) -> None:
        for host in self.hosts:
            host.remove()
        for namespace in self.clients.values():
            run("ip", "netns", "del", namespace, check=False)
        for bridge in "pui":
            run("ip", "link", "del", f"{self.tag}{bridge}", check=False)


class Login:
    """A user's ``ssh`` with a password, as typed on a computer of the public network."""

    def __init__(
        self, network: Network, client: str, user: str, address: str, password: str,
        *, command: str = "cat", port: int = 22, thinks: str = ":", terminal: bool = False,
    ) -> None:  # fmt: skip
        """``thinks`` is what the user's shell does before the password is typed."""
        ask = network.folder / f"askpass{next(_numbers)}"
        ask.write_text(
            f"#!/bin/sh\n{thinks}\nprintf '%s\\n' {shlex.quote(password)}\n", encoding="utf-8"
        )
        ask.chmod(0o700)
        self.process = subprocess.Popen(
            network.on_client(
                client, "ssh", "-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=3",
                "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR",
                "-o", "PubkeyAuthentication=no", "-tt" if terminal else "-T", f"{user}@{address}",
                command,
            ),
            env={**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def result(self, limit_seconds: float = 20) -> tuple[int, str]:
        """Exit code and all output."""
        out, err = self.process.communicate(timeout=limit_seconds)
        return self.process.returncode, (out + err).decode(errors="replace")

    def says(self, text: str) -> str:
        """Type a line to the session and return the line it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode(errors="replace").rstrip("\n")

    def hears(self, text: str, limit_seconds: float = 20) -> str:
        """Everything that the session shows until this text is there."""
        assert self.process.stdout is not None
        seen, deadline = b"", time.monotonic() + limit_seconds
        while text.encode() not in seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, left))
            data = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not data:
                raise AssertionError(f"the session does not show {text!r}: {seen!r}")
            seen += data
        return seen.decode(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def load_key(path: Path) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def wait_for_port(address: str, port: int = 22, limit_seconds: float = 10) -> None:
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextlib.contextmanager
def network_for(folder: Path) -> Iterator[Network]:
    """Networks and hosts for a test; nothing stays behind."""
    network = Network(folder)
    try:
        yield network.build()
    finally:
        network.remove()
