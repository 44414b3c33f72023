"""xCAT's commands on a service node: by SSH, on a real host with a real sshd."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from tests.daemon import Daemon, Daemons, eventually
from tests.fake_xcat import Times
from tests.site import Site
from tests.ssh_hosts import Host, Network, wait_for_port
from tests.xcat_blades import Blades, blades_for
from vcld.errors import AuthenticationError, Blame, ConfigError, WorkerStopped
from vcld.programs import CommandStuckError, Output
from vcld.provisioning.xcat.dhcplog import open_log
from vcld.provisioning.xcat.failures import XcatMissingError
from vcld.provisioning.xcat.servicenode import SshRunner, parse_servers
from vcld.waiting import Cancellation

#: The folder of the host's disk, as the host sees it.
DISK = "/mnt"
JOURNALD = "/lib/systemd/systemd-journald"
#: Starts a real journal daemon there; it wants to see control groups.
JOURNAL = f"""
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/journal /run/log/journal
setsid {JOURNALD} < /dev/null > /dev/null 2>&1 &
until echo begin | systemd-cat -t test 2> /dev/null; do sleep 0.02; done
"""


@dataclass
class Server:
    """A host with commands below ``/mnt/xcat``, and a runner of them."""

    network: Network
    host: Host

    def command(self, name: str, body: str) -> None:
        """Put a shell script where xCAT's commands are."""
        path = self.host.folder / "xcat" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def runner(self, setting: str = "", key: Path | None = None) -> SshRunner:
        key = key or self.network.node_key
        return SshRunner(
            parse_servers(setting or self.host.private, (str(key),)),
            f"{DISK}/xcat",
            Path(f"{self.network.node_key}.known_hosts"),
            connect_seconds=5,
            log=structlog.get_logger(),
        )

    def start_journal(self) -> None:
        """Let systemd's journal daemon run on the host."""
        if not Path(JOURNALD).exists():
            pytest.fail("NOT TESTED: journald is missing: apt-get install systemd", pytrace=False)
        self.host.sh(JOURNAL)

    def processes(self, mark: str) -> list[str]:
        """Command lines on the host that hold a mark."""
        found = self.host.sh("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
        return [line for line in found.splitlines() if mark in line and "/proc/" not in line]


@pytest.fixture
def server(ssh_network: Network) -> Server:
    made = Server(ssh_network, ssh_network.host("sn1"))
    # Neither it nor its child ends by itself, or when it is asked.
    made.command(
        "hang", "trap '' TERM HUP PIPE; sh -c 'trap \"\" TERM HUP; sleep 4321' & sleep 4321"
    )
    return made


def run(
    runner: SshRunner,
    *command: str,
    limit: float = 20.0,
    cancellation: Cancellation | None = None,
) -> Output:
    return runner.run(command, limit_seconds=limit, cancellation=cancellation or Cancellation())


# --- one command


def test_arguments_arrive_as_they_are_and_so_do_output_and_code(server: Server) -> None:
    server.command("show", 'for a; do printf "<%s>" "$a"; done; echo; echo bad >&2; exit 3')
    words = ["a b", "$(touch /tmp/x)", "`id`", "it's", '"', "\\", "*", "", "-n", "x\ny", "ü"]
    found = run(server.runner(), "show", *words)
    assert found.code == 3
    assert found.out == "".join(f"<{word}>" for word in words) + "\nbad\n"


def test_many_commands_use_one_connection(server: Server) -> None:
    server.command("port", "echo $SSH_CONNECTION $XCATROOT $LC_ALL")
    runner, cancellation = server.runner(), Cancellation()
    said = {run(runner, "port", cancellation=cancellation).out for _ in range(5)}
    assert len(said) == 1
    assert said.pop().split()[-2:] == [f"{DISK}/xcat", "C"]


def test_a_command_that_hangs_is_ended_at_its_limit_with_its_children(server: Server) -> None:
    began = time.monotonic()
    with pytest.raises(CommandStuckError, match=r"hang did not end within 0\.5 s on"):
        run(server.runner(), "hang", limit=0.5)
    assert time.monotonic() - began < 15
    eventually(lambda: server.processes("4321") == [])


def test_a_command_is_asked_to_end_before_it_is_killed(server: Server) -> None:
    server.command("tidy", "trap 'echo tidied > /mnt/tidied; exit 1' TERM; sleep 60 & wait")
    with pytest.raises(CommandStuckError):
        run(server.runner(), "tidy", limit=0.5)
    assert (server.host.folder / "tidied").exists()


def test_a_child_that_keeps_the_output_open_does_not_hold_us(server: Server) -> None:
    server.command("leave", "echo node: on; sleep 4321 &")
    assert run(server.runner(), "leave").out == "node: on\n"
    eventually(lambda: server.processes("4321") == [])


def test_a_flood_is_cut_off(server: Server) -> None:
    server.command("flood", "yes node: noise")
    with pytest.raises(CommandStuckError, match="MiB"):
        run(server.runner(), "flood")
    eventually(lambda: server.processes("noise") == [])


def test_a_worker_that_must_stop_takes_its_command_along(server: Server) -> None:
    cancellation = Cancellation()
    threading.Timer(1, cancellation.stop, ["the request was deleted"]).start()
    with pytest.raises(WorkerStopped):
        run(server.runner(), "hang", limit=60, cancellation=cancellation)
    eventually(lambda: server.processes("4321") == [])


def test_a_worker_that_is_killed_takes_its_command_along(server: Server) -> None:
    pid = os.fork()
    if pid == 0:
        run(server.runner(), "hang", limit=60)
        os._exit(1)
    eventually(lambda: server.processes("4321"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    eventually(lambda: server.processes("4321") == [])


def test_a_network_that_is_cut_holds_neither_side(server: Server) -> None:
    cut = threading.Timer(1, server.host.cut)
    cut.start()
    with pytest.raises(CommandStuckError):
        run(server.runner(), "hang", limit=3)
    cut.join()
    eventually(lambda: server.processes("4321") == [])


# --- which machine


def test_a_command_that_is_not_there_is_told_with_the_remedy(server: Server) -> None:
    with pytest.raises(XcatMissingError, match=r"nodeset is not on .*: install xCAT there"):
        run(server.runner(), "nodeset")


def test_the_next_machine_is_taken_when_the_first_does_not_answer(server: Server) -> None:
    server.command("true", "exit 0")
    address = server.host.private
    runner = server.runner(f"127.0.0.1:1, root@{address}:22")
    assert run(runner, "true").code == 0
    assert runner.where == address
    with pytest.raises(CommandStuckError, match=r"127\.0\.0\.1 port 1\) cannot be reached"):
        run(server.runner("127.0.0.1:1"), "true")


def test_whom_the_machine_does_not_know_it_is_no_computers_fault(server: Server) -> None:
    key = server.host.folder / "other.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with pytest.raises(AuthenticationError, match="takes none of the management") as caught:
        run(server.runner(key=key), "true")
    assert caught.value.blame is Blame.MANAGEMENT_NODE


def test_a_machine_with_another_key_is_refused_until_its_line_is_removed(server: Server) -> None:
    server.command("true", "exit 0")
    run(server.runner(), "true")
    known = Path(f"{server.network.node_key}.known_hosts")
    assert known.read_text().startswith(f"{server.host.private} ssh-ed25519 ")
    server.host.change_key()
    with pytest.raises(AuthenticationError, match=f"remove its line from {known}") as caught:
        run(server.runner(), "true")
    assert caught.value.blame is Blame.MANAGEMENT_NODE
    known.unlink()
    assert run(server.runner(), "true").code == 0


@pytest.mark.parametrize("setting", ["-oProxyCommand=x", "a b", "a:0", "a:99999", "a@", "a;b"])
def test_a_setting_that_is_no_machine_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(setting))):
        parse_servers(setting, ())


def test_the_journal_of_the_machine_tells_of_dhcp_requests(server: Server) -> None:
    """A real journald; at first the DHCP server has not said anything in it."""
    server.start_journal()
    mac = "02:00:00:00:00:01"
    log = open_log("", mac, server.runner(), Cancellation())
    assert log.news() == []
    for text in (f"DHCPREQUEST for 10.0.0.5 from {mac} via eth1", "DHCPACK on 10.0.0.6 to 02:ff"):
        server.host.sh(f"echo '{text}' | systemd-cat -t dhcpd && journalctl --sync")
    assert log.news() == ["DHCPREQUEST"]
    server.host.sh(f"echo 'DHCPACK on 10.0.0.5 to {mac}' | systemd-cat -t dhcpd")
    server.host.sh("journalctl --sync")
    assert log.news() == ["DHCPACK"]
    assert log.news() == []
    late = open_log("journal", mac, server.runner(), Cancellation())
    assert late.news() == []


# --- through the daemon


@pytest.fixture
def blades(server: Server, site: Site, daemons: Daemons, tmp_path: Path) -> Iterator[Blades]:
    """Blades whose xCAT is on the service node only."""
    root = tmp_path / "x"
    with blades_for(site, daemons, root, times=Times(install=3)) as made:
        # A socket is found by the file: its folder is mounted on the host, whose root it is not.
        made.xcat.stop()
        made.xcat.root = server.host.folder / "fake"
        made.xcat.root.mkdir()
        made.xcat.start()
        made.xcat.install(
            server.host.folder / "xcat", f"{DISK}/fake/xcatd.socket", "/usr/bin/python3"
        )
        site.execute(f"UPDATE managementnode SET `keys` = '{server.network.node_key}'")
        made.set(servicenode=server.host.private, syslog="")
        yield made


def start(blades: Blades) -> Daemon:
    return make(blades).start()


def make(blades: Blades) -> Daemon:
    daemon = blades.daemons.make()
    daemon.environ["XCATROOT"] = f"{DISK}/xcat"
    return daemon


def test_a_blade_is_loaded_by_a_service_node(blades: Blades, server: Server) -> None:
    site = blades.site
    server.start_journal()
    log = f"{DISK}/messages"
    follow = f"exec > /dev/null 2>&1 < /dev/null; tail -f {log} | systemd-cat -t dhcpd"
    server.host.sh(f"touch {log}; setsid sh -c '{follow}' &")

    def write(line: str) -> None:
        with open(server.host.folder / "messages", "a", encoding="utf-8") as file:
            file.write(line.partition("dhcpd[812]: ")[2] + "\n")

    for node in blades.xcat.nodes.values():
        node.hooks.log = write
    daemon = start(blades)
    request = site.ask("reload", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert site.computer(1) == "available", daemon.describe()
    assert blades.node().disk == "simulator-first-v1"
    assert daemon.events("load state", loadstate="xcatstage1"), daemon.describe()


def test_a_service_node_that_is_away_in_mid_load_costs_nothing(
    blades: Blades, server: Server
) -> None:
    site = blades.site
    blades.set(daemon_patience=60)
    daemon = start(blades)
    request = site.ask("reload", 1)
    eventually(lambda: "xcatstage5" in site.steps(request), daemon.describe)
    server.host.sh("/etc/init.d/ssh stop; pkill -KILL sshd", check=False)
    eventually(lambda: daemon.events("the load is not seen for now"), daemon.describe, 40)
    server.host.sh("/etc/init.d/ssh start > /dev/null 2>&1 < /dev/null")
    wait_for_port(server.host.private)
    eventually(lambda: site.pair(request) == "gone", daemon.describe, 60)
    assert site.computer(1) == "available", daemon.describe()
    assert blades.node().installs == 1


def test_the_check_asks_the_service_node_and_names_it_when_it_is_away(
    blades: Blades, server: Server
) -> None:
    blades.loaded(1)
    daemon = make(blades)
    done = daemon.command("xcat", "check", "blade1", "blade2")
    assert "all is well" in done.stdout, done.stdout + done.stderr
    blades.xcat.stop()
    done = daemon.command("xcat", "check", "blade1")
    assert f"see 'systemctl status xcatd' on {server.host.private}" in done.stdout
    server.host.sh("/etc/init.d/ssh stop; pkill -KILL sshd", check=False)
    done = daemon.command("xcat", "check", "blade1")
    assert done.returncode == 10
    assert f"{server.host.private} port 22) cannot be reached" in done.stdout
