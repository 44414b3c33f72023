"""The consistency check names each broken rule with its row, and mends what it can."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.engine import Engine

from tests.accounts import Accounts, stay
from tests.daemon import Daemon
from tests.site import Site
from vcld.accounting.check import repair
from vcld.accounting.rules import RULES

BACKENDS = ("mariadb", "sqlite")
#: Rule → (what breaks it, the row that is named, can it be mended).
BREAKAGES = {
    "stay-without-vm": ("DELETE FROM vm_pool WHERE oid = 1", "history vid=1 seq=0", False),
    "open-before-last": (
        "UPDATE history SET etime = 0, retime = 0 WHERE vid = 1 AND seq = 0",
        "history vid=1 seq=0", True,
    ),
    "gap-in-stays": (
        "UPDATE history SET seq = 2 WHERE vid = 1 AND seq = 0", "vm_pool oid=1", False,
    ),
    "last-seq": ("UPDATE vm_pool SET last_seq = 7 WHERE oid = 1", "vm_pool oid=1", True),
    "vm-etime": ("UPDATE vm_pool SET etime = 0 WHERE oid = 1", "vm_pool oid=1", True),
    "ended-but-open": (
        "UPDATE history SET etime = 0, retime = 0 WHERE vid = 1 AND seq = 1",
        "history vid=1 seq=1", True,
    ),
    "active-but-stopped": (
        "UPDATE history SET retime = 5000 WHERE vid = 2", "history vid=2 seq=0", False,
    ),
    "active-without-stay": (
        "UPDATE vm_pool SET state = 3 WHERE oid = 3", "vm_pool oid=3", False,
    ),
    "idle-but-open": ("UPDATE vm_pool SET state = 5 WHERE oid = 2", "history vid=2 seq=0", False),
    "run-without-end": (
        "UPDATE history SET retime = 0 WHERE vid = 1 AND seq = 0", "history vid=1 seq=0", True,
    ),
    "order-of-times": (
        "UPDATE history SET petime = 1009 WHERE vid = 1 AND seq = 0", "history vid=1 seq=0", False,
    ),
    "run-without-load": (
        "UPDATE history SET petime = 0 WHERE vid = 1 AND seq = 0", "history vid=1 seq=0", False,
    ),
    "time": ("UPDATE history SET stime = -5 WHERE vid = 2", "history vid=2 seq=0", False),
    "overlap": (
        "UPDATE history SET stime = 1900 WHERE vid = 1 AND seq = 1", "history vid=1 seq=1", False,
    ),
    "host": ("UPDATE history SET hid = 9, host_name = 'h9' WHERE vid = 2", "vid=2 seq=0", True),
    "share": ("DELETE FROM host_shares", "host_pool oid=1", True),
    "running-vms": ("UPDATE host_shares SET running_vms = 7", "host_shares hid=1", True),
    "owner": ("DELETE FROM user_pool", "vm_pool oid=1", True),
    "name": ("UPDATE vm_pool SET name = 'A & <B>' WHERE oid = 2", "vm_pool oid=2", True),
    "vanished": ("DELETE FROM request", "vm_pool oid=2", True),
    "id-given-twice": (
        "UPDATE vm_pool SET state = 6, etime = 1000, template ="
        " '<TEMPLATE><LOG_ID>99</LOG_ID></TEMPLATE>' WHERE oid = 3", "vm_pool oid=3", False,
    ),
    "state": ("UPDATE vm_pool SET state = 9 WHERE oid = 3", "vm_pool oid=3", False),
    "lcm-state": ("UPDATE vm_pool SET lcm_state = 3 WHERE oid = 1", "vm_pool oid=1", True),
    "vm-times": ("UPDATE vm_pool SET etime = 3000 WHERE oid = 1", "vm_pool oid=1", False),
    "vm-figures": ("UPDATE vm_pool SET net_tx = -1 WHERE oid = 1", "vm_pool oid=1", False),
    "template": ("UPDATE vm_pool SET template = '<TEMPL' WHERE oid = 2", "vm_pool oid=2", False),
    "vm-in-the-future": (
        "UPDATE vm_pool SET last_poll = 2147483647 WHERE oid = 1", "vm_pool oid=1", False,
    ),
    "runs-unstarted": ("UPDATE history SET rstime = 0 WHERE vid = 2", "history vid=2 seq=0", False),
    "reason": ("UPDATE history SET reason = 5 WHERE vid = 2", "history vid=2 seq=0", False),
    "end-without-begin": (
        "UPDATE history SET pstime = 0 WHERE vid = 1 AND seq = 0", "history vid=1 seq=0", False,
    ),
    "begin-without-end": (
        "UPDATE history SET eetime = 0 WHERE vid = 1 AND seq = 1", "history vid=1 seq=1", False,
    ),
    "stay-in-the-future": (
        "UPDATE history SET rstime = 2147483647 WHERE vid = 2", "history vid=2 seq=0", False,
    ),
    "host-name": ("UPDATE history SET host_name = '' WHERE vid = 2", "history vid=2 seq=0", False),
    "host-row": ("UPDATE host_pool SET state = 7", "host_pool oid=1", False),
    "host-in-the-future": (
        "UPDATE host_pool SET last_mon_time = 2147483647", "host_pool oid=1", False,
    ),
    "user-row": ("UPDATE user_pool SET password = 'x'", "user_pool oid=101", False),
    "share-without-host": (
        "INSERT INTO host_shares (hid) VALUES (8)", "host_shares hid=8", False,
    ),
    "figures": ("UPDATE host_shares SET mem_usage = -1", "host_shares hid=1", True),
}  # fmt: skip


@pytest.fixture
def books(site: Site, accounts: Accounts) -> Accounts:
    """VM 1 is done after two stays, VM 2 runs, VM 3 waits; 2 and 3 have their reservations."""
    accounts.put_base()
    accounts.put(
        1,
        stay(1000, 1010, 1020, 1020, 2000, etime=2000, reason=2),
        stay(2000, 2010, 2050, 2050, 3000, 3000, 3010, etime=3010, reason=3),
    )
    request = site.ask("inuse", 2, 3)
    made = site.reservations(request)
    for before, after in zip(made, (1002, 1003), strict=True):
        site.execute(f"UPDATE reservation SET id = {after} WHERE id = {before}")
    site.execute("UPDATE reservation SET id = id - 1000")
    accounts.put(2, stay(4000, 4010, 4050, 4050), state=3, last_poll=4100)
    accounts.put(3, state=1)
    site.execute("UPDATE host_pool SET last_mon_time = 9000")
    site.execute("UPDATE host_shares SET running_vms = 1")
    assert accounts.breaches() == []
    return accounts


@pytest.fixture
def broken(books: Accounts, request: pytest.FixtureRequest, site: Site) -> str:
    """The rule's name, once it is broken."""
    site.execute(BREAKAGES[request.param][0])
    return str(request.param)


