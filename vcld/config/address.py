"""Where the database is: the keys of the file, or a URL, made into one SQLAlchemy URL.

SQLAlchemy is imported on use: the configuration must be quick to import.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: The driver that talks to MySQL and MariaDB.
MYSQL = "mysql+pymysql"
_HOST_PORT = re.compile(r"(?P<host>\[[^\s\[\]]+\]|[^\s:/\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_BARE_IPV6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F.]*")


def split_server(text: str) -> tuple[str, int | None, str | None]:
    """Split the key ``server`` into host, port and socket.

    Raises:
        ValueError: it is neither a host, host:port nor the absolute path of a socket.
    """
    if text.startswith("/"):
        return "localhost", None, text
    if _BARE_IPV6.fullmatch(text):
        return text, None, None
    found = _HOST_PORT.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise ValueError(
            "a host, host:port (a number up to 65535) or the absolute path of a socket"
        )
    return found["host"].strip("[]"), port, None


def from_keys(server: str, database: str, user: str, password: str | None) -> URL:
    """The URL for the database keys of the file."""
    from sqlalchemy.engine import URL  # noqa: PLC0415 - see above

    host, port, socket = split_server(server)
    return URL.create(
        MYSQL,
        username=user or None,
        password=_for_pymysql(password),
        host=host,
        port=port,
        database=database,
        query={"unix_socket": socket} if socket else {},
    )


def from_url(text: str) -> URL:
    """The URL that VCLD_DATABASE_URL holds, with the driver that we bring.

    Raises:
        ValueError: it is not a URL of MySQL, MariaDB or SQLite. The text is not repeated.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - see above
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("not a URL") from None
    if url.drivername in {"sqlite", "sqlite+pysqlite"}:
        return url
    if url.drivername not in {"mysql", "mariadb", MYSQL, "mariadb+pymysql"}:
        raise ValueError("not a URL of MySQL, MariaDB or SQLite")
    password = None if url.password is None else str(url.password)
    return url.set(drivername=MYSQL, password=_for_pymysql(password))


def find_password(text: str) -> str | None:
    """The password in a URL that ``from_url`` takes, as its author means it."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - see above

    password = make_url(text).password
    return None if password is None else str(password)


def _for_pymysql(password: str | None) -> str | None:
    """PyMySQL encodes as latin1; MySQL's clients, and the Perl daemon, send the file's bytes."""
    return None if password is None else password.encode("utf-8").decode("latin1")
