"""``vcld retry`` and ``vcld cancel`` do what an operator means, and no harm."""

from __future__ import annotations

import pytest

from tests.daemon import Daemons, eventually
from tests.site import NEW_REVISION, Site
from vcld.errors import VcldError
from vcld.store import levers


def retry(site: Site, request: int) -> str:
    with site.engine.begin() as c:
        return levers.retry(c, site.catalog, request)


def test_retry_of_a_failed_request_opens_its_log_again_and_frees_its_computer(site: Site) -> None:
    request = site.ask("failed", 1, laststate="new")
    site.set_computer(1, "failed")
    site.execute("UPDATE log SET ending = 'failed', finalend = NOW() - INTERVAL 1 MINUTE")

    retry(site, request)

    assert site.pair(request) == "new/new"
    assert site.computer(1) == "available"
    assert site.ending(request) == "none"
    assert site.scalar("SELECT finalend = end FROM log JOIN request ON logid = log.id") == 1


def test_retry_leaves_a_computer_in_maintenance_to_its_administrator(site: Site) -> None:
    request = site.ask("failed", 1, laststate="new")
    site.set_computer(1, "maintenance")

    retry(site, request)

    assert site.computer(1) == "maintenance"


def test_retry_of_a_capture_takes_the_computer_out_of_maintenance(site: Site) -> None:
    request = site.ask("maintenance", 1, laststate="image")
    site.set_computer(1, "maintenance")

    retry(site, request)

    assert site.pair(request) == "image/maintenance"
    assert site.computer(1) == "inuse"


@pytest.mark.parametrize("state", ["image", "checkpoint"])
def test_cancel_refuses_to_lose_what_is_being_captured(
    site: Site, daemons: Daemons, state: str
) -> None:
    site.write_script(delays={"capture": 60})
    daemon = daemons.start(shutdown_grace=1)
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request).startswith("inuse/"), daemon.describe)
    site.execute(f"UPDATE reservation SET imagerevisionid = {NEW_REVISION}")
    site.set_state(request, state, "inuse")
    eventually(lambda: daemon.events("work began", state=state), daemon.describe)

    done = daemon.command("cancel", str(request))

    assert done.returncode == 10
    assert "captures an image, which would be lost" in done.stderr
    assert site.pair(request) == f"pending/{state}"


def test_cancel_of_what_is_over_says_so(site: Site) -> None:
    request = site.ask("complete", 1, laststate="deleted")

    with site.engine.begin() as c, pytest.raises(VcldError, match="is over already"):
        levers.cancel(c, site.catalog, request)


def test_load_in_advance_that_is_cancelled_lets_the_computer_go(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    request = site.ask("new", 1, start=1800)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    assert daemon.command("cancel", str(request)).returncode == 0

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.scalar("SELECT COUNT(*) FROM request") == 0
