"""The look, which asks in SQL, finds exactly what the rules of ``schedule`` call due."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.site import USER, Site
from vcld import schedule
from vcld.schedule import Action
from vcld.schema import models as m
from vcld.schema.sqltime import after_site_now
from vcld.store import candidates
from vcld.store.findings import Finding, order
from vcld.store.look import Looker

#: Around every limit of the rules, to the second; the session's clock stands still.
LIMITS = (0, 30, 1470, 2130, 630, -30, -270, -330, 86400, -86400)
SECONDS = st.sampled_from(sorted({limit + off for limit in LIMITS for off in (-1, 0, 1)}))
STATES = sorted(schedule.KNOWN_STATES | {"hpc", "available"})

REQUEST = st.fixed_dictionaries(
    {
        "state": st.sampled_from(STATES),
        "laststate": st.sampled_from(STATES),
        "start": SECONDS,
        "end": SECONDS,
        "checked": st.none() | SECONDS,
        "changed": st.none() | SECONDS,
        "preload": st.booleans(),
        "reservations": st.integers(1, 2),
        "is_server": st.booleans(),
    }
)
#: How a look's finding corresponds to the rule's action.
ACTIONS = {
    Finding.USER: {Action.START, Action.PRELOAD},
    Finding.BACKGROUND: {Action.START, Action.PRELOAD},
    Finding.SESSION: {Action.POLL, Action.END},
    Finding.FINISHED: {Action.REMOVE},
}


def insert(c: sa.Connection, site: Site, facts: dict[str, Any]) -> None:
    logid = None
    if facts["changed"] is not None:
        made = c.execute(
            sa.insert(m.Log).values(
                userid=USER,
                start=after_site_now(0),
                initialend=after_site_now(0),
                finalend=after_site_now(0),
                imageid=2,
            )
        ).inserted_primary_key
        assert made is not None
        logid = made[0]
        c.execute(
            sa.insert(m.ChangeLog).values(
                logid=logid, remoteIP="192.0.2.1", timestamp=after_site_now(facts["changed"])
            )
        )
    made = c.execute(
        sa.insert(m.Request).values(
            stateid=site.catalog.state_id(facts["state"]),
            laststateid=site.catalog.state_id(facts["laststate"]),
            userid=USER,
            logid=logid,
            preload=int(facts["preload"]),
            start=after_site_now(facts["start"]),
            end=after_site_now(facts["end"]),
            daterequested=after_site_now(0),
        )
    ).inserted_primary_key
    assert made is not None
    checked = None if facts["checked"] is None else after_site_now(facts["checked"])
    for number in range(facts["reservations"]):
        c.execute(
            sa.insert(m.Reservation).values(
                requestid=made[0],
                computerid=number + 1,
                imageid=2,
                imagerevisionid=21,
                managementnodeid=1,
                lastcheck=checked,
            )
        )
    if facts["is_server"]:
        c.execute(sa.insert(m.ServerRequest).values(name="server", requestid=made[0]))


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(requests=st.lists(REQUEST, min_size=1, max_size=6))
def test_look_finds_what_the_rules_call_due(site: Site, requests: list[dict[str, Any]]) -> None:
    connection = site.engine.connect()
    with connection as c:
        c.exec_driver_sql("SET timestamp = UNIX_TIMESTAMP('2030-05-05 12:00:00')")
        for facts in requests:
            insert(c, site, facts)
        looker = Looker(site.catalog, 1, "nobody")
        found = order(looker.look(c, limit=1000).found)
        ids = [row[0] for row in c.execute(sa.select(m.Request.id))]
        rows = candidates.load_candidates(c, site.catalog, 1, ids)
        c.rollback()
        c.exec_driver_sql("SET timestamp = DEFAULT")

    seen = {item.reservationid: item.finding for item in found}
    for row in rows:
        verdict = schedule.decide(row.timing)
        finding = seen.get(row.reservationid)
        described = f"{row.state}/{row.laststate}: {verdict}, but the look found {finding}"
        if row.state not in schedule.KNOWN_STATES:
            assert finding is Finding.UNKNOWN, described
        elif row.state == "pending":
            assert finding is (Finding.STRAY if row.is_parent else None), described
        elif verdict.action is Action.NOTHING:
            assert finding is None, described
        else:
            assert finding is not None, described
            assert verdict.action in ACTIONS[finding], described


@pytest.mark.parametrize("count", [1, 3])
def test_look_returns_no_more_than_it_was_asked_for(site: Site, count: int) -> None:
    for number in range(1, 6):
        site.ask("tomaintenance", number)

    with site.engine.begin() as c:
        look = Looker(site.catalog, 1, "nobody").look(c, limit=count)

    assert len(look.found) == count
