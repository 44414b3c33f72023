"""Faults 13-17 and 21 of the fault list: the database away, cut off, locked, slow, odd."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import OperationalError

from tests.daemon import Daemon, Daemons, eventually
from tests.mariadb import MariaDB, Server
from tests.proxy import Proxy
from tests.site import Site
from vcld.schema.engine import make_engine

#: How long the database stays away.
OUTAGE_SECONDS = 10.0


def is_reserved(site: Site) -> Callable[[], bool]:
    return lambda: site.computer(1) == "reserved"


def test_fault_13_database_down_at_start_is_waited_for(
    site: Site, daemons: Daemons, restartable: Server
) -> None:
    request = site.ask("tomaintenance", 1)
    site.engine.dispose()
    restartable.kill()

    daemon = daemons.make().start(wait=False)
    eventually(lambda: daemon.events("the database is away, waiting for it"), daemon.describe)
    time.sleep(OUTAGE_SECONDS)
    assert daemon.process is not None
    assert daemon.process.poll() is None
    restartable.start()

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert len(daemon.events("the database is away, waiting for it")) == 1


def test_fault_14_database_that_is_away_is_asked_once_a_second(
    site: Site, daemons: Daemons, restartable: MariaDB
) -> None:
    """However long the heartbeat is overdue."""
    daemon = daemons.start()
    site.engine.dispose()
    restartable.kill()
    eventually(lambda: daemon.events("the database is away, waiting for it"), daemon.describe)
    asked = 0
    with socket.create_server(("127.0.0.1", restartable.port)) as there:
        until = time.monotonic() + 5
        while (left := until - time.monotonic()) > 0:
            there.settimeout(left)
            with contextlib.suppress(TimeoutError):
                there.accept()[0].close()
                asked += 1
    restartable.start()

    assert 1 <= asked <= 7
    request = site.ask("tomaintenance", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_fault_14_outage_during_loop_and_load_loses_nothing(
    site: Site, daemons: Daemons, restartable: Server, number: signal.Signals
) -> None:
    site.write_script(delays={"transfervm": 1})
    daemon = daemons.start()
    loading = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(loading), daemon.describe)
    sleeping = site.ask("new", 2, start=90000, seconds=180000)
    site.engine.dispose()

    restartable.kill(number)
    time.sleep(OUTAGE_SECONDS)
    restartable.start()

    eventually(is_reserved(site), daemon.describe)
    assert site.world.machine("vm1").loads == 1
    assert daemon.events("work began", request_id=loading, state="new", attempt=1)
    site.execute(f"UPDATE request SET start = NOW() WHERE id = {sleeping}")
    eventually(lambda: site.computer(2) == "reserved", daemon.describe)
    assert daemon.events("the database is back")


def test_fault_14_systemd_hears_that_the_daemon_lives_while_the_database_is_away(
    site: Site, daemons: Daemons, restartable: Server
) -> None:
    """Its watchdog would end a daemon that only waits."""
    address = str(site.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(20)
        daemon = daemons.make()
        daemon.environ["NOTIFY_SOCKET"] = address
        daemon.start()
        site.engine.dispose()
        restartable.kill()
        eventually(lambda: daemon.events("the database is away, waiting for it"), daemon.describe)
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while systemd.recv(4096):
                pass  # what it said before
        systemd.settimeout(20)

        assert [systemd.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        restartable.start()


def test_fault_15_database_gone_at_the_very_last_write_of_a_worker(
    site: Site, daemons: Daemons, restartable: Server
) -> None:
    site.write_script(delays={"guest:reserve": 1})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "addinguser" in site.steps(request), daemon.describe)
    site.engine.dispose()

    restartable.kill()
    time.sleep(OUTAGE_SECONDS)
    restartable.start()

    eventually(is_reserved(site), daemon.describe)
    assert site.world.machine("vm1").loads == 1
    assert len(daemon.events("work began", request_id=request, state="new")) == 1


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as between:
        yield between


def through(proxy: Proxy, daemons: Daemons, **keys: object) -> Daemon:
    """A daemon that reaches the database through the proxy."""
    daemons.url = proxy.url
    return daemons.start(**keys)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM vcld_claim",  # the first statement of the ending
        "UPDATE request SET",
        "COMMIT",
    ],
)
def test_fault_15_connection_cut_at_the_ending_writes_it_once(
    site: Site, daemons: Daemons, proxy: Proxy, statement: str, after: bool
) -> None:
    """Above all when the commit counted, but the worker never heard so."""
    daemon = through(proxy, daemons)
    proxy.cut_at(statement, after=after, only_after="UPDATE reservation SET pw")

    request = site.ask("new", 1)

    eventually(is_reserved(site), daemon.describe)
    assert proxy.struck == 1
    assert site.world.machine("vm1").loads == 1
    assert len(daemon.events("work began", request_id=request, state="new")) == 1
    assert not daemon.events("work handed back")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO vcld_claim", "UPDATE request SET", "INSERT INTO computerloadlog", "COMMIT"],
)
def test_fault_16_connection_cut_at_the_claim_claims_once(
    site: Site, daemons: Daemons, proxy: Proxy, statement: str, after: bool
) -> None:
    daemon = through(proxy, daemons)
    only_after = "INSERT INTO vcld_claim" if statement == "COMMIT" else None
    proxy.cut_at(statement, after=after, only_after=only_after)

    request = site.ask("new", 1)

    eventually(is_reserved(site), daemon.describe)
    assert proxy.struck == 1
    assert site.world.machine("vm1").loads == 1
    # Each claim has exactly one owner, whichever attempt it was.
    began = daemon.events("work began", request_id=request, state="new")
    assert len(began) == 1


def test_fault_16_connections_killed_by_an_administrator_are_made_anew(
    site: Site, daemons: Daemons, proxy: Proxy
) -> None:
    site.write_script(delays={"transfervm": 1})
    daemon = through(proxy, daemons)
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    proxy.cut_all()

    eventually(is_reserved(site), daemon.describe)
    assert site.world.machine("vm1").loads == 1


def test_fault_16_lock_wait_is_sat_out(site: Site, daemons: Daemons, database_url: str) -> None:
    """Another session holds the rows for longer than the server lets anybody wait."""
    url = make_url(database_url)
    old = str(url.query.get("init_command", "")).removeprefix("SET ")
    command = ", ".join(filter(None, ["SET SESSION innodb_lock_wait_timeout = 1", _plain(old)]))
    daemons.url = url.update_query_dict({"init_command": command}).render_as_string(
        hide_password=False
    )
    site.write_script(delays={"transfervm": 1})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    with site.engine.begin() as holder:
        holder.exec_driver_sql(f"SELECT id FROM request WHERE id = {request} FOR UPDATE")
        holder.exec_driver_sql("SELECT id FROM computer WHERE id = 1 FOR UPDATE")
        time.sleep(4)

    eventually(is_reserved(site), daemon.describe)
    assert site.world.machine("vm1").loads == 1
    assert not daemon.events("worker died, its work is repeated")


def _plain(setting: str) -> str:
    return setting.removeprefix("SESSION ")


def _status(site: Site, name: str) -> int | None:
    with site.engine.begin() as c:
        row = c.exec_driver_sql(f"SHOW GLOBAL STATUS LIKE '{name}'").first()
    return None if row is None else int(row[1])


def test_fault_16_deadlock_with_the_web_site_is_tried_again(site: Site, daemons: Daemons) -> None:
    """The worker holds the request's row and wants the computer's; another has them crosswise."""
    site.write_script(delays={"guest:reserve": 1})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "addinguser" in site.steps(request), daemon.describe)
    before = _status(site, "Innodb_deadlocks")
    other = make_engine(site.engine.url)

    with other.begin() as holder:
        # Many changes: the server then sacrifices the worker's transaction, not this one.
        holder.exec_driver_sql(
            "INSERT INTO vcld_notice (requestid, name)"
            " SELECT 4000000 + seq, 'ballast' FROM seq_1_to_2000"
        )
        (reservation,) = site.reservations(request)
        holder.exec_driver_sql(f"SELECT id FROM reservation WHERE id = {reservation} FOR UPDATE")
        eventually(lambda: _status(site, "Innodb_row_lock_current_waits"), daemon.describe)
        holder.exec_driver_sql(f"SELECT id FROM request WHERE id = {request} FOR UPDATE")
    other.dispose()

    eventually(is_reserved(site), daemon.describe)
    if before is not None:  # the server counts them
        assert (_status(site, "Innodb_deadlocks") or 0) > before
    assert site.world.machine("vm1").loads == 1
    site.execute("DELETE FROM vcld_notice WHERE requestid > 4000000")


def test_fault_16_read_only_server_during_a_failover_is_waited_for(
    site: Site, daemons: Daemons, mariadb: Server, database_url: str
) -> None:
    if not isinstance(mariadb, MariaDB):
        pytest.skip("NOT TESTED: read_only is set on the private server only")
    name = make_url(database_url).database
    mariadb.query("CREATE OR REPLACE USER vcl@'127.0.0.1' IDENTIFIED BY 'secret'")
    mariadb.query(f"GRANT ALL ON `{name}`.* TO vcl@'127.0.0.1'")
    daemons.url = (
        make_url(database_url)
        .set(username="vcl", password="secret")
        .render_as_string(hide_password=False)
    )
    site.write_script(delays={"transfervm": 1})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    mariadb.query("SET GLOBAL read_only = 1")
    try:
        eventually(lambda: daemon.events("the database is away, waiting for it"), daemon.describe)
        time.sleep(2)
    finally:
        mariadb.query("SET GLOBAL read_only = 0")

    eventually(is_reserved(site), daemon.describe)
    assert site.world.machine("vm1").loads == 1


def test_fault_17_slow_is_not_dead(site: Site, daemons: Daemons, proxy: Proxy) -> None:
    """Every statement takes 2 s: the work takes longer, but nothing is doubled or lost."""
    daemon = through(proxy, daemons, max_attempts=1)
    proxy.delay_seconds = 2.0

    request = site.ask("tomaintenance", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe, limit_seconds=90)
    assert site.computer(1) == "maintenance"
    assert len(daemon.events("work began", request_id=request)) == 1
    proxy.delay_seconds = 0.0


def convert(server: Server, charset: str) -> None:
    """Change the character set of texts; only a lax session takes the zero dates in defaults."""
    engine = make_engine(server.url("vcld_test", sql_mode="lax"))
    for table in ("user", "image"):
        eventually(partial(is_converted, engine, table, charset))
    engine.dispose()


def is_converted(engine: Engine, table: str, charset: str) -> bool:
    """False when the server's own work on the table was in the way: error 1025, deadlock."""
    try:
        with engine.begin() as c:
            c.exec_driver_sql(f"ALTER TABLE {table} CONVERT TO CHARACTER SET {charset}")
    except OperationalError as err:
        if "deadlock" not in str(err):
            raise
        return False
    return True


