"""The SSH layer against real OpenSSH servers on hosts of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.ssh_hosts import Host, Network, run
from vcld.errors import (
    AuthenticationError,
    CommandTimeoutError,
    ConnectionLostError,
    FatalProvisioningError,
    HostKeyChangedError,
    RemoteError,
    WorkerStopped,
)
from vcld.remote import dialling
from vcld.remote.endpoint import Endpoint, load_key
from vcld.remote.identity import MemoryHostKeys
from vcld.remote.remote import Remote
from vcld.waiting import Cancellation

RESTART = "/etc/init.d/ssh restart >/dev/null 2>&1 </dev/null"


def make_remote(
    network: Network,
    address: str,
    *,
    keys: tuple[str, ...] = (),
    port: int = 22,
    user: str = "root",
    host_keys: MemoryHostKeys | None = None,
    cancellation: Cancellation | None = None,
    connect_seconds: float = 10,
) -> Remote:
    endpoint = Endpoint(
        name="vm1", address=address, port=port, user=user, keys=keys or (str(network.node_key),)
    )
    return Remote(
        endpoint,
        host_keys or MemoryHostKeys(),
        cancellation or Cancellation(),
        connect_seconds=connect_seconds,
        log=structlog.get_logger(),
    )


@pytest.fixture
def host(ssh_network: Network) -> Host:
    return ssh_network.host("vm1")


@pytest.fixture
def remote(host: Host) -> Iterator[Remote]:
    made = make_remote(host.network, host.private)
    yield made
    made.close()


def test_many_commands_use_one_connection(host: Host, remote: Remote) -> None:
    ports = {remote.run("echo $SSH_CONNECTION").output for _ in range(5)}

    assert len(ports) == 1
    assert remote.run(["id", "-un"]).output == "root\n"
    assert remote.run("exit 7").status == 7


def test_arguments_reach_the_program_as_they_are(remote: Remote) -> None:
    odd = ["a b", "'\"", "$(touch /tmp/trap)", "`x`", ";", "line\nend", "Zoë ✓", "*", "-n", ""]

    result = remote.run(["printf", "[%s]", *odd])

    assert result.output == "".join(f"[{word}]" for word in odd)
    assert remote.run(["test", "-e", "/tmp/trap"]).status == 1
    with pytest.raises(ValueError, match="NUL"):
        remote.run(["echo", "a\0b"])


def test_secret_on_standard_input_is_in_no_process_list(host: Host, remote: Remote) -> None:
    seen: list[str] = []

    def watch() -> None:
        seen.append(host.sh("sleep 0.3; ps axww -o args"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = remote.run("read -r word; sleep 1; echo ${#word}", stdin=b"tr0ub4dor\n")
    watcher.join()

    assert result.output == "9\n"
    assert "sleep 1" in seen[0]
    assert "tr0ub4dor" not in seen[0]


def test_output_is_bounded_and_bad_text_is_no_trouble(remote: Remote) -> None:
    result = remote.run(r"printf 'no line end \377\376 \303\251'")
    assert result.output == "no line end �� é"

    much = remote.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert much.truncated
    assert len(much.output) == 1 << 20


def test_fault_45_a_command_that_floods_is_ended(host: Host, remote: Remote) -> None:
    with pytest.raises(RemoteError, match="wrote more than 16 MiB"):
        remote.run("yes | head -c 100000000")

    assert remote.run("echo well").output == "well\n"


def test_fault_45_a_command_that_hangs_ends_at_its_limit(host: Host, remote: Remote) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimeoutError, match="did not end within 1 s"):
        remote.run("sleep 600", limit_seconds=1)

    assert time.monotonic() - began < 5
    assert remote.run("echo well").output == "well\n"


def test_worker_that_must_stop_does_not_wait_for_a_command(host: Host) -> None:
    cancellation = Cancellation()
    remote = make_remote(host.network, host.private, cancellation=cancellation)
    remote.connect()
    timer = threading.Timer(0.3, cancellation.stop, ["the request was deleted"])
    timer.start()

    began = time.monotonic()
    with pytest.raises(WorkerStopped):
        remote.run("sleep 600")

    assert time.monotonic() - began < 5
    remote.close()


def test_fault_42_connect_that_nobody_answers_ends_at_its_limit(ssh_network: Network) -> None:
    nobody = f"{ssh_network.prefix}.99"
    remote = make_remote(ssh_network, nobody, connect_seconds=1)

    began = time.monotonic()
    with pytest.raises(RemoteError, match=rf"vm1 \({nobody} port 22\) cannot be reached"):
        remote.run("true")

    assert time.monotonic() - began < 4


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-Slow\r\n"])
def test_fault_43_server_that_falls_silent_ends_at_the_limit(
    ssh_network: Network, greeting: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            made, _ = server.accept()
            made.sendall(greeting)
            held.append(made)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        remote = make_remote(
            ssh_network, "127.0.0.1", port=server.getsockname()[1], connect_seconds=1
        )

        began = time.monotonic()
        with pytest.raises(RemoteError, match="port"):
            remote.run("true")

        assert time.monotonic() - began < 5
        thread.join(5)
        held[0].close()


def test_fault_44_restarted_host_is_reached_on_a_new_connection(host: Host, remote: Remote) -> None:
    first = remote.run("cat /proc/sys/kernel/random/boot_id").output

    host.restart()

    assert remote.run("cat /proc/sys/kernel/random/boot_id").output != first


def test_fault_44_connection_to_a_vanished_host_is_known_dead_within_15_s(
    host: Host, remote: Remote
) -> None:
    remote.run("true")
    connection = remote.connect()
    host.cut()

    began = time.monotonic()
    with pytest.raises(ConnectionLostError, match="vm1"):
        connection.run("true", limit_seconds=60)

    assert time.monotonic() - began < 15
    assert not connection.is_alive


def test_fault_44_idle_connection_is_known_dead_within_15_s(host: Host, remote: Remote) -> None:
    connection = remote.connect()
    host.cut()

    began = time.monotonic()
    while connection.is_alive and time.monotonic() - began < 20:
        time.sleep(0.1)

    assert time.monotonic() - began < 15


def test_fault_48_changed_host_key_is_refused_and_the_remedy_named(
    host: Host, remote: Remote
) -> None:
    remote.run("true")
    remote.close()
    host.change_key()

    with pytest.raises(HostKeyChangedError, match=r"SHA256:.* vcld hostkey forget vm1"):
        remote.wait_until_up(20)

    remote.host_keys.forget()
    assert remote.run("echo well").output == "well\n"


def test_key_that_is_known_stays_good_when_the_host_gets_further_ones(
    host: Host, remote: Remote
) -> None:
    host.sh(f"rm /etc/ssh/ssh_host_ed25519_key; {RESTART}")
    remote.wait_until_up(20)
    known = remote.host_keys.find() or ""
    assert known.startswith("ecdsa-sha2-nistp256 ")

    host.sh("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"
            f" && {RESTART}")  # fmt: skip
    remote.wait_until_up(20)

    assert remote.host_keys.find() == known


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_every_kind_of_key_opens_the_host(host: Host, tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key))
    host.sh(f"echo '{key.with_suffix('.pub').read_text().strip()}' >> /root/.ssh/authorized_keys")

    remote = make_remote(host.network, host.private, keys=(str(key),))

    assert remote.run("echo well").output == "well\n"
    remote.close()


def test_fault_49_keys_that_are_refused_are_named(host: Host, tmp_path: Path) -> None:
    key = tmp_path / "other.key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))

    remote = make_remote(host.network, host.private, keys=(str(key),))
    with pytest.raises(AuthenticationError, match=r"takes none of .*other\.key.* for root"):
        remote.run("true")

    # The second one is right.
    remote = make_remote(host.network, host.private, keys=(str(key), str(host.network.node_key)))
    assert remote.run("echo well").output == "well\n"
    remote.close()


def test_fault_49_locked_account_is_refused_as_a_wrong_key_is(host: Host) -> None:
    host.sh("usermod -e 1 root")

    with pytest.raises((AuthenticationError, RemoteError), match="vm1"):
        make_remote(host.network, host.private).run("true")


def test_key_that_others_can_read_or_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "opensesame", "-f", str(key))
    with pytest.raises(FatalProvisioningError, match="without a passphrase"):
        load_key(str(key))
    key.chmod(0o644)
    with pytest.raises(FatalProvisioningError, match="chmod 600"):
        load_key(str(key))
    with pytest.raises(FatalProvisioningError, match="No such file"):
        load_key(str(tmp_path / "none"))


def test_server_that_begins_to_listen_is_seen_at_once(host: Host, remote: Remote) -> None:
    host.sh("/etc/init.d/ssh stop")
    started: list[float] = []

    def start() -> None:
        host.sh("/etc/init.d/ssh start")
        started.append(time.monotonic())

    timer = threading.Timer(2.0, start)
    timer.start()
    remote.wait_until_up(30)
    seen = time.monotonic()
    timer.join()

    # Half a second for the look, and as much for a machine that is busy with other tests.
    assert seen - started[0] < 1.0


class _Recorder(Cancellation):
    """Waits as ever, and keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, seconds: float, *fds: int) -> list[int]:
        self.asked.append(seconds)
        return super().wait(seconds, *fds)


