"""Rows that an administrator changes by hand, or the web site, while a worker is at it."""

from __future__ import annotations

import signal

import pytest

from tests.daemon import Daemons, eventually
from tests.post_office import PostOffice
from tests.site import Site

HANG = {"step": "startvm", "hang": True}


@pytest.mark.parametrize("taken_out", [0, 1])
def test_reservation_taken_out_of_a_cluster_lets_the_rest_go_on(
    site: Site, daemons: Daemons, taken_out: int
) -> None:
    site.write_script(rules=[{**HANG, "computer": f"vm{taken_out + 1}"}])
    daemon = daemons.start()
    request = site.ask("new", 1, 2)
    eventually(lambda: {"startvm", "nodeready"} <= set(site.steps(request)), daemon.describe)

    gone = site.reservations(request)[taken_out]
    site.execute(f"DELETE FROM reservation WHERE id = {gone}")

    left = 2 - taken_out
    eventually(lambda: site.computer(left) == "reserved", daemon.describe)
    assert site.pair(request) == "pending/reserved"
    eventually(lambda: site.computer(taken_out + 1) == "available", daemon.describe)
    eventually(lambda: len(site.claims()) == 1, daemon.describe)


def test_reservation_moved_to_another_computer_is_begun_anew_there(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(rules=[{**HANG, "computer": "vm1"}])
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "startvm" in site.steps(request), daemon.describe)

    site.execute(f"UPDATE reservation SET computerid = 2 WHERE requestid = {request}")

    eventually(lambda: site.computer(2) == "reserved", daemon.describe)
    assert site.pair(request) == "pending/reserved"
    assert site.world.machine("vm2").accounts == ["ada"]
    assert site.computer(1) == "available"


def test_session_without_an_end_goes_on_once_it_has_one(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    site.execute("SET STATEMENT sql_mode = '' FOR UPDATE request SET end = '0000-00-00 00:00:00'")
    eventually(lambda: "next notice" in str([c.reason for c in site.claims()]), daemon.describe)

    site.execute(f"UPDATE request SET end = NOW() + INTERVAL 5 HOUR WHERE id = {request}")
    site.execute("UPDATE vcld_claim SET next_at = UTC_TIMESTAMP()")

    eventually(lambda: site.pair(request) == "inuse/inuse", daemon.describe)
    assert site.claims() == []


def test_management_node_s_row_is_read_again_with_the_configuration(
    site: Site, daemons: Daemons
) -> None:
    """Without the signal, after a minute: its keys, its network, whom to mail."""
    with PostOffice.open() as office:
        site.write_script(
            rules=[{"step": "startvm", "error": "ProvisioningError", "blame": "COMPUTER"}]
        )
        site.execute("UPDATE managementnode SET sysadminEmailAddress = 'old@example.org'")
        daemon = daemons.start(smtp_port=office.port, smtp_timeout=10)
        first = site.ask("reload", 1)
        eventually(lambda: office.envelopes, daemon.describe)
        site.execute("UPDATE managementnode SET sysadminEmailAddress = 'new@example.org'")
        daemon.send(signal.SIGHUP)
        eventually(lambda: daemon.events("configuration read again"), daemon.describe)

        second = site.ask("reload", 2)

        eventually(lambda: len(office.envelopes) == 2, daemon.describe)
        assert [site.pair(first), site.pair(second)] == ["gone", "gone"]
        assert [office.mail(number)["To"] for number in (0, 1)] == [
            "old@example.org",
            "new@example.org",
        ]


def test_cluster_of_which_one_computer_is_to_be_looked_at_is_looked_at_as_a_whole(
    site: Site, daemons: Daemons
) -> None:
    """The parent alone makes the request "inuse" again: without it, it would stay pending."""
    daemon = daemons.start()
    request = site.ask("new", 1, 2)
    eventually(lambda: {site.computer(n) for n in (1, 2)} == {"reserved"}, daemon.describe)
    site.connect(request)
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)
    eventually(lambda: not site.claims(), daemon.describe)
    looks = len(daemon.events("work began"))

    child = max(site.reservations(request))
    site.execute(f"UPDATE reservation SET lastcheck = NOW() - INTERVAL 1 HOUR WHERE id = {child}")

    eventually(lambda: len(daemon.events("work began")) == looks + 2, daemon.describe)
    eventually(lambda: site.pair(request) == "inuse/inuse", daemon.describe, 10)
    assert site.claims() == []
