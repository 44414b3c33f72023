"""The database server that the tests run against, chosen by the environment.

``VCLD_TEST_DATABASE``: unset, a private MariaDB; a URL, that server, where databases with
the URL's name and an underscore in front are made and dropped; ``container``, a container.
``VCLD_TEST_SQL_MODE``: mode of all sessions: ``strict``, ``lax``, or as MySQL spells it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.engine import make_url

from tests.database_container import DatabaseContainer
from tests.mariadb import MariaDB, Server


def open_server(environ: Mapping[str, str]) -> Server:
    """Start the private server or the container; the caller removes it in the end."""
    choice = environ.get("VCLD_TEST_DATABASE")
    mode = environ.get("VCLD_TEST_SQL_MODE")
    if not choice:
        return _started(MariaDB.install(fast=True, sql_mode=mode))
    if choice == "container":
        return _started(DatabaseContainer(sql_mode=mode))
    url = make_url(choice)
    if url.get_backend_name() != "mysql" or not url.database:
        raise ValueError(
            "VCLD_TEST_DATABASE must be a URL such as mysql+pymysql://root:password@host/vcltest"
        )
    return Server(url, prefix=f"{url.database}_", sql_mode=mode)


def _started(server: Server) -> Server:
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server
