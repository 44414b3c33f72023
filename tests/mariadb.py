"""Database servers for tests and benchmarks.

``MariaDB`` is a private server: its own data folder, socket and port, ended by its own
pid. ``Server`` is any server that may be used by its URL.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pymysql
from sqlalchemy.engine import URL

#: Names for ``VCLD_TEST_SQL_MODE``; anything else is taken as MySQL spells it.
SQL_MODES: Mapping[str, str] = {
    "lax": "",
    # MySQL 8's default, and strict for every engine.
    "strict": "ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,"
    "NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
}
#: Ports below those that outgoing connections get. A client that keeps trying the port of a
#: stopped server would connect to itself otherwise, and keep the server from coming back.
PORTS = range(20000, 32000)
#: As safe as ever against a killed server; only a power cut may lose the last second.
FAST = (
    "--innodb-flush-log-at-trx-commit=2",
    "--skip-innodb-doublewrite",
    "--innodb-buffer-pool-size=64M",
)

MISSING = "MariaDB is needed for the tests: apt-get install mariadb-server, or see tests/servers.py"


class ServerMissingError(RuntimeError):
    """MariaDB is not installed."""


class Server:
    """A MySQL or MariaDB server whose user may make databases."""

    #: True if tests may kill it and start it again.
    restartable = False

    def __init__(self, address: URL, *, prefix: str = "", sql_mode: str | None = None) -> None:
        """Nothing is connected yet.

        Args:
            address: user, password, host and port.
            prefix: begins the name of each database that is made here.
            sql_mode: mode of the sessions that use a URL made here; None: the server's.
        """
        self.address = address
        self.prefix = prefix
        self.sql_mode = sql_mode
        self._made: set[str] = set()

    def query(self, sql: str, database: str | None = None) -> tuple[tuple[object, ...], ...]:
        """Run a statement in the server's own mode; ``database`` is a name given to ``url``."""
        connection = pymysql.connect(
            host=self.address.host or "localhost",
            port=self.address.port or 3306,
            user=self.address.username,
            password=str(self.address.password or ""),
            database=None if database is None else self.prefix + database,
            autocommit=True,
            connect_timeout=10,
            ssl_disabled=True,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return tuple(cursor.fetchall())

    def url(self, database: str, *, sql_mode: str | None = None) -> str:
        """A SQLAlchemy URL for a database of this server, for sessions of that mode."""
        mode = self.sql_mode if sql_mode is None else sql_mode
        url = self.address.set(database=self.prefix + database)
        if mode is not None:
            command = f"SET SESSION sql_mode = '{SQL_MODES.get(mode, mode)}'"
            url = url.update_query_dict({"init_command": command})
        return url.render_as_string(hide_password=False)

    def create_database(
        self, name: str, charset: str = "utf8mb4", *, sql_mode: str | None = None
    ) -> str:
        """Make an empty database, in place of one of that name; return its URL."""
        full = self.prefix + name
        self.query(f"DROP DATABASE IF EXISTS `{full}`")
        self.query(f"CREATE DATABASE `{full}` CHARACTER SET {charset}")
        self._made.add(name)
        return self.url(name, sql_mode=sql_mode)

    def drop_database(self, name: str) -> None:
        self.query(f"DROP DATABASE IF EXISTS `{self.prefix}{name}`")
        self._made.discard(name)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        raise NotImplementedError(f"{self.address.host} is not ours to start")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server, by default as a crash would."""
        raise NotImplementedError(f"{self.address.host} is not ours to end with {number.name}")

    def stop(self) -> None:
        """End the server in good order."""
        self.kill(signal.SIGTERM)

    def revive(self) -> None:
        """Let it run again, whatever a test has done to it."""

    def remove(self) -> None:
        """Leave nothing behind."""
        for name in tuple(self._made):
            self.drop_database(name)


class MariaDB(Server):
    """A server that can be stopped, killed and started again on the same data."""

    restartable = True

    def __init__(self, folder: Path, *options: str, sql_mode: str | None = None) -> None:
        self.port = free_port()
        super().__init__(
            URL.create("mysql+pymysql", username="root", host="127.0.0.1", port=self.port),
            sql_mode=sql_mode,
        )
        self.folder = folder
        self.options = options
        self.socket = folder / "server.sock"
        self.environ: Mapping[str, str] = os.environ
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def install(cls, *options: str, fast: bool = False, sql_mode: str | None = None) -> MariaDB:
        """Make a data folder. The server is not started.

        Args:
            options: for the server.
            fast: less durable against power cuts, not against kills; see ``FAST``.
            sql_mode: as for ``Server``.
        """
        installer = shutil.which("mariadb-install-db")
        if installer is None:
            raise ServerMissingError(MISSING)
        folder = Path(tempfile.mkdtemp(prefix="vcld-mariadb-"))
        command = [
            installer,
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            f"--datadir={folder / 'data'}",
            *_user_option(),
        ]
        # Its temporary tables would meet those of another installation in the same folder.
        environ = {**os.environ, "TMPDIR": str(folder)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, env=environ)
        return cls(folder, *(FAST if fast else ()), *options, sql_mode=sql_mode)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    _find_server(),
                    "--no-defaults",
                    f"--datadir={self.folder / 'data'}",
                    f"--tmpdir={self.folder}",
                    f"--socket={self.socket}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--pid-file={self.folder / 'server.pid'}",
                    "--max-connections=600",
                    *_user_option(),
                    *self.options,
                ],
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"MariaDB did not start: {tail}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            # A plain socket first: the client library leaks one at each refusal.
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                pass
            self.query("SELECT 1")
        except (OSError, pymysql.err.OperationalError):
            return False
        return True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.send(number)
        if self._process is not None:
            self._process.wait(60)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP for a server that hangs; wait for nothing."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def revive(self) -> None:
        self.send(signal.SIGCONT)
        if self._process is None or self._process.poll() is not None:
            self.start()

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


def free_port() -> int:
    """A port that nobody listens on, nor gets for an outgoing connection."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _find_server() -> str:
    server = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if server is None:
        raise ServerMissingError(MISSING)
    return server


def _user_option() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []
