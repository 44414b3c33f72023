"""``python -m bench.ssh``: fifty Linux computers reserved at once, beside ``ssh`` by the step.

Each computer is a host of its own with a real OpenSSH server. Ours: one worker process for
each, all at once, as the daemon forks them. Beside it, the steps of a reserve as one ``ssh``
command each, one after another, as the Perl daemon works: the same steps, the same hosts. CPU
is that of the client side only; the servers share the machine in both cases.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tests.ssh_guests import SSH, Bench, account
from tests.ssh_hosts import Host, Network, network_for

RESULTS = Path(__file__).parent / "results" / "ssh.json"
#: What a reserve does, as commands that each take a login.
STEPS = (
    "getent group vcl || groupadd vcl",
    "getent passwd {user}",
    "df -T /home",
    "useradd -s /bin/bash -m -d /home/{user} -g vcl -u {uid} {user}",
    "echo {user}:secret | chpasswd",
    "sed -i '/Added by VCL/d' /etc/sudoers",
    "ip -o -4 addr show",
    "cat /etc/ssh/external_sshd_config",
    "sed -i -e '/^AllowUsers/d' -e '/^DenyUsers/d' /etc/ssh/external_sshd_config;"
    " echo 'AllowUsers {user}' >> /etc/ssh/external_sshd_config",
    "cat /etc/ssh/sshd_config",
    "sshd -t -f /etc/ssh/external_sshd_config",
)


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _at_once(hosts: list[Host], work: Callable[[Host], None]) -> tuple[float, float]:
    """Do it for every host in a process of its own; seconds, and CPU seconds a host."""
    context = multiprocessing.get_context("fork")
    before, began = _cpu(resource.RUSAGE_CHILDREN), time.monotonic()
    workers = [context.Process(target=work, args=(host,)) for host in hosts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    failed = sum(worker.exitcode != 0 for worker in workers)
    if failed:
        raise SystemExit(f"{failed} of {len(hosts)} failed")
    seconds = time.monotonic() - began
    return seconds, (_cpu(resource.RUSAGE_CHILDREN) - before) / len(hosts)


def _post_load(host: Host) -> None:
    Bench(host).guest().post_load()


def _reserve(host: Host) -> None:
    Bench(host).guest().reserve([account()])


def _grant(host: Host) -> None:
    Bench(host).guest().grant_access([SSH])


def _sanitize(host: Host) -> None:
    Bench(host).guest().sanitize([])


def _by_ssh(network: Network, hosts: list[Host]) -> tuple[float, float]:
    before, began = _cpu(resource.RUSAGE_CHILDREN), time.monotonic()
    for host in hosts:
        for step in STEPS:
            subprocess.run(
                ["ssh", "-F", "none", "-x", "-i", str(network.node_key),
                 "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                 "-o", "ConnectTimeout=30", "-o", "PasswordAuthentication=no", "-l", "root",
                 host.private, step.format(user="ada", uid=601)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=60, check=False,
            )  # fmt: skip
    seconds = time.monotonic() - began
    return seconds, (_cpu(resource.RUSAGE_CHILDREN) - before) / len(hosts)


def main() -> None:
    """Measure, print, and keep the results when all fifty were asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.ssh", description=__doc__)
    parser.add_argument("--hosts", type=int, default=50)
    count = parser.parse_args().hosts
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    rows: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="vcld-bench-") as folder,
        network_for(Path(folder)) as network,
    ):
        hosts = [network.host(f"vm{number}") for number in range(count)]
        for name, work in (
            ("post_load", _post_load),
            ("reserve", _reserve),
            ("grant_access", _grant),
            ("sanitize", _sanitize),
        ):
            seconds, cpu = _at_once(hosts, work)
            rows[name] = {"seconds": seconds, "cpu_seconds_each": cpu}
        seconds, cpu = _by_ssh(network, hosts)
        rows["reserve by ssh, step by step"] = {"seconds": seconds, "cpu_seconds_each": cpu}
    print(f"{'for ' + str(count) + ' computers':34} {'all done':>10} {'CPU each':>10}")
    for name, row in rows.items():
        print(f"{name:34} {row['seconds']:>8.2f} s {row['cpu_seconds_each']:>8.3f} s")
    if count == 50:
        facts = {
            "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
            "computers": count,
            "steps_by_ssh": len(STEPS),
            "rows": rows,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
