"""Every key of ``vcld.conf``: its meaning, unit, default and limits, in one table."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vcld.config import address
from vcld.config.keys import Key, Kind, key, seconds
from vcld.config.secret import Secret

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration, checked. Durations are seconds; the key lacks the ``_seconds``."""

    fqdn: str = key(Kind.HOST, "", "Host name of this management node as in table managementnode")
    processname: str = key(Kind.NAME, "vcld", "Name in process titles, of the lock and pid file")
    log: str = key(
        Kind.PATH, "", "Log file; empty: /var/log/<processname>.log, or stderr in the foreground"
    )
    pidfile: str = key(Kind.PATH, "", "Pid file; empty: /var/run/<processname>.pid")
    server: str = key(
        Kind.SERVER,
        "localhost",
        "Database server: host, host:port or the path of a socket; localhost means TCP",
    )
    database: str = key(Kind.TEXT, "vcl", "Name of the VCL database")
    lockerwrtuser: str = key(Kind.TEXT, "", "Database user that may read and write")
    wrtpass: Secret | None = key(Kind.SECRET, None, "Password of the database user")
    enable_mysql_ssl: bool = key(Kind.YES_NO, False, "Connect to the database over TLS")
    mysql_ssl_cert: str = key(
        Kind.PATH, "", "File with the CA certificate of the database server; empty: the system's"
    )
    xmlrpc_url: str = key(Kind.WEB_ADDRESS, "", "Address of the web site's XML-RPC interface")
    xmlrpc_username: str = key(
        Kind.TEXT, "", "User of the XML-RPC interface, such as vclsystem@Local"
    )
    xmlrpc_pass: Secret | None = key(Kind.SECRET, None, "Password of the XML-RPC user")
    returnpath: str = key(Kind.TEXT, "", "Envelope sender of mail; empty: the From address")
    defaulthelpemail: str = key(
        Kind.TEXT, "vcl_help@example.org", "From address of mail where the site sets none"
    )
    windows_root_password: Secret | None = key(
        Kind.SECRET, None, "Password of Windows images at their capture; there is no default"
    )
    jabber: bool = key(Kind.YES_NO, False, "Instant messages; accepted, but not supported")
    jabserver: str = key(Kind.TEXT, "", "Not used")
    jabuser: str = key(Kind.TEXT, "", "Not used")
    jabpass: Secret | None = key(Kind.SECRET, None, "Not used")
    jabport: str = key(Kind.TEXT, "", "Not used")
    jabresource: str = key(Kind.TEXT, "", "Not used")
    verbose: bool = key(Kind.YES_NO, False, "Log at level debug, whatever log_level says")

    poll_interval_seconds: float = seconds("poll_interval", 1.0, "Pause between two looks", 0.05)
    max_workers: int = key(
        Kind.WHOLE,
        100,
        "Workers at a time; further requests wait. A cluster is begun whole, if need be beyond it",
        minimum=1,
    )
    max_attempts: int = key(
        Kind.WHOLE, 3, "Attempts at a request whose worker dies", minimum=1, maximum=255
    )
    retry_delay_seconds: float = seconds(
        "retry_delay", 5.0, "Pause before the second attempt; doubled for each further one",
        zero="none",
    )  # fmt: skip
    retry_delay_max_seconds: float = seconds(
        "retry_delay_max", 300.0, "Longest such pause", zero="never pause"
    )
    shutdown_grace_seconds: float = seconds(
        "shutdown_grace", 30.0, "Time that workers get to finish at a stop, and then to hand back",
        zero="they are ended at once",
    )  # fmt: skip
    takeover: bool = key(Kind.YES_NO, True, "Take over the work of management nodes that died")
    takeover_after_seconds: float = seconds(
        "takeover_after", 300.0, "Silence after which a management node counts as dead",
        zero="never",
    )  # fmt: skip
    max_clock_skew_seconds: float = seconds(
        "max_clock_skew", 60.0, "Difference to the database's clock that is warned of",
        zero="any difference",
    )  # fmt: skip
    database_connect_timeout_seconds: float = seconds(
        "database_connect_timeout", 5.0, "Limit for connecting to the database", 1
    )
    database_timeout_seconds: float = seconds(
        "database_timeout", 30.0, "Limit for one database statement", 1
    )
    database_patience_seconds: float = seconds(
        "database_patience", 600.0, "Time that a worker goes on trying to reach the database",
        zero="give up at once",
    )  # fmt: skip
    log_level: str = key(
        Kind.CHOICE, "info", "Least level that is logged: debug, info, warning or error",
        choices=("debug", "info", "warning", "error"),
    )  # fmt: skip
    log_format: str = key(
        Kind.CHOICE, "auto",
        "console, json, vcld (the Perl daemon's lines), or auto: console on a terminal, else json",
        choices=("auto", "console", "json", "vcld"),
    )  # fmt: skip
    smtp_server: str = key(Kind.HOST, "localhost", "Mail server")
    smtp_port: int = key(Kind.WHOLE, 25, "Port of the mail server", minimum=1, maximum=65535)
    smtp_timeout_seconds: float = seconds("smtp_timeout", 10.0, "Limit for sending a mail", 1)
    xmlrpc_timeout_seconds: float = seconds(
        "xmlrpc_timeout", 30.0, "Limit for one call of the web site", 1
    )
    accounting_database: str = key(
        Kind.ACCOUNTS,
        "",
        "Accounting tables: a schema on the same server, or a copy of them in an SQLite file or in"
        " the database of env:NAME; empty: the VCL database",
    )
    accounting_interval_seconds: float = seconds(
        "accounting_interval", 60.0, "Pause between two updates of the hosts in the accounting", 0.1
    )
    accounting_probe_timeout_seconds: float = seconds(
        "accounting_probe_timeout", 20.0, "Limit for measuring the hosts in the accounting", 0.1
    )
    simulator_config: str = key(
        Kind.PATH, "", "YAML or JSON file with the behaviour of simulated hardware"
    )
    vsphere_config: str = key(
        Kind.PATH, "", "YAML file with addresses and certificates of ESXi hosts and vCenters"
    )
    vsphere_patience_seconds: float = seconds(
        "vsphere_patience", 120.0, "Time that an ESXi host or vCenter may be away within a task",
        zero="give up at once",
    )  # fmt: skip
    vsphere_task_timeout_seconds: float = seconds(
        "vsphere_task_timeout", 300.0, "Limit for one task of a VM, such as starting it", 1
    )
    vsphere_copy_timeout_seconds: float = seconds(
        "vsphere_copy_timeout", 7200.0, "Limit for copying one disk", 1
    )
    crypt_key: str = key(
        Kind.PATH, "",
        "Private RSA key for passwords that the web site encrypts; empty: /root/.vcl/<fqdn>.key",
    )  # fmt: skip
    stage_scripts_dir: str = key(Kind.PATH, "", "Folder of the stage scripts; empty: none are run")

    ssh_connect_timeout_seconds: float = seconds(
        "ssh_connect_timeout", 15.0, "Limit for connecting to a computer by SSH", 0.1
    )
    boot_timeout_seconds: float = seconds(
        "boot_timeout", 600.0, "Wait for a computer to answer after it was started", 1
    )
    connect_poll_seconds: float = seconds(
        "connect_poll", 15.0, "Pause between two looks for a user who is to connect", 0.01
    )
    competition_timeout_seconds: float = seconds(
        "competition_timeout", 115.0, "Wait for a computer that another request has",
        zero="one attempt",
    )  # fmt: skip
    competition_retry_seconds: float = seconds(
        "competition_retry", 5.0, "Longest pause between two attempts at it", 0.01
    )
    cluster_begin_timeout_seconds: float = seconds(
        "cluster_begin_timeout", 300.0, "Wait for the other reservations of a cluster to begin",
        zero="no wait",
    )  # fmt: skip
    cluster_exit_timeout_seconds: float = seconds(
        "cluster_exit_timeout", 300.0, "Wait for the other reservations of a cluster to end",
        zero="no wait",
    )  # fmt: skip
    child_load_timeout_seconds: float = seconds(
        "child_load_timeout", 3600.0, "Wait for the computers of a cluster to be loaded",
        zero="no wait",
    )  # fmt: skip
    child_idle_timeout_seconds: float = seconds(
        "child_idle_timeout", 1800.0, "The same wait, without any progress", zero="no wait"
    )
    postreserve_timeout_seconds: float = seconds(
        "postreserve_timeout", 360.0, "Wait for the computers of a cluster to grant access",
        zero="no wait",
    )  # fmt: skip
    tomaintenance_timeout_seconds: float = seconds(
        "tomaintenance_timeout", 10800.0, "Wait for a computer to be free before maintenance",
        zero="one attempt",
    )  # fmt: skip
    tomaintenance_retry_seconds: float = seconds(
        "tomaintenance_retry", 300.0, "Pause between two looks at it", 0.01
    )

    #: A SQLAlchemy URL from the environment; it replaces the database keys.
    url: Secret | None = None
    #: The file that the settings come from, absolute.
    path: Path | None = None
    #: What was odd there, a sentence each.
    warnings: tuple[str, ...] = ()

    @property
    def database_url(self) -> URL:
        """Where the VCL database is. Its password shows as ``***`` when printed."""
        if self.url is not None:
            return address.from_url(self.url.reveal())
        password = self.wrtpass.reveal() if self.wrtpass else None
        return address.from_keys(self.server, self.database, self.lockerwrtuser, password)

    @property
    def accounting_schema(self) -> str:
        """Schema of the accounting tables; empty: that of the VCL database."""
        return "" if self.accounting_place else self.accounting_database

    @property
    def accounting_place(self) -> str:
        """Another database that a copy of them is kept in; empty: none."""
        place = self.accounting_database
        return place if place.startswith(("/", "env:")) else ""

    @property
    def level(self) -> str:
        """The least level that is logged."""
        return "debug" if self.verbose else self.log_level

    @property
    def pid_path(self) -> Path:
        """The pid file, named or by default."""
        return Path(self.pidfile or f"/var/run/{self.processname}.pid")

    @property
    def log_path(self) -> Path:
        """The log file of a daemon without a terminal, named or by default."""
        return Path(self.log or f"/var/log/{self.processname}.log")


def keys() -> dict[str, Key]:
    """All keys of the file by name, in the order of the file."""
    found = {}
    for item in fields(Settings):
        described = item.metadata.get("key")
        if described is not None:
            name = described.name or item.name
            found[name] = replace(described, name=name, field=item.name)
    return found
