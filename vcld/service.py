"""The composition root: from settings to a running daemon, in the foreground or detached."""

from __future__ import annotations

import contextlib
import fcntl
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import daemon
import structlog

from vcld import logs, worker
from vcld.config import Settings, load
from vcld.errors import ConfigError, ExitCode, NotFoundError, SchemaError, StoreError, VcldError
from vcld.notify import notify
from vcld.schema.create import ensure_own_tables, missing_own_tables
from vcld.schema.engine import Database, make_engine
from vcld.snapshot import ManagementNode
from vcld.store import nodes
from vcld.supervisor import Supervisor
from vcld.waiting import Cancellation


def connect(settings: Settings, *, patience_seconds: float = 0) -> Database:
    """Make the database of the settings. Nothing is connected yet."""
    engine = make_engine(
        settings.database_url,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        statement_timeout_seconds=settings.database_timeout_seconds,
        ssl=_tls(settings),
    )
    return Database(engine, patience_seconds=patience_seconds)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.enable_mysql_ssl:
        return None
    try:
        return ssl.create_default_context(cafile=settings.mysql_ssl_cert or None)
    except OSError as err:
        raise ConfigError(
            f"mysql_ssl_cert={settings.mysql_ssl_cert}: cannot be used as a CA certificate: {err}"
        ) from err


def run(settings: Settings, *, detach: bool) -> ExitCode:
    """Run the daemon until it is told to stop.

    Raises:
        VcldError: it cannot start; the message says why and what to do.
    """
    with _only_one(settings) as lock:
        if not detach:
            _log_to(settings, Path(settings.log) if settings.log else None)
            return _serve(settings, lock)
        return _detach(settings, lock)


def _detach(settings: Settings, lock: int) -> ExitCode:
    """Fork; the launcher returns once the daemon is up, or says why it is not."""
    read_fd, write_fd = os.pipe()
    launched = os.fork()
    if launched:
        os.close(write_fd)
        with os.fdopen(read_fd) as answer:
            text = answer.read()
        if text.startswith("up"):
            return ExitCode.DONE
        sys.stderr.write(text or "vcld: the daemon ended at its start; see the log\n")
        return ExitCode.CONFIG
    os.close(read_fd)
    log_path = settings.log_path
    try:
        descriptor = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    except OSError as err:
        os.write(write_fd, f"vcld: log {log_path}: {err.strerror}\n".encode())
        os._exit(ExitCode.CONFIG)
    with (
        os.fdopen(descriptor, "a") as log,
        daemon.DaemonContext(
            files_preserve=[lock, write_fd, log], stdout=log, stderr=log, umask=0o027,
            signal_map={},
        ),
    ):  # fmt: skip
        _log_to(settings, log_path)
        _write_pid(lock)
        settings.pid_path.write_text(f"{os.getpid()}\n", encoding="ascii")

        def tell(state: str) -> None:
            notify(state)
            if state == "READY=1":
                with contextlib.suppress(OSError):
                    os.write(write_fd, b"up")
                    os.close(write_fd)

        code = ExitCode.BUG
        try:
            code = _serve(settings, lock, tell)
        except VcldError as err:
            structlog.get_logger().critical("the daemon cannot start", reason=str(err))
            with contextlib.suppress(OSError):
                os.write(write_fd, f"vcld: {err}\n".encode())
            code = err.exit_code
        finally:
            settings.pid_path.unlink(missing_ok=True)
            os._exit(code)


def _log_to(settings: Settings, path: Path | None) -> None:
    logs.configure(
        level=settings.level,
        form=settings.log_format,
        path=path,
        process=settings.processname,
    )
    for warning in settings.warnings:
        structlog.get_logger().warning("configuration", problem=warning)


def _serve(settings: Settings, lock: int, tell: Callable[[str], None] = notify) -> ExitCode:
    database = connect(settings)
    node = _wait_for_node(settings, database)

    def reload_settings() -> Settings | None:
        try:
            fresh = load(settings.path)
        except ConfigError as err:
            structlog.get_logger().error(
                "the configuration has errors, the old one stays", problems=list(err.problems)
            )
            return None
        _log_to(fresh, Path(fresh.log) if fresh.log else None)
        return fresh

    supervisor = Supervisor(
        settings=settings,
        database=database,
        node=node,
        run_worker=worker.run,
        reload_settings=reload_settings,
        notify=tell,
        in_child=lambda: os.close(lock),
    )
    return supervisor.run()


def _wait_for_node(settings: Settings, database: Database) -> ManagementNode:
    """Find the node's row, and make our own tables; wait for a database that is away.

    Raises:
        ConfigError: fqdn names no management node.
        SchemaError: the database is not one of VCL.
    """
    log = structlog.get_logger()
    patient = Database(database.engine, patience_seconds=float("inf"))
    patient.on_outage = lambda why: log.warning("the database is away", reason=why)
    patient.cancellation = Cancellation()
    try:
        node = patient.run(lambda c: nodes.get_node(c, settings.fqdn))
        missing = patient.run(missing_own_tables)
    except NotFoundError as err:
        raise ConfigError(str(err)) from err
    except StoreError as err:
        raise SchemaError(f"{err}; see 'vcld db check'") from err
    if missing:
        made = ensure_own_tables(database.engine)
        log.info("own tables created", tables=made)
    return node


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[int]:
    """Hold a lock for the daemon's name; a second daemon is refused at once.

    Raises:
        ConfigError: another daemon holds it.
    """
    path = settings.pid_path.with_suffix(".lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as err:
        raise ConfigError(f"pidfile={settings.pid_path}: {path}: {err.strerror}") from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise ConfigError(
            f"vcld runs already (pid {holder}, lock {path}); stop it first, or set another pidfile"
        ) from None
    _write_pid(lock)
    try:
        yield lock
    finally:
        with contextlib.suppress(OSError):
            os.close(lock)


def _write_pid(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