@pytest.mark.parametrize("fate", ["refused", "swallowed", "closed"])
def test_no_look_at_a_server_is_half_a_second_after_the_last(
    ssh_network: Network, fate: str
) -> None:
    """The schedule, whatever the machine's speed: what is waited between two attempts."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    address = f"{ssh_network.prefix}.99" if fate == "swallowed" else "127.0.0.1"
    if fate == "refused":
        server.close()
    cancellation = _Recorder()
    starts: list[int] = []

    class Counted(dialling._Attempts):
        def start(self, places: Any) -> None:
            starts.append(len(cancellation.asked))
            super().start(places)

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    endpoint = Endpoint(name="vm1", address=address, port=port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialling, "_Attempts", Counted)
        with pytest.raises(RemoteError, match="cannot be reached"):
            dialling.dial(endpoint, cancellation, limit_seconds=3, persist=True)
    server.close()

    assert len(starts) >= 3
    between = [sum(cancellation.asked[a:b]) for a, b in itertools.pairwise(starts)]
    assert max(between) <= 0.5


def test_server_that_was_away_is_asked_often_again(host: Host, remote: Remote) -> None:
    """One that refuses our key is asked ever less; not one that has gone and come back."""
    host.sh("mv /root/.ssh/authorized_keys /root/.ssh/away")
    cancellation = _Recorder()
    waiting = make_remote(host.network, host.private, cancellation=cancellation)
    thread = threading.Thread(target=waiting.wait_until_up, args=(60,))
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while max(cancellation.asked[:-1], default=0) < 0.5 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        host.sh("/etc/init.d/ssh stop; pkill -x sshd; sleep 1; mv /root/.ssh/away"
                " /root/.ssh/authorized_keys; /etc/init.d/ssh start", check=False)  # fmt: skip
        thread.join(30)
    assert not thread.is_alive()
    assert waiting.run("echo well").output == "well\n"
    waiting.close()


def test_name_that_the_resolver_ponders_does_not_hold_a_worker(
    ssh_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def ponder(*_: object, **__: object) -> list[object]:
        over.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", ponder)
    remote = make_remote(ssh_network, "vm1.example.edu", connect_seconds=1)

    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"no answer about the name vm1\.example\.edu"):
        remote.run("true")

    assert time.monotonic() - began < 5
    over.set()


def test_every_address_of_a_name_is_tried(
    host: Host, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def two(_name: str, port: int, **facts: Any) -> list[Any]:
        return [*real("::1", 1, **facts), *real(host.private, port, **facts)]

    monkeypatch.setattr(socket, "getaddrinfo", two)

    made = make_remote(host.network, "vm1.example.edu")
    assert made.run("echo well").output == "well\n"
    made.close()


def test_wait_for_a_host_that_stays_away_ends_with_the_last_reason(
    host: Host, remote: Remote
) -> None:
    host.sh("/etc/init.d/ssh stop")

    with pytest.raises(RemoteError, match="cannot be reached: Connection refused"):
        remote.wait_until_up(1)


def test_files_go_both_ways_whole(host: Host, remote: Remote, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "here").write_bytes(data)

    remote.put(tmp_path / "here", "/root/there it's", mode=0o640)
    remote.get("/root/there it's", tmp_path / "back")
    remote.put(b"text", "/root/small")

    assert (tmp_path / "back").read_bytes() == data
    assert host.sh("cd /root; stat -c %a there*; cat small; ls -A") == (
        "640\ntext.ssh\nsmall\nthere it's\n"
    )


def test_fault_54_copy_that_breaks_off_leaves_the_old_file(
    host: Host, remote: Remote, tmp_path: Path
) -> None:
    host.sh("echo old > /root/file; mkdir /root/full; mount -t tmpfs -o size=1m tmpfs /root/full;"
            "echo old > /root/full/file")  # fmt: skip

    with pytest.raises(RemoteError, match="/root/full/file could not be written on vm1"):
        remote.put(os.urandom(3_000_000), "/root/full/file")
    with pytest.raises(RemoteError, match="/root/nothing could not be fetched from vm1"):
        remote.get("/root/nothing", tmp_path / "back")

    assert host.sh("cat /root/full/file; ls -A /root/full") == "old\nfile\n"
    assert not list(tmp_path.glob(".back*"))
    assert not (tmp_path / "back").exists()


def test_stopped_server_does_not_hold_a_worker(host: Host, remote: Remote) -> None:
    remote.run("true")
    pids = host.sh("pgrep -x sshd").split()
    host.sh(f"kill -STOP {' '.join(pids)}")

    began = time.monotonic()
    with pytest.raises(CommandTimeoutError):
        remote.run("true", limit_seconds=2)

    assert time.monotonic() - began < 8
    host.sh(f"kill -CONT {' '.join(pids)}")
    assert remote.run("echo well").output == "well\n"


def test_hosts_keep_to_themselves(ssh_network: Network) -> None:
    one, two = ssh_network.host("one"), ssh_network.host("two")

    one.sh("useradd -m vcldtest1; touch /tmp/only-here /etc/only-here")

    assert one.users() == ["vcldtest1"]
    assert two.users() == []
    assert not Path("/etc/only-here").exists()
    assert subprocess.run(["id", "vcldtest1"], capture_output=True, check=False).returncode
    assert two.sh("ls /tmp") == ""
