"""Connections to the database: how they are made, what is worth trying again, and retrying.

The engine is made in the supervisor; a forked worker calls ``Database.after_fork`` first.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, TypeVar

import sqlalchemy as sa
from pymysql.connections import Connection as PyMySQLConnection
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from vcld import clock
from vcld.errors import (
    AccessRefusedError,
    StoreError,
    StoreRefusedError,
    TableMissingError,
    ValueRefusedError,
)
from vcld.waiting import Cancellation, pauses

T = TypeVar("T")

__all__ = ["Connection", "Database", "make_engine"]

#: Another transaction was in the way; the same work will do now (1020, 1205, 1213, 1412).
CONFLICTS = frozenset({1020, 1205, 1213, 1412})
#: The server is away, starting, full, failing over or not yet part of its cluster.
OUTAGES = frozenset(
    {1040, 1047, 1053, 1077, 1079, 1129, 1152, 1158, 1159, 1160, 1161, 1180, 1203, 1290, 1317}
    | {1792, 1836, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 3169, 4031}
)
DUPLICATE_KEY = 1062
#: What the configuration says of the database is not so, and what to do.
MISCONFIGURED = {
    1044: "let the database user use this database, or name another",
    1045: "mend the database user or its password in the configuration, or at the server",
    1049: "name the database of VCL in the configuration, or create it and run 'vcld db init'",
    1142: "GRANT the database user this right on the whole database",
    1143: "GRANT the database user this right on the whole database",
}
#: No such column, no such table.
MISSING = frozenset({1054, 1146})


def error_code(err: BaseException) -> int:
    """The server's or client's error number behind a SQLAlchemy error; 0 if there is none."""
    cause = getattr(err, "orig", None)
    args = getattr(cause, "args", ())
    return args[0] if args and isinstance(args[0], int) else 0


def is_conflict(err: SQLAlchemyError) -> bool:
    """True for deadlocks and lock waits: run the same transaction again at once."""
    return error_code(err) in CONFLICTS or "database is locked" in str(err)


def is_outage(err: SQLAlchemyError) -> bool:
    """True when the database may answer later."""
    if isinstance(err, PoolTimeoutError):
        return True
    if isinstance(err, DBAPIError):
        lost = err.connection_invalidated or isinstance(err, InterfaceError)
        return lost or error_code(err) in OUTAGES
    return False


def make_engine(
    url: URL | str,
    *,
    connect_timeout_seconds: float = 5,
    statement_timeout_seconds: float = 30,
    ssl: SSLContext | None = None,
) -> Engine:
    """Make an engine with one connection that is kept, and a limit on every wait."""
    url = sa.make_url(url)
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": statement_timeout_seconds})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    arguments: dict[str, Any] = {
        "connect_timeout": connect_timeout_seconds,
        "read_timeout": statement_timeout_seconds,
        "write_timeout": statement_timeout_seconds,
        "charset": "utf8mb4",
    }
    if ssl is None:
        arguments["ssl_disabled"] = True
    else:
        # Made once: reading the certificates costs each connection 15 ms otherwise.
        arguments["ssl"] = ssl
    engine = sa.create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_recycle=3600,
        pool_reset_on_return=None,
        connect_args=arguments,
    )
    event.listen(engine, "do_connect", _connect_mysql)
    return engine


class _Connection(PyMySQLConnection):
    """Every worker connects anew: what both libraries would send goes out once."""

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Left to SQLAlchemy, which sends SET NAMES to every new connection."""


def _connect_mysql(
    _dialect: Any, _record: Any, _positional: Any, arguments: dict[str, Any]
) -> PyMySQLConnection:
    return _Connection(**arguments)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns into a writing one can fail without waiting.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


class Database:
    """Runs transactions and tries them again where that is right.

    Work is a function of a Connection. It may run more than once, so it must not have
    effects outside the database. ``patience_seconds`` bounds how long an outage is waited
    for; 0 gives up at the first.
    """

    def __init__(self, engine: Engine, *, patience_seconds: float = 0) -> None:
        self.engine = engine
        self.patience_seconds = patience_seconds
        #: What may end a wait for the database early; a worker puts its own here.
        self.cancellation = Cancellation()
        #: Called with a sentence when an outage begins.
        self.on_outage: Callable[[str], None] | None = None
        self._pool_of_children: sa.Pool | None = None

    def before_forks(self) -> None:
        """Make what every child needs, so that none has to: a pool without a connection."""
        self._pool_of_children = self.engine.pool.recreate()

    def after_fork(self) -> None:
        """Forget the parent's connections without closing them under it."""
        if self._pool_of_children is None:
            self.before_forks()
        assert self._pool_of_children is not None
        self.engine.pool = self._pool_of_children

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction.

        Raises:
            TableMissingError: it has no such table or column.
            AccessRefusedError: there is no such database, or the user may not use it.
            ValueRefusedError: it refused a value, such as a second one of a key.
            StoreRefusedError: it refused a statement for another reason.
            StoreError: it was away for longer than the patience allows.
            WorkerStopped: the wait for the database was cancelled.
        """
        deadline = clock.monotonic() + self.patience_seconds
        conflicts = 0
        for pause in pauses(0.1, 5.0, 2.0):
            while True:
                try:
                    with self.engine.begin() as connection:
                        return work(connection)
                except SQLAlchemyError as err:
                    if is_conflict(err) and conflicts < 10:
                        conflicts += 1
                        self._pause(random.uniform(0, 0.02 * conflicts))
                        continue
                    if not (is_outage(err) or is_conflict(err)):
                        raise _refusal(err) from err
                    self.engine.dispose()
                    if clock.monotonic() + pause > deadline:
                        raise StoreError(_sentence(err)) from err
                    if self.on_outage is not None:
                        self.on_outage(_sentence(err))
                    break
            self._pause(pause)
        raise AssertionError  # pauses never end

    def _pause(self, seconds: float) -> None:
        self.cancellation.wait(seconds)


def _refusal(err: SQLAlchemyError) -> StoreRefusedError:
    if error_code(err) in MISSING or "no such " in str(getattr(err, "orig", "")):
        return TableMissingError(f"{_sentence(err)}; 'vcld db check' says what is missing")
    if error_code(err) in MISCONFIGURED:
        return AccessRefusedError(f"{_sentence(err)}; {MISCONFIGURED[error_code(err)]}")
    if isinstance(err, IntegrityError | DataError):
        return ValueRefusedError(_sentence(err))
    return StoreRefusedError(_sentence(err))


def _sentence(err: SQLAlchemyError) -> str:
    """One line about a database error, without the statement's values."""
    cause = getattr(err, "orig", None) or err
    number = error_code(err)
    text = cause.args[-1] if getattr(cause, "args", ()) else cause
    return f"database error {number or type(cause).__name__}: {text}"
