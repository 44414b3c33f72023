"""Sums over a window, reckoned by hand beside."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.accounts import Accounts, stay
from tests.daemon import Daemon
from tests.site import Site
from vcld.accounting.facts import template, vm_name
from vcld.accounting.install import install
from vcld.accounting.report import Line, report
from vcld.accounting.tables import tables_in
from vcld.accounting.window import Window, window_of
from vcld.cli.accounting_report import print_csv
from vcld.errors import UsageError
from vcld.schema.engine import Database, make_engine

DAY = 86400

BACKENDS = ("mariadb", "sqlite")


@pytest.fixture
def books(accounts: Accounts) -> Accounts:
    accounts.put_base()
    return accounts


def lines(books: Accounts, start: int, end: int, by: str = "user", now: int = 10**6) -> list[Line]:
    with books.engine.begin() as c:
        return report(c, books.tables, Window(start=start, end=end, now=now), by)


def sums(found: list[Line]) -> list[tuple[int, int, int]]:
    return [(line.vms, line.transfer_seconds, line.running_seconds) for line in found]


def test_two_stays_of_one_vm_with_a_stop_and_resume_between(books: Accounts) -> None:
    # transfers 1010-1040 and 2105-2125; runs 1040-2000 and 2125-3000
    books.put(
        1,
        stay(1000, 1010, 1040, 1040, 2000, etime=2000, reason=2),
        stay(2100, 2105, 2125, 2125, 3000, 3000, 3010, etime=3010, reason=3),
    )

    assert sums(lines(books, 0, 5000)) == [(1, 30 + 20, 960 + 875)]
    # from the middle of the first to the middle of the second
    assert sums(lines(books, 1500, 2500)) == [(1, 20, 500 + 375)]
    # between the two: nothing runs, an image is placed for a while
    assert sums(lines(books, 2000, 2115)) == [(0, 10, 0)]


def test_slice_that_is_longer_than_the_window_is_cut_at_both_ends(books: Accounts) -> None:
    books.put(1, stay(1000, 1010, 1040, 1040, 9000, etime=9000))

    assert sums(lines(books, 2000, 3000)) == [(1, 0, 1000)]


def test_open_slice_counts_to_now_and_no_further(books: Accounts) -> None:
    books.put(2, stay(1000, 1010, 1040, 1040), state=1, last_seq=-1)
    try:
        assert sums(lines(books, 0, 5000, now=3000)) == [(1, 30, 1960)]
        assert sums(lines(books, 0, 2000, now=3000)) == [(1, 30, 960)]
        books.put(3, stay(1000, 1500), state=1, last_seq=-1)  # its image is being placed
        assert sums(lines(books, 0, 5000, now=3000)) == [(1, 30 + 1500, 1960)]
    finally:
        with books.engine.begin() as c:
            c.execute(books.tables.vm_pool.delete())
            c.execute(books.tables.history.delete())


def test_slices_of_adjoining_windows_add_up_to_the_whole(books: Accounts) -> None:
    for number in range(1, 30):
        begin = 1000 + 37 * number
        books.put(
            number, stay(begin, begin + 3, begin + 20, begin + 20, begin + 300, etime=begin + 300)
        )

    whole = sums(lines(books, 0, 4000))
    parts = [sums(lines(books, at, at + 100)) for at in range(0, 4000, 100)]

    assert whole == [(29, 29 * 17, 29 * 280)]
    assert sum(part[0][2] for part in parts if part) == 29 * 280
    assert sum(part[0][1] for part in parts if part) == 29 * 17


def test_failed_load_has_transfer_time_only(books: Accounts) -> None:
    books.put(1, stay(1000, 1010, 1100, etime=1100, reason=1), state=7)

    assert sums(lines(books, 0, 5000)) == [(0, 90, 0)]


def test_names_with_markup_quotes_and_umlauts_are_told_as_they_are(books: Accounts) -> None:
    name = "Rätsel & <Söhne> \"Ω\" 'Ж' 🖥"
    xml = template((("IMAGE_ID", 7), ("IMAGE", name)))
    books.put(1, stay(10, 11, 12, 12, 20, etime=20), name=vm_name(name, "vm1"), template=xml)

    (line,) = lines(books, 0, 100, by="image")

    assert (line.id, line.name) == (7, name)
    stored = books.vm(1).name
    assert "<" not in stored
    assert stored.count("&") == stored.count(";") == 7


def test_user_who_is_gone_keeps_the_time(books: Accounts) -> None:
    books.put(1, stay(10, 11, 12, 12, 20, etime=20), uid=55)

    assert [(line.id, line.name, line.running_seconds) for line in lines(books, 0, 100)] == [
        (55, "user 55", 8)
    ]
    with books.engine.begin() as c:
        c.execute(books.tables.user_pool.insert().values(oid=55, user_name="gone", password=""))


def test_hosts_have_their_own_sums(books: Accounts) -> None:
    books.put(1, stay(10, 11, 12, 12, 20, etime=20), stay(20, 21, 22, 22, 30, hid=2, etime=30))
    with books.engine.begin() as c:
        c.execute(books.tables.host_pool.insert().values(oid=2, host_name="h2", template=""))
        c.execute(books.tables.host_shares.insert().values(hid=2))

    found = lines(books, 0, 25, by="host")

    assert [(line.name, line.running_seconds) for line in found] == [("h1", 8), ("h2", 3)]


def test_embedded_database_gives_the_same_sums(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'vcl.sqlite'}")
    install(Database(engine), "")
    books = Accounts(engine)
    books.put_base()
    xml = template((("IMAGE_ID", 7), ("IMAGE", "A & B")))
    books.put(1, stay(1000, 1010, 1040, 1040, 9000, etime=9000), template=xml)

    assert sums(lines(books, 2000, 3000)) == [(1, 0, 1000)]
    assert [(line.id, line.name) for line in lines(books, 0, 3000, by="image")] == [(7, "A & B")]
    assert tables_in("").schema is None


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [({"days": 2}, 2 * DAY), ({"weeks": 1, "days": 1}, 8 * DAY), ({}, 31 * DAY)],
)
def test_window_reaches_so_far_back(asked: dict[str, int], seconds: int) -> None:
    now = 1_769_817_600  # 2026-01-31 00:00 UTC

    window = window_of(now, **asked)  # type: ignore[arg-type]

    assert (window.end - window.start, window.end) == (seconds, now)


def test_window_of_a_month_back_from_the_31st_begins_on_the_last_of_a_shorter_month() -> None:
    march = 1_774_915_200  # 2026-03-31 00:00 UTC

    assert march - window_of(march, months=1).start == 31 * DAY  # 2026-02-28


def test_window_from_one_time_to_another_is_utc() -> None:
    window = window_of(10**9, begin="2026-01-01", end="2026-01-02T12:00+02:00")

    assert window.end - window.start == DAY + 10 * 3600


@pytest.mark.parametrize("wrong", ["yesterday", "2026-13-01", ""])
def test_time_that_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"no time|before it begins"):
        window_of(0, begin=wrong or "2026-01-01")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-d", "0"), "above 0"),
        (("-m", "-3"), "above 0"),
        (("-d", "1", "--from", "2026-01-01"), "give one"),
        (("--from", "2026-01-02", "--to", "2026-01-02"), "before it begins"),
        (("--from", ""), "is no time"),
        (("--to", "9999-12-31T23:59:59-14:00"), "years from 1970"),
        (("--from", "0001-01-01T00:00+14:00"), "years from 1970"),
    ],
)
def test_window_that_makes_no_sense_ends_with_2(
    site: Site, books: Accounts, database_url: str, arguments: tuple[str, ...], told: str
) -> None:
    done = Daemon(site, database_url).command("accounting", "report", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_window_that_would_begin_before_1970_begins_there() -> None:
    for long in ({"months": 99_999}, {"days": 10**12}, {"weeks": 10**9, "months": 5}):
        assert window_of(1_769_817_600, **long).start == 0  # type: ignore[arg-type]


def test_name_with_control_characters_does_not_reach_a_terminal_raw(
    site: Site, books: Accounts, database_url: str
) -> None:
    with books.engine.begin() as c:
        c.execute(books.tables.user_pool.update().values(user_name='=ev\x1bil,"\n&é'))
    books.put(1, stay(1000, 1010, 1040, 1040, 9000, etime=9000))
    window = ("--from", "1970-01-01", "--to", "1970-01-02")
    vcld = Daemon(site, database_url)

    for form in ((), ("--csv",), ("--json",)):
        told = vcld.command("accounting", "report", *form, *window).stdout
        assert "\x1b" not in told
        assert "ev" in told
    told = vcld.command("accounting", "records", "--site", "S", *window).stdout
    assert 'LocalUserId: =evil," &é\n' in told


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        (" @SUM(A1)", "' @SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("＝1", "'＝1"),  # noqa: RUF001 - some spreadsheets take it for the narrow one
        ("ada=@Local", "ada=@Local"),
        ('7, "of" 9', '7, "of" 9'),
    ],
)
def test_name_is_no_formula_to_a_spreadsheet(
    name: str, cell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(id=1, name=name, vms=1, transfer_seconds=0, running_seconds=0)

    print_csv("user", [line])

    (_, row) = csv.reader(io.StringIO(capsys.readouterr().out))
    assert row == ["1", cell, "1", "0", "0"]


def test_command_prints_a_table_csv_and_json(
    site: Site, books: Accounts, database_url: str
) -> None:
    books.put(1, stay(1000, 1010, 1040, 1040, 9000, etime=9000))
    vcld = Daemon(site, database_url)
    window = ("--from", "1970-01-01", "--to", "1970-01-02")

    told = vcld.command("accounting", "report", *window)
    assert told.returncode == 0, told.stderr
    assert "ada" in told.stdout
    assert "2h 12m" in told.stdout
    told = vcld.command("accounting", "report", "--csv", *window)
    rows = list(csv.DictReader(io.StringIO(told.stdout)))
    assert rows == [{"user_id": "101", "user": "ada", "vms": "1", "transfer_seconds": "30",
                     "running_seconds": "7960"}]  # fmt: skip
    told = vcld.command("accounting", "report", "--by", "host", "--json", *window)
    assert json.loads(told.stdout)["lines"][0]["name"] == "h1"
