"""The web site writes a request row by row, without a transaction: vcld may see a part of it."""

from __future__ import annotations

from tests.daemon import Daemons, eventually
from tests.site import ADDRESS, Site

ROW = (
    "INSERT INTO reservation (requestid, computerid, imageid, imagerevisionid, managementnodeid)"
    " VALUES ({request}, {computer}, 2, 21, 1)"
)


def test_reservation_written_after_the_claim_is_loaded_with_the_rest(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"startvm": 0.5})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "startvm" in site.steps(request), daemon.describe)

    site.execute(ROW.format(request=request, computer=2))

    eventually(lambda: all(site.computer(n) == "reserved" for n in (1, 2)), daemon.describe)
    assert site.world.machine("vm2").accounts == ["ada"]
    assert site.pair(request) == "pending/reserved"
    assert site.load_log(request)[-1][0] in {"reserved", "acknowledgetimeout"}


def test_reservation_written_between_claim_and_start_of_the_worker(
    site: Site, daemons: Daemons
) -> None:
    """The worker sees a cluster of which it was given a part only."""
    site.execute(
        "CREATE TRIGGER late AFTER INSERT ON vcld_claim FOR EACH ROW INSERT INTO reservation"
        " (requestid, computerid, imageid, imagerevisionid, managementnodeid)"
        " SELECT NEW.requestid, 2, 2, 21, 1 FROM DUAL WHERE NEW.computerid = 1 AND NOT EXISTS"
        " (SELECT 1 FROM reservation WHERE requestid = NEW.requestid AND computerid = 2)"
    )
    try:
        daemon = daemons.start()

        request = site.ask("new", 1)

        eventually(lambda: all(site.computer(n) == "reserved" for n in (1, 2)), daemon.describe)
        assert site.world.machine("vm2").accounts == ["ada"]
        assert site.pair(request) == "pending/reserved"
    finally:
        site.execute("DROP TRIGGER late")


def test_server_request_written_after_the_claim_gets_its_address(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"startvm": 0.5})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "startvm" in site.steps(request), daemon.describe)

    site.execute(
        "INSERT INTO serverrequest (id, name, serverprofileid, requestid, fixedIP)"
        f" VALUES (1, 'web', 0, {request}, '192.0.2.201')"
    )
    site.execute(f"UPDATE reservation SET remoteIP = '{ADDRESS}' WHERE requestid = {request}")

    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    assert site.scalar("SELECT IPaddress FROM computer WHERE id = 1") == "192.0.2.201"