def test_every_rule_has_a_breakage() -> None:
    assert sorted(BREAKAGES) == sorted(rule.name for rule in RULES)


def mend(engine: Engine, books: Accounts) -> list[str]:
    with engine.begin() as c:
        return [breach.rule for breach in repair(c, books.tables)]


@pytest.mark.parametrize("broken", BREAKAGES, indirect=True)
def test_broken_rule_is_named_with_its_row_and_mended_where_one_answer_is_right(
    site: Site, books: Accounts, broken: str
) -> None:
    _, row, repairable = BREAKAGES[broken]

    found = books.breaches()

    mine = [line for line in found if line.startswith(f"{broken}: ")]
    assert mine, found
    assert row in mine[0]
    assert ("--repair" in mine[0]) is repairable
    mended = mend(site.engine, books)
    assert (broken in mended) is repairable
    if repairable:
        assert books.breaches() == []
        assert mend(site.engine, books) == []
    else:
        for table in books.tables.all:  # nothing is left for the fixture's own check
            site.execute(f"DELETE FROM {table.name}")


def test_name_that_is_escaped_in_part_is_not_escaped_twice(site: Site, books: Accounts) -> None:
    site.execute("UPDATE vm_pool SET name = 'A &amp; B & <C>' WHERE oid = 2")

    mend(site.engine, books)

    assert books.vm(2).name == "A &amp; B &amp; &lt;C&gt;"


def test_share_that_is_mended_counts_when_the_host_was_last_looked_at(
    site: Site, books: Accounts
) -> None:
    site.execute("UPDATE host_pool SET last_mon_time = 2500")
    assert any(line.startswith("running-vms: ") for line in books.breaches()) is False
    site.execute("UPDATE host_shares SET running_vms = 9")

    assert mend(site.engine, books) == ["running-vms"]

    (share,) = books.rows("host_shares")
    assert share.running_vms == 1  # VM 1 ran then, VM 2 came later
    site.execute("UPDATE host_pool SET last_mon_time = 500")
    assert mend(site.engine, books) == ["running-vms"]
    (share,) = books.rows("host_shares")
    assert share.running_vms == 0
    assert mend(site.engine, books) == []


def test_vm_that_lives_has_no_end_and_one_that_ended_has_that_of_its_last_stay(
    site: Site, books: Accounts
) -> None:
    site.execute("UPDATE vm_pool SET etime = 17")

    assert mend(site.engine, books) == ["vm-etime"] * 2
    assert (books.vm(1).etime, books.vm(2).etime, books.vm(3).etime) == (17, 0, 0)
    site.execute("UPDATE vm_pool SET etime = 0")
    mend(site.engine, books)
    assert (books.vm(1).etime, books.vm(2).etime) == (3010, 0)


def test_open_stay_of_a_done_vm_ends_with_it(site: Site, books: Accounts) -> None:
    site.execute("UPDATE history SET etime = 0, eetime = 0, retime = 0 WHERE vid = 1 AND seq = 1")

    mend(site.engine, books)

    last = books.stays(1)[1]
    assert (last.retime, last.eetime, last.etime) == (3000, 3010, 3010)


