"""Copies of the accounting tables in other databases."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.accounts import Accounts, stay
from tests.daemon import Daemon, Daemons, eventually
from tests.mariadb import Server
from tests.site import Site
from vcld.accounting.copying import Copied, copy
from vcld.accounting.tables import tables_in
from vcld.schema.engine import Database, make_engine

BACKENDS = ("mariadb", "sqlite")


@pytest.fixture
def books(accounts: Accounts) -> Accounts:
    accounts.put_base()
    accounts.put(1, stay(10, 11, 12, 12, 20, etime=20), stay(20, 21, 22, 22, 30, etime=30))
    accounts.put(2, stay(10, 11, 12, 12, 20, etime=20), name="Rätsel &amp; &lt;🖥&gt;")
    return accounts


def copied(books: Accounts, target: Database) -> Copied:
    with books.engine.begin() as c:
        return copy(c, books.tables, target)


def contents(books: Accounts) -> dict[str, list[tuple[object, ...]]]:
    return {
        table.name: [tuple(row) for row in books.rows(table.name)] for table in books.tables.all
    }


def test_copy_in_a_file_has_the_same_rows_and_follows(books: Accounts, tmp_path: Path) -> None:
    target = Database(make_engine(f"sqlite:///{tmp_path / 'copy.sqlite'}"))

    assert copied(books, target) == Copied(added=8)
    mirror = Accounts(target.engine)
    assert contents(mirror) == contents(books)
    assert copied(books, target) == Copied()

    with books.engine.begin() as c:
        c.exec_driver_sql("UPDATE vm_pool SET memory = 7 WHERE oid = 1")
        c.exec_driver_sql("DELETE FROM history WHERE vid = 2")
        c.exec_driver_sql("UPDATE vm_pool SET last_seq = -1 WHERE oid = 2")
    assert copied(books, target) == Copied(changed=2, removed=1)
    assert contents(mirror) == contents(books)


def test_copy_of_more_than_a_batch(books: Accounts, tmp_path: Path) -> None:
    with books.engine.begin() as c:
        users = [{"oid": n, "user_name": "u", "password": ""} for n in range(1000, 9001)]
        c.execute(books.tables.user_pool.insert(), users)
    target = Database(make_engine(f"sqlite:///{tmp_path / 'copy.sqlite'}"))

    assert copied(books, target).added == 8 + 8001
    assert copied(books, target) == Copied()


def test_copy_on_another_server(books: Accounts, mariadb: Server) -> None:
    target = Database(make_engine(mariadb.create_database("accounts_copy")))
    try:
        copied(books, target)
        assert contents(Accounts(target.engine)) == contents(books)
    finally:
        target.engine.dispose()
        mariadb.drop_database("accounts_copy")


def test_command_takes_a_file_and_no_url_on_the_command_line(
    site: Site, books: Accounts, database_url: str, tmp_path: Path
) -> None:
    vcld = Daemon(site, database_url)

    told = vcld.command("accounting", "copy", str(tmp_path / "copy.sqlite"))
    assert told.stdout == "8 rows added, 0 changed, 0 removed\n", told.stderr
    for wrong in (tmp_path, tmp_path / "none" / "a.sqlite", Path("/etc/hostname")):
        told = vcld.command("accounting", "copy", str(wrong))
        assert told.returncode == 78
        assert f"the copy in {wrong} cannot be opened" in told.stderr
    told = vcld.command("accounting", "copy", "env:NO_SUCH_VARIABLE")
    assert told.returncode == 78
    assert "NO_SUCH_VARIABLE is not set" in told.stderr


@pytest.mark.parametrize("place", ["file", "server"])
def test_daemon_keeps_the_copy_that_the_configuration_names(
    site: Site, accounts: Accounts, daemons: Daemons, mariadb: Server, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "copy.sqlite"
    url = mariadb.create_database("accounts_kept")
    target = make_engine(url if place == "server" else f"sqlite:///{path}")
    wanted = "env:ACCOUNTS_URL" if place == "server" else str(path)
    try:
        daemon = daemons.make(accounting_database=wanted, accounting_interval=0.2)
        daemon.environ["ACCOUNTS_URL"] = url
        daemon.start()
        kept = Accounts(target)
        eventually(lambda: sa.inspect(target).has_table("vm_pool"), daemon.describe)
        eventually(lambda: contents(kept) == contents(accounts), daemon.describe, 120)

        request = site.ask("new", 1)
        eventually(lambda: site.pair(request) == "pending/reserved", daemon.describe)

        # A copy that took a second on a busy machine is given a pause of twenty.
        eventually(lambda: len(kept.rows("vm_pool")) == 1, daemon.describe, 120)
        eventually(lambda: contents(kept) == contents(accounts), daemon.describe, 120)
    finally:
        target.dispose()
        mariadb.drop_database("accounts_kept")


def test_place_that_cannot_be_used_is_named_and_stops_nothing(
    site: Site, books: Accounts, daemons: Daemons, tmp_path: Path
) -> None:
    daemon = daemons.make(accounting_database=str(tmp_path / "none" / "copy.sqlite"))

    told = daemon.command("check")
    assert told.returncode == 78
    assert f"accounting_database: the copy in {tmp_path}/none/copy.sqlite cannot" in told.stdout
    daemon.start()
    request = site.ask("new", 1)
    eventually(lambda: site.pair(request) == "pending/reserved", daemon.describe)
    eventually(lambda: daemon.events("work beside the loop failed"), daemon.describe)


def test_install_makes_the_copy_as_well(site: Site, database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.sqlite"
    vcld = Daemon(site, database_url, accounting_database=str(path))
    try:
        told = vcld.command("accounting", "install")
        assert told.returncode == 0, told.stderr
        there = sa.inspect(make_engine(f"sqlite:///{path}"))
        assert set(there.get_table_names()) >= {"history", "host_pool", "host_shares", "vm_pool"}
        assert vcld.command("accounting", "copy").stdout.endswith(" removed\n")
    finally:
        with site.engine.begin() as c:
            tables_in("").metadata.drop_all(c)
