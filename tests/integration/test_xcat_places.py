"""Places for heavy work: never too many, in order, and none for the dead."""

from __future__ import annotations

import threading
import time

import pytest

from tests.site import Site
from vcld.store import slots

NAME = "xcat-load|node1"


@pytest.fixture
def claims(site: Site) -> Site:
    """Thirty reservations with a worker each."""
    site.execute(
        "INSERT INTO vcld_claim (reservationid, requestid, managementnodeid, computerid, state,"
        " laststate, phase, daemon, token, claimed_at) SELECT seq, seq, 1, seq, 'reload', 'reload',"
        " 'running', 'd', 1000 + seq, NOW() FROM seq_1_to_30"
    )
    return site


def draw(site: Site, reservation: int) -> int:
    with site.engine.begin() as connection:
        ticket = slots.draw(connection, NAME, reservation)
    assert ticket is not None
    return ticket


def ask(site: Site, ticket: int, limit: int = 1) -> slots.Place | None:
    with site.engine.begin() as connection:
        return slots.ask(connection, NAME, ticket, limit)


def test_places_are_given_in_the_order_of_asking(claims: Site) -> None:
    first, second, third = (draw(claims, number) for number in (3, 1, 2))
    place = ask(claims, third)
    assert place is not None
    assert (place.granted, place.ahead) == (False, 2)
    assert ask(claims, first) == slots.Place(granted=True, taken=1, ahead=0)
    assert ask(claims, second) == slots.Place(granted=False, taken=1, ahead=0)
    with claims.engine.begin() as connection:
        slots.leave(connection, NAME, 3)
    assert ask(claims, third) == slots.Place(granted=False, taken=0, ahead=1)
    assert ask(claims, second) == slots.Place(granted=True, taken=1, ahead=0)


def test_who_lost_the_claim_has_lost_the_place(claims: Site) -> None:
    first, second = draw(claims, 1), draw(claims, 2)
    ask(claims, first)
    claims.execute("UPDATE vcld_claim SET token = 1 WHERE reservationid = 1")
    assert ask(claims, first) is None
    assert ask(claims, second) == slots.Place(granted=True, taken=1, ahead=0)


def test_without_a_claim_there_is_no_ticket(site: Site) -> None:
    with site.engine.begin() as connection:
        assert slots.draw(connection, NAME, 99) is None


def test_never_more_than_the_limit_at_once(claims: Site) -> None:
    inside, most = [0], [0]
    guard = threading.Lock()
    served: list[int] = []

    def work(number: int) -> None:
        ticket = draw(claims, number)
        while True:
            place = ask(claims, ticket, 3)
            assert place is not None
            if place.granted:
                break
            time.sleep(0.005)
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        with guard:
            inside[0] -= 1
            served.append(number)
        with claims.engine.begin() as connection:
            slots.leave(connection, NAME, number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(served) == list(range(1, 31))
    assert most[0] <= 3
    assert claims.scalar("SELECT COUNT(*) FROM vcld_slot") == 0
