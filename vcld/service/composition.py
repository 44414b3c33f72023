"""The composition root: settings, database and the management node become a supervisor."""

from __future__ import annotations

import dataclasses
import ssl

import structlog

from vcld import notify, worker
from vcld.config import Settings, load
from vcld.errors import (
    ConfigError,
    ExitCode,
    NotFoundError,
    SchemaError,
    StoreError,
    StoreRefusedError,
    TableMissingError,
)
from vcld.schema.create import ensure_own_tables, missing_own_tables
from vcld.schema.engine import Database, make_engine
from vcld.service.shell import Shell, check_log, run_service, set_up_logs
from vcld.snapshot import ManagementNode
from vcld.store import nodes
from vcld.supervisor import Supervisor

#: What a running daemon cannot change: its name, its lock, its node, its database.
FIXED = (
    "fqdn",
    "processname",
    "pidfile",
    "server",
    "database",
    "lockerwrtuser",
    "wrtpass",
    "url",
    "enable_mysql_ssl",
    "mysql_ssl_cert",
    "database_connect_timeout_seconds",
    "database_timeout_seconds",
)


def run(settings: Settings, *, detach: bool) -> int:
    """Run the daemon until it is told to stop; the exit code.

    Raises:
        VcldError: it cannot start; the message says why and what to do.
    """
    return run_service(settings, foreground=not detach, run=lambda shell: serve(settings, shell))


def connect(settings: Settings, *, patience_seconds: float = 0) -> Database:
    """Make the database of the settings. Nothing is connected yet.

    Raises:
        ConfigError: the CA certificate cannot be used.
    """
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
            f"key mysql_ssl_cert: {settings.mysql_ssl_cert} is no CA certificate in PEM form: {err}"
        ) from err


def serve(settings: Settings, shell: Shell) -> ExitCode:
    """Serve the node of the settings until told to stop."""
    database = connect(settings)
    node = _await_node(settings, database, shell)
    supervisor = Supervisor(
        settings=settings,
        database=database,
        node=node,
        run_worker=worker.run,
        reload_settings=lambda: reread(settings, shell),
        notify=shell.tell,
        in_child=shell.release_in_child,
    )
    try:
        return supervisor.run()
    except StoreRefusedError as err:
        # Waiting changes nothing, and starting again does not either.
        log = structlog.get_logger()
        log.critical("the database refuses what the daemon needs", reason=str(err))
        raise SchemaError(
            f"{err}; 'vcld db check' says which rights or tables the database user lacks"
        ) from err


def reread(running: Settings, shell: Shell) -> Settings | None:
    """Read the configuration again, for a daemon that runs with ``running``.

    Returns:
        The new settings, but for what only a restart changes; None if they cannot be used.
    """
    log = structlog.get_logger()
    shell.tell(notify.reloading())
    try:
        fresh = load(running.path)
        check_log(fresh, detached=shell.is_detached)
    except ConfigError as err:
        log.error("configuration has errors, the old one stays", problems=list(err.problems))
        return None
    finally:
        shell.tell(notify.READY)
    fixed = {name: getattr(running, name) for name in FIXED}
    changed = [name for name, value in fixed.items() if getattr(fresh, name) != value]
    fresh = dataclasses.replace(fresh, **fixed)
    set_up_logs(fresh, detached=shell.is_detached)
    if changed:
        keys = [name.removesuffix("_seconds") for name in changed]
        log.warning("configuration changed that counts from the next start only", keys=keys)
    return fresh


def _await_node(settings: Settings, database: Database, shell: Shell) -> ManagementNode:
    """Find the node's row, and make our own tables; wait for a database that is away.

    Raises:
        ConfigError: fqdn names no management node.
        SchemaError: the database is not one of VCL, or our tables cannot be made.
    """
    patient = Database(database.engine, patience_seconds=float("inf"))
    patient.on_outage = _Outage(shell)
    try:
        node = patient.run(lambda c: nodes.get_node(c, settings.fqdn))
        if patient.run(missing_own_tables):
            _make_own_tables(patient)
    except NotFoundError as err:
        raise ConfigError(str(err)) from err
    except TableMissingError as err:
        raise SchemaError(str(err)) from err
    except StoreError as err:
        raise SchemaError(f"{err}; see 'vcld db check'") from err
    return node


class _Outage:
    """Tells once that the database is away."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._is_told = False

    def __call__(self, why: str) -> None:
        if not self._is_told:
            self._is_told = True
            structlog.get_logger().warning("the database is away, waiting for it", reason=why)
            self._shell.tell(notify.status(f"waiting for the database: {why}"))


def _make_own_tables(database: Database) -> None:
    try:
        made = ensure_own_tables(database.engine)
    except StoreRefusedError as err:
        missing = database.run(missing_own_tables)
        if not missing:
            return  # another daemon was quicker
        names = ", ".join(table.name for table in missing)
        raise SchemaError(f"vcld's own tables {names} cannot be made, or completed: {err}") from err
    structlog.get_logger().info("own tables created", tables=made)
