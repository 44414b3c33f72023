"""The time before vcld ran, from VCL's own log."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tests.accounts import Accounts
from tests.backends import lax_session, session_in_utc
from tests.daemon import Daemon
from tests.site import IMAGE, REVISION, USER, Site
from vcld.accounting.codes import FIRST_REBUILT, LAST_SECOND, Reason, VmState
from vcld.accounting.rebuild import Rebuilt, rebuild
from vcld.errors import SchemaError, StoreRefusedError
from vcld.schema import models as m
from vcld.schema.engine import Connection, Database, make_engine

BACKENDS = ("mariadb", "sqlite")
EIGHT = 1_767_254_400  # 2026-01-01 08:00 UTC


def log(
    site: Site,
    start: str,
    loaded: str | None,
    finalend: str,
    ending: str,
    computer: int = 1,
    host: int | None = None,
    user: int = USER,
    image: int = IMAGE,
) -> int:
    """A request that is over, as the web site and a Perl daemon left it; its sublog id."""
    with lax_session(site.engine) as c:
        kept = c.execute(
            sa.insert(m.Log).values(
                userid=user, start=sa.text(f"'{start}'"), finalend=sa.text(f"'{finalend}'"),
                loaded=sa.text(f"'{loaded}'") if loaded else None, ending=ending, imageid=image,
                initialend=sa.text(f"'{finalend}'"),
            )
        ).inserted_primary_key  # fmt: skip
        assert kept is not None
        made = c.execute(
            sa.insert(m.SubLog).values(
                logid=kept[0], imageid=image, imagerevisionid=REVISION, computerid=computer,
                managementnodeid=1, hostcomputerid=host,
            )
        ).inserted_primary_key  # fmt: skip
        assert made is not None
        return int(made[0])


def again(accounts: Accounts) -> Rebuilt:
    with session_in_utc(accounts.engine) as c:
        return rebuild(lambda work: work(c), accounts.tables)


def test_request_that_is_over_becomes_a_vm_that_says_so(site: Site, accounts: Accounts) -> None:
    id_ = log(site, "2026-01-01 08:00:00", "2026-01-01 08:05:00", "2026-01-01 10:00:00", "released")

    assert again(accounts).added == 1

    vm, (stay,) = accounts.vm(FIRST_REBUILT + id_), accounts.stays(FIRST_REBUILT + id_)
    assert (vm.state, vm.uid, vm.name) == (VmState.DONE, USER, "The first on vm1")
    assert "<REBUILT>YES</REBUILT>" in vm.template
    assert (stay.stime, stay.pstime, stay.petime, stay.rstime, stay.retime, stay.etime) == (
        EIGHT, EIGHT, EIGHT + 300, EIGHT + 300, EIGHT + 7200, EIGHT + 7200,
    )  # fmt: skip
    assert (stay.reason, stay.hid, stay.host_name) == (Reason.USER, 1, "vm1.example.org")


def test_second_run_changes_nothing(site: Site, accounts: Accounts) -> None:
    for hour in range(3):
        log(site, f"2026-01-01 0{hour}:00:00", None, "2026-01-01 09:00:00", "failed")
    again(accounts)
    before = {table.name: accounts.rows(table.name) for table in accounts.tables.all}

    done = again(accounts)

    assert (done.added, done.present) == (0, 3)
    assert {table.name: accounts.rows(table.name) for table in accounts.tables.all} == before


def test_from_scratch_the_same_rows_come_again(site: Site, accounts: Accounts) -> None:
    log(site, "2026-01-01 08:00:00", "2026-01-01 08:05:00", "2026-01-01 10:00:00", "EOR", host=7)
    again(accounts)
    before = {table.name: accounts.rows(table.name) for table in accounts.tables.all}
    with accounts.engine.begin() as c:
        for table in accounts.tables.all:
            c.execute(table.delete())

    again(accounts)

    assert {table.name: accounts.rows(table.name) for table in accounts.tables.all} == before
    assert accounts.rows("host_pool")[0].host_name == "vm7.example.org"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("failed", Reason.ERROR), ("noack", Reason.CANCEL), ("EOR", Reason.NONE),
     ("deleted", Reason.USER), ("none", Reason.NONE)],
)  # fmt: skip
def test_ending_gives_the_reason(
    site: Site, accounts: Accounts, ending: str, reason: Reason
) -> None:
    id_ = log(site, "2026-01-01 08:00:00", "2026-01-01 08:01:00", "2026-01-01 09:00:00", ending)

    again(accounts)

    assert accounts.stays(FIRST_REBUILT + id_)[0].reason == reason
    ran = accounts.stays(FIRST_REBUILT + id_)[0].rstime > 0
    assert ran is (ending != "failed")


@pytest.mark.parametrize(
    ("start", "loaded", "finalend"),
    [
        ("2026-01-01 08:00:00", "2026-01-01 07:00:00", "2026-01-01 09:00:00"),  # loaded ahead
        ("2026-01-01 08:00:00", None, "2026-01-01 07:00:00"),  # deleted before its start
        ("2026-01-01 08:00:00", "2026-01-01 09:30:00", "2026-01-01 09:00:00"),
        ("2026-01-01 08:00:00", "2026-01-01 09:30:00", "2037-12-31 09:00:00"),  # never closed
        ("2026-01-01 08:00:00", None, "0000-00-00 00:00:00"),
    ],
)
def test_odd_times_are_put_in_order(
    site: Site, accounts: Accounts, start: str, loaded: str | None, finalend: str
) -> None:
    id_ = log(site, start, loaded, finalend, "timeout")

    again(accounts)

    (stay,) = accounts.stays(FIRST_REBUILT + id_)
    assert 0 < stay.stime <= stay.petime <= stay.etime  # and the fixture checks every rule


def test_request_that_was_never_closed_ended_when_it_was_last_heard_of(
    site: Site, accounts: Accounts
) -> None:
    start, loaded = "2026-01-01 08:00:00", "2026-01-01 08:05:00"
    closed_in_2037 = log(site, start, loaded, "2037-12-31 09:00:00", "none")
    never_loaded = log(site, start, None, "2037-12-31 09:00:00", "none")
    log(site, "2037-12-30 09:00:00", None, "2037-12-31 09:00:00", "none")

    done = again(accounts)

    assert (done.added, done.timeless) == (2, 1)
    (stay,) = accounts.stays(FIRST_REBUILT + closed_in_2037)
    assert (stay.petime, stay.rstime, stay.retime, stay.etime) == (EIGHT + 300,) * 4
    (stay,) = accounts.stays(FIRST_REBUILT + never_loaded)
    assert (stay.stime, stay.rstime, stay.etime) == (EIGHT, 0, EIGHT)


def test_times_before_1970_are_none(site: Site, accounts: Accounts) -> None:
    early = "1969-06-01 08:00:00"
    id_ = log(site, early, early, "2026-01-01 08:00:00", "EOR")
    log(site, early, early, early, "EOR")

    done = again(accounts)

    assert (done.added, done.timeless) == (1, 1)
    (stay,) = accounts.stays(FIRST_REBUILT + id_)
    assert (stay.stime, stay.etime) == (EIGHT, EIGHT)


def test_host_with_the_number_0_is_none(site: Site, accounts: Accounts) -> None:
    id_ = log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR", host=0)

    again(accounts)

    (stay,) = accounts.stays(FIRST_REBUILT + id_)
    assert (stay.hid, stay.host_name) == (1, "vm1.example.org")


def test_template_that_somebody_changed_stops_no_rebuild(site: Site, accounts: Accounts) -> None:
    log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")
    accounts.put_base()
    xml = "<TEMPLATE><LOG_ID>twelve</LOG_ID></TEMPLATE>"
    accounts.put(5, state=7, etime=10, template=xml)

    assert again(accounts).added == 1


def test_deleted_users_images_and_computers_are_told_by_number(
    site: Site, accounts: Accounts
) -> None:
    id_ = log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR", 999, None, 888, 777)

    again(accounts)

    assert accounts.vm(FIRST_REBUILT + id_).name == "image 777 on computer 999"
    assert [user.user_name for user in accounts.rows("user_pool")] == ["user 888"]
    assert [host.host_name for host in accounts.rows("host_pool")] == ["computer 999"]


def test_two_computers_of_one_name_are_two_hosts(site: Site, accounts: Accounts) -> None:
    site.execute("UPDATE computer SET hostname = 'vm1.example.org', deleted = 1,"
                 " datedeleted = '2020-01-01 00:00:00' WHERE id = 2")  # fmt: skip
    for computer in (1, 2):
        log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR", computer)

    again(accounts)

    names = [host.host_name for host in accounts.rows("host_pool")]
    assert names == ["vm1.example.org", "vm1.example.org#2"]


def test_requests_that_live_or_were_recorded_are_left_out(site: Site, accounts: Accounts) -> None:
    lives = log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "none")
    recorded = log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")
    request = site.ask("inuse", 3)
    logs = {
        id_: site.scalar(f"SELECT logid FROM sublog WHERE id = {id_}") for id_ in (lives, recorded)
    }
    site.execute(f"UPDATE request SET logid = {logs[lives]} WHERE id = {request}")
    accounts.put_base()
    accounts.put(
        9000, state=7, etime=10, template=f"<TEMPLATE><LOG_ID>{logs[recorded]}</LOG_ID></TEMPLATE>"
    )

    assert again(accounts).added == 0


def test_numbers_that_do_not_fit_are_refused_before_anything_is_written(
    site: Site, accounts: Accounts
) -> None:
    log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")
    second = log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")
    site.execute(f"UPDATE sublog SET id = {LAST_SECOND} WHERE id = {second}")

    with pytest.raises(SchemaError, match=r"vm_pool\.oid"):
        again(accounts)

    assert accounts.rows("vm_pool") == []
    site.execute("DELETE FROM sublog")
    if site.engine.dialect.name != "sqlite":
        site.execute("ALTER TABLE sublog AUTO_INCREMENT = 1")


def test_two_rebuilds_at_once_add_each_vm_once(
    site: Site, accounts: Accounts, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcld.accounting.rebuild.BATCH", 2)
    for _ in range(7):
        log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")
    database, other = Database(site.engine), Database(make_engine(database_url))
    runs = 0

    def run(work: Callable[[Connection], Rebuilt]) -> Rebuilt:
        nonlocal runs
        runs += 1
        if runs == 3:  # the other is quicker while we are at it
            assert rebuild(other.run, accounts.tables).added == 5
        return database.run(work)

    done = rebuild(run, accounts.tables)

    other.engine.dispose()
    assert (done.added, done.present) == (2, 5)
    assert len(accounts.rows("vm_pool")) == 7


def test_row_that_somebody_adds_in_the_same_moment_is_no_failure(
    site: Site, accounts: Accounts
) -> None:
    log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")
    database, tries = Database(site.engine), 0

    def run(work: Callable[[Connection], Rebuilt]) -> Rebuilt:
        nonlocal tries
        tries += 1
        if tries == 2:
            refused = IntegrityError("INSERT", {}, Exception(1062))
            raise StoreRefusedError("duplicate entry") from refused
        return database.run(work)

    assert rebuild(run, accounts.tables).added == 1


def test_command_says_what_it_added(site: Site, accounts: Accounts, database_url: str) -> None:
    log(site, "2026-01-01 08:00:00", None, "2026-01-01 09:00:00", "EOR")

    told = Daemon(site, database_url).command("accounting", "rebuild")

    assert told.stdout == "1 VMs added, 0 were there already\n"
