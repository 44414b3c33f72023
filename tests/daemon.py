"""The real daemon as a process of its own, as an operator would run it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import psutil

from tests.site import Site
from tests.starter import Interpreter, Launcher, Order, Process

#: Everything is quick, so that a test need not wait.
QUICK = {
    "poll_interval": 0.1,
    "connect_poll": 0.1,
    "retry_delay": 0.2,
    "shutdown_grace": 5,
    "competition_retry": 0.2,
    "competition_timeout": 20,
    "cluster_begin_timeout": 20,
    "cluster_exit_timeout": 20,
    "smtp_port": 9,
    "smtp_timeout": 1,
    "max_attempts": 3,
    "database_patience": 60,
    "accounting_interval": 0.5,
}


class Daemon:
    """One run of ``vcld run``."""

    #: How its processes are started; the tests have a quicker way (tests/conftest.py).
    launcher: ClassVar[Launcher] = Interpreter()

    def __init__(self, site: Site, url: str, *, node: int = 1, name: str = "vcld", **keys: Any):
        self.site = site
        self.folder = site.folder
        self.name = name
        #: Workers are known by it, and several runs of the tests may go on at once.
        self.title = f"{name}-{os.getpid()}"
        self.log_path = self.folder / f"{name}.log"
        self.conf = self.folder / f"{name}.conf"
        facts = {
            "fqdn": site.nodes[node - 1],
            "processname": self.title,
            "log": self.log_path,
            "log_format": "json",
            "pidfile": self.folder / f"{name}.pid",
            "simulator_config": site.script_path,
            **QUICK,
            **keys,
        }
        self.conf.write_text("".join(f"{key}={value}\n" for key, value in facts.items()))
        self.environ = {**os.environ, "VCLD_DATABASE_URL": url, "VCLD_CONFIG": str(self.conf)}
        self.process: Process | None = None

    def start(self, *, wait: bool = True) -> Daemon:
        with open(self.folder / f"{self.name}.err", "ab") as errors:
            self.process = self.launcher.start(Order(["run"], self.environ, errors, errors))
        if wait:
            eventually(lambda: self.events("daemon started", pid=self.pid), self.describe)
        return self

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another vcld command with the same configuration."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            process = self.launcher.start(Order(arguments, self.environ, out, errors))
            try:
                code = process.wait(60)
            finally:
                process.kill()
            texts = [os.pread(file.fileno(), 1 << 24, 0).decode() for file in (out, errors)]
        return subprocess.CompletedProcess(arguments, code, *texts)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[psutil.Process]:
        """Live workers of this daemon's name, adopted ones too."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            title = " ".join(process.info["cmdline"] or ())
            if title.startswith(f"{self.title} '|") and process.info["status"] != "zombie":
                found.append(process)
        return found

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def hold(self) -> None:
        """STOP it between two transactions: in one, it would hold up everybody else's rows."""
        busy = "SELECT COUNT(*) FROM information_schema.innodb_trx"
        for _ in range(50):
            self.send(signal.SIGSTOP)
            time.sleep(0.2)  # InnoDB renews that table only when nobody has read it for 0.1 s
            if not self.site.scalar(busy):
                return
            self.send(signal.SIGCONT)
        raise AssertionError("a transaction is open all the time")

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def stop(self) -> int:
        """TERM, and the exit code."""
        assert self.process is not None
        self.send(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self) -> None:
        """KILL the daemon alone; its workers live on."""
        assert self.process is not None
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> None:
        """Leave nothing behind: no worker, and nothing that works beside the loop."""
        children: list[psutil.Process] = []
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait(10)
        for worker in [*children, *self.workers()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    def lines(self) -> list[dict[str, Any]]:
        if not self.log_path.exists():
            return []
        text = self.log_path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def events(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Log lines of an event that hold these facts."""
        return [
            line
            for line in self.lines()
            if line.get("event") == event
            and all(line.get(key) == value for key, value in facts.items())
        ]

    def describe(self) -> str:
        """For a failing test: the last lines of the log and of stderr."""
        errors = self.folder / f"{self.name}.err"
        text = errors.read_text(errors="replace")[-1500:] if errors.exists() else ""
        log = self.log_path.read_text() if self.log_path.exists() else ""
        return f"{text}\n{log[-20000:]}"


def eventually(
    condition: Callable[[], Any], describe: Callable[[], str] = str, limit_seconds: float = 30
) -> Any:
    """Ask until the condition holds and return what it gave; fail with a description."""
    deadline = time.monotonic() + limit_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {limit_seconds} s:\n{describe()}")
        time.sleep(0.03)


class Daemons:
    """Starts daemons for a test and ends them with it."""

    def __init__(self, site: Site, url: str) -> None:
        self.site = site
        self.url = url
        self._started: list[Daemon] = []

    def make(self, **keys: Any) -> Daemon:
        daemon = Daemon(self.site, self.url, **keys)
        self._started.append(daemon)
        return daemon

    def start(self, **keys: Any) -> Daemon:
        return self.make(**keys).start()

    def __iter__(self) -> Iterator[Daemon]:
        return iter(self._started)

    def end(self) -> None:
        for daemon in self._started:
            daemon.end()


@contextlib.contextmanager
def daemons_for(site: Site, url: str) -> Iterator[Daemons]:
    daemons = Daemons(site, url)
    try:
        yield daemons
    finally:
        daemons.end()