@pytest.mark.parametrize("mode", ["strict", "lax"])
@pytest.mark.parametrize("charset", ["utf8mb4", "latin1"])
def test_fault_21_sql_modes_and_character_sets(
    site: Site, daemons: Daemons, mariadb: Server, mode: str, charset: str
) -> None:
    """A whole life in sessions of either mode; names in the database's own character set."""
    daemons.url = mariadb.url("vcld_test", sql_mode=mode)
    convert(mariadb, charset)
    try:
        site.execute("UPDATE user SET firstname = 'Zoë', lastname = 'Müller' WHERE id = 101")
        site.execute("UPDATE image SET prettyname = 'Übung für Ä' WHERE id = 2")
        daemon = daemons.start()

        request = site.ask("new", 1)

        eventually(is_reserved(site), daemon.describe)
        site.connect(request)
        eventually(lambda: site.computer(1) == "inuse", daemon.describe)
        site.end(request)
        eventually(lambda: site.pair(request) == "gone", daemon.describe)
    finally:
        convert(mariadb, "latin1")


def test_fault_21_rows_of_the_perl_daemon_with_zero_dates_are_read_well(
    site: Site, daemons: Daemons, mariadb: Server, database_url: str
) -> None:
    lax = make_engine(mariadb.url("vcld_test", sql_mode="lax"))
    site.variable("general_end_notice_first", 1)
    site.variable("general_end_notice_second", 1)
    ended = site.ask("inuse", 1, laststate="reserved")
    fresh = site.ask("new", 2)
    zero = "0000-00-00 00:00:00"
    with lax.begin() as c:
        c.execute(sa.text("UPDATE reservation SET lastcheck = :zero"), {"zero": zero})
        c.execute(
            sa.text("UPDATE request SET daterequested = :zero, end = :zero WHERE id = :id"),
            {"zero": zero, "id": ended},
        )
        c.execute(sa.text("UPDATE computer SET lastcheck = :zero"), {"zero": zero})
    lax.dispose()
    site.set_computer(1, "inuse")

    daemon = daemons.start()

    eventually(lambda: site.computer(2) == "reserved", daemon.describe)
    assert site.pair(fresh) == "pending/reserved"
    # An end that was never set is over.
    over = ("complete/timeout", "gone")
    eventually(lambda: site.pair(ended) in over, daemon.describe)
