"""Broken rows: one clear line, the request fails or waits, nothing else is touched."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from tests.daemon import Daemon, Daemons, eventually
from tests.mariadb import Server
from tests.site import Site

#: What is missing → how an operator who breaks foreign keys by hand would make it so.
BROKEN = {
    "computer": "UPDATE reservation SET computerid = 9999 WHERE requestid = {request}",
    "image": "UPDATE reservation SET imageid = 9999 WHERE requestid = {request}",
    "image revision": "UPDATE reservation SET imagerevisionid = 9999 WHERE requestid = {request}",
    "user": "UPDATE request SET userid = 9999 WHERE id = {request}",
    "provisioning": "UPDATE computer SET provisioningid = 99 WHERE id = 1",
    "module of the provisioning": "UPDATE provisioning SET moduleid = 99 WHERE name = 'simulator'",
    "operating system": "UPDATE image SET OSid = 99 WHERE id = 2",
}


def break_rows(site: Site, *statements: str) -> None:
    with site.engine.begin() as c:
        c.exec_driver_sql("SET foreign_key_checks = 0")
        for statement in statements:
            c.exec_driver_sql(statement)
        c.exec_driver_sql("SET foreign_key_checks = 1")


def goes_on(site: Site, daemon: Daemon) -> None:
    """Other requests are done as ever, on a computer that is not broken."""
    other = site.ask("tomaintenance", 9)
    eventually(lambda: site.pair(other) == "gone", daemon.describe)


def provide(site: Site, provisioning: str) -> None:
    """Give the first computer another provisioning."""
    site.execute(
        "UPDATE computer SET provisioningid ="
        f" (SELECT id FROM provisioning WHERE name = '{provisioning}') WHERE id = 1"
    )


@pytest.mark.parametrize("what", BROKEN)
def test_missing_row_fails_its_request_only(site: Site, daemons: Daemons, what: str) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1, start=90000, seconds=180000)
    break_rows(site, BROKEN[what].format(request=request))
    site.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)

    (line,) = daemon.events("reservation data is broken")
    assert what in line["reason"]
    assert "has no row" in line["reason"]
    if what == "provisioning":
        assert "of computer 1 has" in line["reason"]  # its own id, not one of another table
    texts = [text for name, text in site.load_log(request) if name == "failed"]
    # The log's rows refer to a computer; without one there is no place for them.
    assert texts == ([] if what == "computer" else [line["reason"]])
    assert what in daemon.command("explain", str(request)).stdout
    assert site.claims() == []
    if what not in {"module of the provisioning", "provisioning"}:
        assert site.computer(1) == "available"
        goes_on(site, daemon)
    assert not daemon.events("worker failed by an unexpected error")


def test_unknown_plugin_fails_its_request_only(site: Site, daemons: Daemons) -> None:
    site.execute(
        "INSERT INTO module (name, prettyname, description, perlpackage)"
        " VALUES ('provisioning_x', 'x', 'x', 'x')"
    )
    site.execute(
        "INSERT INTO provisioning (name, prettyname, moduleid)"
        " SELECT 'x', 'x', id FROM module WHERE name = 'provisioning_x'"
    )
    provide(site, "x")
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    texts = [text for name, text in site.load_log(request) if name == "failed"]
    assert "provisioning_x" in texts[0]
    assert site.computer(1) == "available"
    goes_on(site, daemon)


@pytest.mark.parametrize(
    ("state", "ends"), [("tomaintenance", "maintenance"), ("tovmhostinuse", "vmhostinuse")]
)
def test_vm_host_that_nobody_loads_is_moved_by_the_administrator(
    site: Site, daemons: Daemons, state: str, ends: str
) -> None:
    """Provisioning ``none``, and an operating system that no guest is registered for."""
    provide(site, "none")
    site.execute(
        "UPDATE OS SET moduleid = (SELECT id FROM module WHERE name = 'os_esxi')"
        " WHERE name = 'simulator'"
    )
    daemon = daemons.start()

    request = site.ask(state, 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == ends


def test_computer_that_nobody_loads_is_handed_out_only_with_what_it_holds(
    site: Site, daemons: Daemons
) -> None:
    provide(site, "none")
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
    texts = [text for name, text in site.load_log(request) if name == "failed"]
    assert "vm1 cannot be loaded: its provisioning is 'none'" in texts[0]
    assert site.computer(1) == "available"


def test_null_and_empty_where_a_value_is_needed(site: Site, daemons: Daemons) -> None:
    """Columns that VCL lets be NULL or empty: the work goes on without them."""
    break_rows(
        site,
        "UPDATE user SET email = '', preferredname = NULL, lastname = '' WHERE id = 101",
        "UPDATE computer SET IPaddress = '', privateIPaddress = NULL, eth0macaddress = NULL,"
        " eth1macaddress = NULL WHERE id = 1",
        "UPDATE image SET imagemetaid = NULL WHERE id = 2",
    )
    daemon = daemons.start()

    request = site.ask("new", 1)
    site.execute(f"UPDATE request SET logid = NULL WHERE id = {request}")

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert not daemon.events("worker failed by an unexpected error")


def test_reservation_without_a_request_is_told_of_once_and_left_alone(
    site: Site, daemons: Daemons
) -> None:
    request = site.ask("new", 1)
    (reservation,) = site.reservations(request)
    break_rows(site, f"DELETE FROM request WHERE id = {request}")

    daemon = daemons.start()

    goes_on(site, daemon)
    text = "half a request is in the database, it is left alone"
    (line,) = daemon.events(text)
    assert line["what"] == f"reservation {reservation} has no request"
    assert site.scalar("SELECT COUNT(*) FROM reservation") == 1


def test_request_without_a_reservation_is_told_of_and_explained(
    site: Site, daemons: Daemons
) -> None:
    request = site.ask("new", 1)
    site.execute("DELETE FROM reservation")
    site.execute("UPDATE request SET daterequested = NOW() - INTERVAL 1 HOUR")

    daemon = daemons.start()

    text = "half a request is in the database, it is left alone"
    eventually(lambda: daemon.events(text), daemon.describe)
    assert daemon.events(text)[0]["what"] == f"request {request} has no reservation"
    assert "It has no reservation" in daemon.command("explain", str(request)).stdout


def test_unknown_node_name_is_one_line_and_nothing_is_claimed(site: Site, daemons: Daemons) -> None:
    request = site.ask("new", 1)
    daemon = daemons.make(fqdn="typo.example.org").start(wait=False)
    assert daemon.process is not None

    assert daemon.process.wait(30) == 78

    lines = (daemon.folder / "vcld.err").read_text().strip().splitlines()
    assert len(lines) == 1
    assert "typo.example.org" in lines[0]
    assert site.pair(request) == "new/new"


@pytest.mark.parametrize("seconds", [-300, 300])
def test_clock_unlike_the_database_s_is_warned_of_once_and_explained(
    site: Site, daemons: Daemons, database_url: str, seconds: int
) -> None:
    """The database's clock is set for the daemon's sessions; it then stands still."""
    request = site.ask("new", 1, start=90000, seconds=180000)
    url = make_url(database_url)
    before = str(url.query.get("init_command", "")).removeprefix("SET SESSION ")
    shifted = f"SET SESSION timestamp = UNIX_TIMESTAMP() + {seconds}"
    command = ", ".join(filter(None, [shifted, before]))
    daemons.url = url.update_query_dict({"init_command": command}).render_as_string(
        hide_password=False
    )

    daemon = daemons.start(takeover_after=0)

    text = "this machine's clock differs from the database's: set the time"
    eventually(lambda: daemon.events(text), daemon.describe)
    assert abs(daemon.events(text)[0]["skew_seconds"] + seconds) < 20
    assert "clock" in daemon.command("explain", str(request)).stdout


def test_clocks_that_agree_are_not_warned_of(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()

    goes_on(site, daemon)

    assert not daemon.events("this machine's clock differs from the database's: set the time")


def test_claim_of_a_request_whose_row_alone_is_gone_is_forgotten(
    site: Site, daemons: Daemons
) -> None:
    request = site.ask("new", 1)
    daemon = daemons.start()
    eventually(lambda: [claim.phase for claim in site.claims()] == ["waiting"], daemon.describe)

    with site.engine.begin() as c:
        c.exec_driver_sql("SET foreign_key_checks = 0")
        c.exec_driver_sql(f"DELETE FROM request WHERE id = {request}")

    eventually(lambda: site.claims() == [], daemon.describe)
    goes_on(site, daemon)


def test_database_user_that_may_only_read_is_refused_with_the_remedy(
    site: Site, daemons: Daemons, mariadb: Server, database_url: str
) -> None:
    url = make_url(database_url)
    mariadb.query("CREATE OR REPLACE USER vcld_reader@'%' IDENTIFIED BY 'r'")
    mariadb.query(f"GRANT SELECT ON `{url.database}`.* TO vcld_reader@'%'")
    daemons.url = url.set(username="vcld_reader", password="r").render_as_string(False)
    daemon = daemons.make().start(wait=False)
    assert daemon.process is not None

    assert daemon.process.wait(30) == 78

    mariadb.query("DROP USER vcld_reader@'%'")
    (line,) = (daemon.folder / "vcld.err").read_text().strip().splitlines()
    assert "denied" in line
    assert "vcld db check" in line
    assert daemon.events("the database refuses what the daemon needs")


def in_capture(site: Site, daemons: Daemons) -> tuple[Daemon, int]:
    """A session of computer 1 that has just been told to make revision 22."""
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.execute(f"UPDATE reservation SET imagerevisionid = 22 WHERE requestid = {request}")
    site.set_state(request, "image", "inuse")
    return daemon, request


def test_capture_whose_name_is_taken_keeps_the_disk_and_says_by_whom(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(capture_as={"simulator-first-v2": "simulator-second-v1"})

    daemon, request = in_capture(site, daemons)

    eventually(lambda: site.pair(request) == "maintenance/image", daemon.describe)
    assert site.computer(1) == "maintenance"
    reason = dict(site.load_log(request))["failed"]
    assert "captured as simulator-second-v1" in reason
    assert "imagerevision 31 has that name already; rename or remove it" in reason
    assert (
        "imagerevision 31 has that name already" in daemon.command("explain", str(request)).stdout
    )
    assert not daemon.events("the database was away for too long")


def test_value_that_the_database_refuses_fails_the_request_with_its_words(
    site: Site, daemons: Daemons
) -> None:
    """Not as an outage: another attempt would meet the same."""
    site.execute(
        "CREATE TRIGGER refuse_address BEFORE UPDATE ON computer FOR EACH ROW"
        " IF NEW.currentimageid <> OLD.currentimageid THEN SIGNAL SQLSTATE '23000'"
        " SET MYSQL_ERRNO = 1062, MESSAGE_TEXT = 'this image is refused'; END IF"
    )
    try:
        daemon = daemons.start()
        request = site.ask("new", 1)

        eventually(lambda: site.pair(request) == "failed/new", daemon.describe)
        assert "this image is refused" in dict(site.load_log(request))["failed"]
        (ended,) = daemon.events("work ended", next_state="failed")
        assert "this image is refused" in ended["reason"]
        assert not daemon.events("the database was away for too long")
        assert len(daemon.events("work began", request_id=request)) == 1
    finally:
        site.execute("DROP TRIGGER refuse_address")


@pytest.mark.parametrize("value", ["9" * 20, "9" * 5000, "-5", "soon"])
def test_variables_out_of_all_bounds_keep_no_user_from_a_computer(
    site: Site, daemons: Daemons, value: str
) -> None:
    for name in (
        "acknowledgetimeout",
        "initialconnecttimeout",
        "general_inuse_check",
        "general_end_notice_first",
        "user_password_length",
    ):
        site.variable(name, value)
    daemon = daemons.start()

    request = site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert not daemon.events("the database refused a statement")


def test_load_state_that_the_site_lacks_is_told_once_and_stops_nothing(
    site: Site, daemons: Daemons
) -> None:
    site.execute("DELETE FROM computerloadstate WHERE loadstatename = 'begin'")
    daemon = daemons.start()

    request = site.ask("reload", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    (told,) = daemon.events("a row that vcld needs is not in the database")
    assert told["what"] == "table computerloadstate has no row 'begin': add it"


@pytest.mark.parametrize("missing", [1, 2])
def test_cluster_with_a_computer_without_a_row_fails_once(
    site: Site, daemons: Daemons, missing: int
) -> None:
    """It was begun anew without end, for its other part could never be handed over alone."""
    daemon = daemons.start()
    request = site.ask("new", 1, 2, start=90000, seconds=180000)
    break_rows(site, f"DELETE FROM computer WHERE id = {missing}")
    site.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")

    eventually(lambda: site.pair(request) == "failed/new", daemon.describe, 15)

    eventually(lambda: site.claims() == [], daemon.describe)
    reasons = {line["reason"] for line in daemon.events("reservation data is broken")}
    assert reasons == {
        f"reservation {site.reservations(request)[missing - 1]}: the computer {missing} has no row"
    }
    assert len(daemon.events("work began")) <= 1
    goes_on(site, daemon)
