"""What accounting costs: nothing when off, at most two statements a transition when on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from tests.accounts import Accounts
from tests.lives import Life
from tests.site import Site
from vcld.accounting.facts import HostFacts
from vcld.accounting.hosts import add_host
from vcld.accounting.recorder import OFF, Milestone, Recorder, find_recorder
from vcld.schema.engine import make_engine

HOST = HostFacts(oid=5, hostname="vm1.example.edu", provisioning="vmware")


class Silent:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def error(self, _event: str, **facts: Any) -> None:
        self.told.append(facts)


@contextmanager
def counting(engine: Engine) -> Iterator[list[str]]:
    """The statements that reach the database."""
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def transitions(life: Life, connection: Connection) -> Iterator[Callable[[], None]]:
    """A whole life, one transition at a time."""
    vm = life.vms[0]
    yield lambda: life.begin(connection, milestones=0)
    for milestone in Milestone:
        yield lambda m=milestone: life.recorder.pass_milestone(  # type: ignore[misc]
            connection, m, life.reservation(vm)
        )
    yield lambda: life.end(connection, "reserved")
    for state, outcome in (
        ("reserved", "inuse"),
        ("inuse", "inuse"),
        ("checkpoint", "reserved"),
        ("reserved", "inuse"),
        ("reinstall", "reserved"),
        ("inuse", "timeout"),
        ("timeout", "complete"),
    ):
        if life.state != state:
            life.move(state)
        yield lambda: life.begin(connection, milestones=0)
        if state == "reinstall":
            for milestone in Milestone:
                yield lambda m=milestone: life.recorder.pass_milestone(  # type: ignore[misc]
                    connection, m, life.reservation(vm)
                )
        yield lambda o=outcome: life.end(connection, o, "timeout")  # type: ignore[misc]


def test_no_transition_takes_more_than_two_statements(site: Site, accounts: Accounts) -> None:
    with accounts.engine.begin() as c:
        add_host(c, accounts.tables, HOST)
        recorder = find_recorder(c, "", Silent())
    request = site.ask("new", 1)
    life = Life(recorder, site.reservations(request), request)

    counts = []
    with accounts.engine.begin() as connection:
        for step in transitions(life, connection):
            with counting(accounts.engine) as seen:
                step()
            counts.append(len(seen))

    assert max(counts) == 2, counts
    assert len(accounts.stays(life.vms[0])) == 3


def test_what_is_not_installed_is_not_asked_for(site: Site) -> None:
    request = site.ask("new", 1)
    life = Life(OFF, site.reservations(request), request)

    with counting(site.engine) as seen, site.engine.begin() as connection:
        for step in transitions(life, connection):
            step()

    assert seen == []


def test_after_2038_nothing_is_recorded(
    site: Site, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    with accounts.engine.begin() as c:
        recorder = find_recorder(c, "", Silent())
    monkeypatch.setattr("vcld.clock.epoch", lambda: 2.0**31)
    request = site.ask("new", 1)
    life = Life(recorder, site.reservations(request), request)

    with counting(site.engine) as seen, site.engine.begin() as connection:
        for step in transitions(life, connection):
            step()

    assert seen == []


def test_refused_accounting_is_told_and_does_not_stop_the_work(
    site: Site, accounts: Accounts
) -> None:
    log = Silent()
    with accounts.engine.begin() as c:
        recorder = find_recorder(c, "", log)
    site.execute("DROP TABLE history")
    request = site.ask("new", 1)
    life = Life(recorder, site.reservations(request), request)

    with accounts.engine.begin() as connection:
        life.begin(connection)
        connection.execute(sa.text("UPDATE computer SET notes = 'still here' WHERE id = 1"))

    assert site.scalar("SELECT notes FROM computer WHERE id = 1") == "still here"
    assert "history" in log.told[0]["reason"]
    accounts.tables.metadata.create_all(accounts.engine)
    site.execute("DELETE FROM vm_pool")


def test_rolled_back_transition_leaves_no_row(
    site: Site, accounts: Accounts, database_url: str
) -> None:
    with accounts.engine.begin() as c:
        recorder: Recorder = find_recorder(c, "", Silent())
    request = site.ask("new", 1)
    life = Life(recorder, site.reservations(request), request)
    other = make_engine(database_url)

    connection = other.connect()
    transaction = connection.begin()
    life.begin(connection)
    assert accounts.rows("vm_pool") == []  # nobody sees half a transition
    transaction.rollback()
    connection.close()
    other.dispose()

    assert accounts.rows("vm_pool") == []
    assert accounts.rows("history") == []
