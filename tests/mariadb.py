"""A private MariaDB server: its own data folder, socket and port, ended by its own pid.

Used by the tests and by the benchmarks.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql


class ServerMissingError(RuntimeError):
    """MariaDB is not installed."""


class MariaDB:
    """A server that can be stopped, killed and started again on the same data."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.socket = folder / "server.sock"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def install(cls, *options: str) -> MariaDB:
        """Make a data folder. The server is not started."""
        installer, server = shutil.which("mariadb-install-db"), _find_server()
        if installer is None or server is None:
            raise ServerMissingError(
                "MariaDB is needed for the tests: apt-get install mariadb-server"
            )
        folder = Path(tempfile.mkdtemp(prefix="vcld-mariadb-"))
        command = [
            installer,
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            f"--datadir={folder / 'data'}",
            *_user_option(),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        return cls(folder, *options)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        server = _find_server()
        assert server is not None
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    server,
                    "--no-defaults",
                    f"--datadir={self.folder / 'data'}",
                    f"--socket={self.socket}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--pid-file={self.folder / 'server.pid'}",
                    "--max-connections=600",
                    *_user_option(),
                    *self.options,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                # A plain socket first: the client library leaks one at each refusal.
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket))
                self.query("SELECT 1")
            except (OSError, pymysql.err.OperationalError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"MariaDB did not start: {tail}") from None
                time.sleep(0.02)
            else:
                return

    def query(self, sql: str, database: str | None = None) -> tuple[tuple[object, ...], ...]:
        """Run a statement as root."""
        connection = pymysql.connect(
            unix_socket=str(self.socket), user="root", database=database, autocommit=True,
            ssl_disabled=True,
        )  # fmt: skip
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return tuple(cursor.fetchall())

    def url(self, database: str) -> str:
        """A SQLAlchemy URL for a database of this server."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, charset: str = "utf8mb4") -> str:
        """Make an empty database; return its URL."""
        self.query(f"DROP DATABASE IF EXISTS `{name}`")
        self.query(f"CREATE DATABASE `{name}` CHARACTER SET {charset}")
        return self.url(name)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.send(signal.SIGKILL)

    def stop(self) -> None:
        """End the server."""
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            if number in {signal.SIGKILL, signal.SIGTERM}:
                self._process.wait(60)

    def remove(self) -> None:
        """End the server and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def general_log(self) -> Iterator[Path]:
        """Write every statement to the file while the block runs."""
        path = self.folder / "general.log"
        path.unlink(missing_ok=True)
        self.query(f"SET GLOBAL general_log_file = '{path}'")
        self.query("SET GLOBAL general_log = 1")
        try:
            yield path
        finally:
            self.query("SET GLOBAL general_log = 0")


def _find_server() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _user_option() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
