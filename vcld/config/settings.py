"""Every key of ``vcld.conf``: its meaning, unit, default and limits, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url

from vcld.config.secret import Secret


def _key(default: Any, text: str, *, minimum: float | None = None, name: str | None = None) -> Any:
    return field(default=default, metadata={"text": text, "minimum": minimum, "key": name})


def _duration(key: str, default: float, text: str, minimum: float = 0) -> Any:
    return _key(default, f"{text}, in seconds", minimum=minimum, name=key)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration, checked. Durations are seconds; the key lacks the ``_seconds``."""

    fqdn: str = _key("", "Host name of this management node as in the managementnode table")
    processname: str = _key("vcld", "Name in process titles, of the lock and of the pid file")
    log: str = _key("", "Log file; empty: /var/log/<processname>.log, or stderr in foreground")
    pidfile: str = _key("", "Pid file; empty: /var/run/<processname>.pid")
    server: str = _key("localhost", "Database: host, host:port or the path of a socket")
    database: str = _key("vcl", "Name of the VCL database")
    lockerwrtuser: str = _key("", "Database user that may read and write")
    wrtpass: Secret | None = _key(None, "Password of the database user")
    enable_mysql_ssl: bool = _key(False, "Connect to the database over TLS")
    mysql_ssl_cert: str = _key("", "File with the CA certificate of the database server")
    xmlrpc_url: str = _key("", "Address of the web site's XML-RPC interface")
    xmlrpc_username: str = _key("", "User of the XML-RPC interface, such as vclsystem@Local")
    xmlrpc_pass: Secret | None = _key(None, "Password of the XML-RPC user")
    returnpath: str = _key("", "Envelope sender of mail; empty: the From address")
    defaulthelpemail: str = _key("vcl_help@example.org", "From address where none is set")
    windows_root_password: Secret | None = _key(
        None, "Password that Windows images were made with; there is no default"
    )
    jabber: bool = _key(False, "Instant messages; accepted, but not supported")
    jabserver: str = _key("", "Not used")
    jabuser: str = _key("", "Not used")
    jabpass: Secret | None = _key(None, "Not used")
    jabport: str = _key("", "Not used")
    jabresource: str = _key("", "Not used")
    verbose: bool = _key(False, "Log at level debug")

    poll_interval_seconds: float = _duration("poll_interval", 1.0, "Pause between two looks", 0.05)
    max_workers: int = _key(250, "Most workers at a time; further requests wait", minimum=1)
    max_attempts: int = _key(3, "Attempts at a request whose worker dies", minimum=1)
    retry_delay_seconds: float = _duration(
        "retry_delay", 5.0, "Pause before the second attempt; doubled for each further one"
    )
    retry_delay_max_seconds: float = _duration("retry_delay_max", 300.0, "Longest such pause")
    shutdown_grace_seconds: float = _duration(
        "shutdown_grace", 30.0, "Time that workers get to finish at a stop"
    )
    takeover: bool = _key(True, "Take over the work of management nodes that died")
    takeover_after_seconds: float = _duration(
        "takeover_after", 300.0, "Silence after which a node counts as dead; 0: never"
    )
    max_clock_skew_seconds: float = _duration(
        "max_clock_skew", 60.0, "Difference to the database's clock that is warned of"
    )
    database_connect_timeout_seconds: float = _duration(
        "database_connect_timeout", 5.0, "Limit for connecting to the database", 1
    )
    database_timeout_seconds: float = _duration(
        "database_timeout", 30.0, "Limit for one database statement", 1
    )
    database_patience_seconds: float = _duration(
        "database_patience", 600.0, "Time that a worker goes on trying to reach the database"
    )
    log_level: str = _key("info", "debug, info, warning or error")
    log_format: str = _key("auto", "auto, console, json or vcld (the Perl daemon's lines)")
    smtp_server: str = _key("localhost", "Mail server")
    smtp_port: int = _key(25, "Port of the mail server", minimum=1)
    smtp_timeout_seconds: float = _duration("smtp_timeout", 10.0, "Limit for sending a mail", 1)
    xmlrpc_timeout_seconds: float = _duration("xmlrpc_timeout", 30.0, "Limit for one call", 1)
    simulator_config: str = _key("", "File with the simulated hardware's behaviour")
    stage_scripts_dir: str = _key("", "Folder of the stage scripts; empty: none are run")

    connect_poll_seconds: float = _duration(
        "connect_poll", 15.0, "Pause between two looks for a user who is to connect", 0.01
    )
    competition_timeout_seconds: float = _duration(
        "competition_timeout", 115.0, "Wait for a computer that another request has"
    )
    competition_retry_seconds: float = _duration(
        "competition_retry", 5.0, "Longest pause between two attempts at it", 0.01
    )
    cluster_begin_timeout_seconds: float = _duration(
        "cluster_begin_timeout", 300.0, "Wait for the other management nodes of a cluster"
    )
    cluster_exit_timeout_seconds: float = _duration(
        "cluster_exit_timeout", 300.0, "Wait for the other reservations of a cluster to end"
    )
    child_load_timeout_seconds: float = _duration(
        "child_load_timeout", 3600.0, "Wait for the computers of a cluster to be loaded"
    )
    child_idle_timeout_seconds: float = _duration(
        "child_idle_timeout", 1800.0, "The same, without any progress"
    )
    postreserve_timeout_seconds: float = _duration(
        "postreserve_timeout", 360.0, "Wait for the computers of a cluster to grant access"
    )
    tomaintenance_timeout_seconds: float = _duration(
        "tomaintenance_timeout", 10800.0, "Wait for a used computer to become free"
    )
    tomaintenance_retry_seconds: float = _duration(
        "tomaintenance_retry", 300.0, "Pause between two looks at it", 0.01
    )

    #: A SQLAlchemy URL from the environment; it replaces the database keys.
    url: Secret | None = field(default=None, metadata={"hidden": True})
    #: Where the settings come from, and what was odd there.
    path: Path | None = field(default=None, metadata={"hidden": True})
    warnings: tuple[str, ...] = field(default=(), metadata={"hidden": True})

    @property
    def database_url(self) -> URL:
        """Where the VCL database is. Its password shows as ``***`` when printed."""
        if self.url is not None:
            return make_url(self.url.reveal())
        query: Mapping[str, str] = {}
        host, port = self.server, None
        if self.server.startswith("/"):
            host, query = "localhost", {"unix_socket": self.server}
        elif self.server.count(":") == 1:
            host, _, digits = self.server.partition(":")
            port = int(digits)
        return URL.create(
            "mysql+pymysql",
            username=self.lockerwrtuser or None,
            password=self.wrtpass.reveal() if self.wrtpass else None,
            host=host,
            port=port,
            database=self.database,
            query=query,
        )

    @property
    def level(self) -> str:
        return "debug" if self.verbose else self.log_level

    @property
    def pid_path(self) -> Path:
        return Path(self.pidfile or f"/var/run/{self.processname}.pid")

    @property
    def log_path(self) -> Path:
        return Path(self.log or f"/var/log/{self.processname}.log")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file."""

    name: str
    field: str
    #: ``str``, ``bool``, ``int``, ``float`` or ``Secret | None``.
    type: str
    default: Any
    text: str
    minimum: float | None


def keys() -> dict[str, Key]:
    """All keys of the file by name, in the order of the file."""
    found = {}
    for item in fields(Settings):
        if item.metadata.get("hidden"):
            continue
        name = item.metadata["key"] or item.name
        found[name] = Key(
            name,
            item.name,
            str(item.type),
            item.default,
            item.metadata["text"],
            item.metadata["minimum"],
        )
    return found
