"""One row that the database will not change: that request waits, all others go on."""

from __future__ import annotations

import pytest

from tests.daemon import Daemons, eventually
from tests.site import Site


def test_finished_request_that_cannot_be_removed_holds_up_nobody(
    site: Site, daemons: Daemons
) -> None:
    """A table of the site's own refers to it."""
    held, free = site.ask("new", 1, start=86400), site.ask("new", 2, start=86400)
    site.execute(
        "CREATE TABLE local_notes (requestid MEDIUMINT UNSIGNED,"
        " FOREIGN KEY (requestid) REFERENCES request (id)) ENGINE = InnoDB"
    )
    try:
        site.execute(f"INSERT INTO local_notes VALUES ({held})")
        for request in (held, free):
            site.set_state(request, "complete", "deleted")
        daemon = daemons.start()
        eventually(lambda: site.pair(free) == "gone", daemon.describe)

        site.ask("new", 3)

        eventually(lambda: site.computer(3) == "reserved", daemon.describe)
        assert site.pair(held) == "complete/deleted"
        (told,) = daemon.events("finished request cannot be removed")
        assert told["request_id"] == held
        assert "local_notes" in told["reason"]
    finally:
        site.execute("DROP TABLE local_notes")
    eventually(lambda: site.pair(held) == "gone", daemon.describe)


def test_recovery_that_is_refused_holds_up_nobody_and_is_tried_again(
    site: Site, daemons: Daemons
) -> None:
    """The reload that it asks for needs the user vclreload, whom somebody has removed."""
    site.write_script(rules=[{"step": "reserved:grant-access", "signal": "KILL"}])
    daemon = daemons.start(max_attempts=1)
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.execute("UPDATE user SET unityid = 'gone' WHERE unityid = 'vclreload'")
    site.connect(request)
    eventually(lambda: daemon.events("recovery was refused, it will be tried again"))

    site.ask("new", 2)

    eventually(lambda: site.computer(2) == "reserved", daemon.describe)
    assert site.pair(request) == "pending/reserved"
    site.execute("UPDATE user SET unityid = 'vclreload' WHERE unityid = 'gone'")
    eventually(lambda: site.pair(request) == "failed/reserved", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert site.world.machine("vm1").accounts == []


def test_request_that_cannot_be_claimed_holds_up_nobody(site: Site, daemons: Daemons) -> None:
    site.execute(
        "CREATE TRIGGER local_rule BEFORE INSERT ON vcld_claim FOR EACH ROW"
        " IF NEW.computerid = 1 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one';"
        " END IF"
    )
    try:
        daemon = daemons.start()
        refused, other = site.ask("new", 1), site.ask("new", 2)

        eventually(lambda: site.computer(2) == "reserved", daemon.describe)
        assert [site.pair(refused), site.pair(other)] == ["new/new", "pending/reserved"]
        (told,) = daemon.events("request cannot be claimed")
        assert (told["request_id"], "not this one" in told["reason"]) == (refused, True)
    finally:
        site.execute("DROP TRIGGER local_rule")
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
def test_words_that_the_site_s_tables_cannot_hold_change_nothing_of_what_becomes_of_a_failure(
    site: Site, daemons: Daemons, charset: str
) -> None:
    """VCL's schema is latin1; what a host says of its trouble is not."""
    for table in ("computerloadlog", "vcld_claim"):
        site.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET {charset}")
    words = "Datenträger 😀 日本"
    site.write_script(
        rules=[
            {"step": "startvm", "computer": "vm1", "error": "LoadTimeoutError", "message": words},
            {"step": "startvm", "computer": "vm2", "error": "BackendUnavailableError",
             "message": words, "times": 1},
        ]
    )  # fmt: skip
    daemon = daemons.start()

    failing, postponed = site.ask("new", 1), site.ask("new", 2)

    eventually(lambda: site.pair(failing) == "failed/new", daemon.describe)
    assert dict(site.load_log(failing))["failed"] == "Datentrager ? ??"
    assert site.computer(1) == "failed"
    eventually(lambda: site.computer(2) == "reserved", daemon.describe)
    assert site.pair(postponed) == "pending/reserved"
    assert any(words in line["reason"] for line in daemon.events("work ended"))
