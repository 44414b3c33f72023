"""A VM's id is its reservation's, and stays its own when the database gives it once more.

MariaDB before 10.2.4 and MySQL before 8 count from the largest row after a restart, and so does
every server that was filled from a dump without the rows of ``reservation``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.accounts import Accounts
from tests.lives import Life
from tests.site import Site
from vcld.accounting.codes import Reason, VmState
from vcld.accounting.recorder import Recorder, find_recorder

BACKENDS = ("mariadb", "sqlite")


class Told:
    """A log that keeps its errors."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def error(self, _event: str, **facts: Any) -> None:
        self.reasons.append(facts["reason"])


@pytest.fixture
def log() -> Told:
    return Told()


@pytest.fixture
def recorder(accounts: Accounts, log: Told) -> Recorder:
    with accounts.engine.begin() as c:
        return find_recorder(c, "", log)


@pytest.fixture
def over(site: Site, accounts: Accounts, recorder: Recorder) -> Life:
    """A request that is over; its rows are gone."""
    request = site.ask("new", 1)
    life = Life(recorder, site.reservations(request), request, logid=log_of(site, request))
    run_through(accounts, life)
    site.execute(f"DELETE FROM request WHERE id = {request}")
    return life


def log_of(site: Site, requestid: int) -> int:
    return int(site.scalar(f"SELECT logid FROM request WHERE id = {requestid}"))


def run_through(accounts: Accounts, life: Life) -> None:
    with accounts.engine.begin() as c:
        life.begin(c)
        life.end(c, "reserved")
        life.begin(c)
        life.end(c, "inuse")
        life.begin(c)
        life.move("deleted")
        life.begin(c)
        life.end(c, "complete")


def ask_again(site: Site, id_: int) -> int:
    """Another request, whose reservation is given the id of an earlier one."""
    request = site.ask("new", 2)
    site.execute(f"UPDATE reservation SET id = {id_} WHERE requestid = {request}")
    return request


def test_id_that_is_given_twice_leaves_the_first_vm_as_it_is(
    site: Site, accounts: Accounts, recorder: Recorder, over: Life, log: Told
) -> None:
    id_ = over.vms[0]
    before = (accounts.vm(id_), accounts.stays(id_))

    request = ask_again(site, id_)
    run_through(accounts, Life(recorder, [id_], request, logid=log_of(site, request)))

    assert (accounts.vm(id_), accounts.stays(id_)) == before
    assert any("AUTO_INCREMENT" in reason and str(id_) in reason for reason in log.reasons)
    site.execute(f"DELETE FROM request WHERE id = {request}")


def test_check_names_the_request_that_is_not_accounted(
    site: Site, accounts: Accounts, over: Life
) -> None:
    request = ask_again(site, over.vms[0])

    found = accounts.breaches()

    assert [line.partition(":")[0] for line in found] == ["id-given-twice"]
    assert f"oid={over.vms[0]}" in found[0]
    assert f"request {request}" in found[0]
    site.execute(f"DELETE FROM request WHERE id = {request}")


def test_failed_request_that_is_tried_again_is_the_same_vm(
    site: Site, accounts: Accounts, recorder: Recorder
) -> None:
    request = site.ask("new", 1)
    (id_,) = site.reservations(request)
    life = Life(recorder, [id_], request, logid=log_of(site, request))
    with accounts.engine.begin() as c:
        life.begin(c, milestones=3)
        life.end(c, "failed")
    assert accounts.vm(id_).state == VmState.FAILED

    life.state = life.laststate = "new"
    with accounts.engine.begin() as c:
        life.begin(c)
        life.end(c, "reserved")

    first, second = accounts.stays(id_)
    assert (first.reason, second.etime) == (Reason.ERROR, 0)
    assert accounts.vm(id_).state == VmState.ACTIVE


def test_reservation_with_another_computer_and_revision_is_told_as_what_it_is_now(
    site: Site, accounts: Accounts, recorder: Recorder
) -> None:
    request = site.ask("new", 1)
    (id_,) = site.reservations(request)
    life = Life(recorder, [id_], request, logid=log_of(site, request))
    with accounts.engine.begin() as c:
        life.begin(c)
        life.end(c, "reserved")
        life.begin(c)
        life.end(c, "inuse")
        life.move("reinstall")
        was = life.reservation(id_)
        now = replace(
            was,
            computer=replace(was.computer, hostname="vm2.example.edu"),
            imagerevision=replace(was.imagerevision, revision=7),
        )
        recorder.begin(c, life.grip(id_), now)

    vm = accounts.vm(id_)
    assert vm.name == "Linux with tools on vm2"
    assert "<REVISION>7</REVISION>" in vm.template
    assert (vm.state, accounts.stays(id_)[0].reason) == (VmState.PENDING, Reason.STOP_RESUME)