def test_vm_whose_reservation_is_gone_ended_when_it_was_last_heard_of(
    site: Site, books: Accounts
) -> None:
    site.execute("DELETE FROM request")

    mend(site.engine, books)

    (stay_of_2,) = books.stays(2)
    assert (stay_of_2.retime, stay_of_2.etime, stay_of_2.reason) == (4100, 4100, 4)
    assert books.vm(2).etime == 4100


def rows(books: Accounts) -> list[object]:
    return [books.rows(table.name) for table in books.tables.all]


@pytest.mark.parametrize(
    "broken",
    [
        # The state is wrong, or else its end: the last stay and the reservation say otherwise.
        "UPDATE vm_pool SET state = 7 WHERE oid = 2",
        "UPDATE vm_pool SET state = 5 WHERE oid = 2",
        # The stay of a VM that runs is not over because of a stray end.
        "UPDATE history SET etime = 4200 WHERE vid = 2",
        "UPDATE history SET retime = 0, rstime = 3005 WHERE vid = 1 AND seq = 1",
        # No host has these ids; the name is that of another.
        "UPDATE history SET hid = 0 WHERE vid = 1 AND seq = 0",
        "UPDATE history SET hid = -3, host_name = 'h3' WHERE vid = 1 AND seq = 0",
        "UPDATE history SET hid = 999 WHERE vid = 1 AND seq = 0",
        "UPDATE vm_pool SET uid = -1 WHERE oid = 1",
    ],
)
def test_what_has_no_single_answer_is_left_as_it_is(
    site: Site, books: Accounts, broken: str
) -> None:
    before = rows(books)
    site.execute(broken)
    assert rows(books) != before
    before = rows(books)

    mended = set(mend(site.engine, books))

    found = books.breaches()
    for table in books.tables.all:
        if table.name == "host_shares":  # counts the stays, whatever they say
            before[books.tables.all.index(table)] = books.rows(table.name)
    assert (rows(books), mended - {"running-vms"}) == (before, set())
    assert found
    for table in books.tables.all:
        site.execute(f"DELETE FROM {table.name}")


def test_end_of_a_vm_is_not_that_of_an_earlier_stay(site: Site, books: Accounts) -> None:
    site.execute("UPDATE vm_pool SET state = 6, lcm_state = 0, last_poll = 5000 WHERE oid = 2")
    site.execute("UPDATE vm_pool SET last_seq = 1 WHERE oid = 2")
    site.execute("UPDATE history SET seq = 1 WHERE vid = 2")
    site.execute(
        "INSERT INTO history (vid, seq, host_name, vm_dir, hid, vm_mad, tm_mad, stime, etime)"
        " VALUES (2, 0, 'h1', '', 1, '', '', 3500, 3900)"
    )
    site.execute("UPDATE vm_pool SET stime = 3500 WHERE oid = 2")
    site.execute("DELETE FROM reservation WHERE id = 2")

    mend(site.engine, books)

    assert books.vm(2).etime == 5000
    assert [stay.etime for stay in books.stays(2)] == [3900, 5000]
    assert books.breaches() == []


def test_vm_that_vanished_did_not_end_before_its_last_stay(site: Site, books: Accounts) -> None:
    site.execute("UPDATE vm_pool SET state = 5 WHERE oid = 1")

    mend(site.engine, books)

    assert (books.vm(1).state, books.vm(1).etime) == (6, 3010)
    assert books.breaches() == []


def test_last_seq_that_is_too_high_is_mended_before_stays_are_closed_by_it(
    site: Site, books: Accounts
) -> None:
    site.execute(
        "INSERT INTO history (vid, seq, host_name, vm_dir, hid, vm_mad, tm_mad, stime, rstime)"
        " VALUES (2, 1, 'h1', '', 1, '', '', 5000, 5000)"
    )

    mend(site.engine, books)

    assert (books.vm(2).last_seq, books.stays(2)[0].etime) == (1, 5000)
    assert books.breaches() == []


def test_command_tells_what_is_broken_and_ends_with_10(
    site: Site, books: Accounts, database_url: str
) -> None:
    vcld = Daemon(site, database_url)
    assert vcld.command("accounting", "check").stdout == "every rule holds\n"
    site.execute("UPDATE vm_pool SET last_seq = 7 WHERE oid = 1")

    told = vcld.command("accounting", "check")
    assert told.returncode == 10
    assert "last-seq: vm_pool oid=1: last_seq is 7, its last stay is 1 (--repair" in told.stdout
    told = vcld.command("accounting", "check", "--json")
    assert json.loads(told.stdout)["broken"][0]["row"] == "oid=1"
    told = vcld.command("accounting", "check", "--repair")
    assert told.returncode == 0
    assert told.stdout.startswith("mended: last-seq: vm_pool oid=1")


def test_without_tables_the_command_says_how_to_make_them(site: Site, database_url: str) -> None:
    told = Daemon(site, database_url).command("accounting", "check")

    assert told.returncode == 78
    assert "make them with 'vcld accounting install'" in told.stderr
