"""Usage records and plots."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.accounts import Accounts, stay
from tests.apel import read_message
from tests.daemon import Daemon, Daemons, eventually
from tests.site import Site
from vcld.accounting.codes import VmState
from vcld.accounting.facts import template, vm_name
from vcld.accounting.plot import plot
from vcld.accounting.records import message, usage_records
from vcld.accounting.report import report
from vcld.accounting.series import Series, series
from vcld.accounting.window import Window
from vcld.errors import ConfigError, UsageError

XML = template((("IMAGE_ID", 7), ("REVISION", 3), ("IMAGE", "x")))

BACKENDS = ("mariadb", "sqlite")


@pytest.fixture
def books(accounts: Accounts) -> Accounts:
    accounts.put_base()
    return accounts


def window(start: int, end: int, now: int = 10**6) -> Window:
    return Window(start=start, end=end, now=now)


def records(books: Accounts, start: int, end: int, now: int = 10**6) -> list[dict[str, str | int]]:
    with books.engine.begin() as c:
        found = usage_records(c, books.tables, window(start, end, now), site="VCL-1", service="s")
        return list(found)


def test_record_tells_of_the_whole_vm(books: Accounts) -> None:
    books.put(
        1,
        stay(1000, 1010, 1040, 1040, 2000, etime=2000, reason=2),
        stay(2100, 2105, 2125, 2125, 3000, 3000, 3010, etime=3010, reason=3),
        name=vm_name("A & <B>", "vm1"), cpu=400, memory=2048 * 1024, template=XML,
    )  # fmt: skip

    (record,) = records(books, 2500, 4000)

    assert record == {
        "VMUUID": "1970-01-01 00:16:40+00:00 VCL-1 vm-1",
        "SiteName": "VCL-1",
        "CloudComputeService": "s",
        "MachineName": "A & <B> on vm1",
        "LocalUserId": "ada",
        "Status": "completed",
        "StartTime": 1040,
        "EndTime": 3000,
        "SuspendDuration": 125,
        "WallDuration": 960 + 875,
        "CpuDuration": 4 * (960 + 875),
        "CpuCount": 4,
        "Memory": 2048,
        "ImageId": "7-3",
        "CloudType": record["CloudType"],
    }
    assert records(books, 2000, 2050) == []  # it did not run then


def test_record_of_a_vm_that_runs_has_no_end(books: Accounts, site: Site) -> None:
    (oid,) = site.reservations(site.ask("inuse", 1))
    books.put(oid, stay(1000, 1010, 1040, 1040), state=3, template=XML)

    (record,) = records(books, 0, 5000, now=3040)

    assert (record["Status"], record["WallDuration"]) == ("started", 2000)
    assert "EndTime" not in record


def test_message_has_its_header_once_and_a_separator_between_records(books: Accounts) -> None:
    for oid in (1, 2):
        books.put(oid, stay(10, 11, 12, 12, 20, etime=20), name="two\nlines")

    lines = "".join(message(iter(records(books, 0, 100)))).splitlines()

    assert lines[0] == "APEL-cloud-message: v0.4"
    assert lines.count("%%") == 1
    assert lines.count("MachineName: two lines") == 2
    assert list(message(iter([]))) == []


def test_json_of_records_is_one_list(site: Site, books: Accounts, database_url: str) -> None:
    vcld = Daemon(site, database_url)
    window = ("--site", "S", "--json", "--from", "1970-01-01", "--to", "1970-01-02")

    for count in range(3):
        told = vcld.command("accounting", "records", *window)
        assert [item["SiteName"] for item in json.loads(told.stdout)] == ["S"] * count
        books.put(count + 1, stay(10, 11, 12, 12, 20, etime=20), name=vm_name("é & <b>", "vm1"))


@pytest.mark.parametrize(
    "name", ["100%% of %%%% it", "two\u2028lines\x85and\x0bmore", "a: b", "%%"]
)
def test_every_name_can_be_read_back_from_a_message(books: Accounts, name: str) -> None:
    for oid in (1, 2):
        books.put(oid, stay(10, 11, 12, 12, 20, etime=20), name=vm_name(name, "vm1"), template=XML)

    first, second = read_message("".join(message(iter(records(books, 0, 100)))))

    assert first["VMUUID"] != second["VMUUID"]
    assert first["MachineName"].endswith(" on vm1")


def test_a_life_through_the_daemon_gives_a_valid_message(
    site: Site, daemons: Daemons, accounts: Accounts
) -> None:
    daemon = daemons.start()
    ended, runs = site.ask("new", 1), site.ask("new", 2)
    both = (ended, runs)
    eventually(lambda: {site.pair(request) for request in both} == {"pending/reserved"})
    for request in both:
        site.connect(request)
    eventually(lambda: {site.pair(request) for request in both} == {"inuse/reserved"})
    (over,), (oid,) = site.reservations(ended), site.reservations(runs)
    site.end(ended)
    eventually(lambda: accounts.vm(over).state == VmState.DONE)

    told = daemon.command("accounting", "records", "--site", "VCL-1").stdout

    by_status = {record["Status"]: record for record in read_message(told)}
    assert set(by_status) == {"completed", "started"}
    assert by_status["started"]["VMUUID"].endswith(f"VCL-1 vm-{oid}")


@pytest.mark.parametrize("site_name", ["", "none", "a%%b", "two\nlines", " x"])
def test_site_that_no_message_can_carry_is_refused(
    site: Site, books: Accounts, database_url: str, site_name: str
) -> None:
    told = Daemon(site, database_url).command("accounting", "records", "--site", site_name)

    assert told.returncode == 2
    assert "--site" in told.stderr


def test_command_prints_a_message(site: Site, books: Accounts, database_url: str) -> None:
    books.put(1, stay(10, 11, 12, 12, 20, etime=20))

    told = Daemon(site, database_url).command(
        "accounting", "records", "--site", "VCL-1", "--from", "1970-01-01", "--to", "1970-01-02"
    )

    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[:3] == [
        "APEL-cloud-message: v0.4", "VMUUID: 1970-01-01 00:00:10+00:00 VCL-1 vm-1",
        "SiteName: VCL-1",
    ]  # fmt: skip


def counted(books: Accounts, start: int, end: int, steps: int, now: int = 10**6) -> Series:
    with books.engine.begin() as c:
        return series(c, books.tables, window(start, end, now), steps)


def test_names_pass_in_a_locale_that_does_not_know_them(
    site: Site, books: Accounts, database_url: str
) -> None:
    books.put(1, stay(10, 11, 12, 12, 20, etime=20), name="Rätsel 🖥")
    environ = Daemon(site, database_url).environ
    words = ("accounting", "records", "--site", "S", "--from", "1970-01-01", "--to", "1970-01-02")

    told = subprocess.run(
        [sys.executable, "-m", "vcld", *words],
        env={**environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip

    assert "MachineName: Rätsel 🖥\n" in told.stdout.decode()


def test_series_counts_the_vms_that_run_at_each_step(books: Accounts) -> None:
    books.put(1, stay(50, 60, 100, 100, 300, etime=300))  # from before the window into it
    books.put(2, stay(200, 210, 250, 250, 450, etime=450))
    books.put(3, stay(310, 320, 330, 330, 360, etime=360))  # between two steps

    found = counted(books, 100, 600, 5)

    assert found.step_seconds == 100
    # at 100 and 200 VM 1, at 300 it has just left, and VM 2 runs until after 400
    assert found.running_vms == [1, 1, 1, 1, 0]
    assert found.transfer_seconds == [0, 40, 10, 0, 0]


def test_series_tells_all_the_transfer_time_of_the_window(books: Accounts) -> None:
    books.put(1, stay(50, 60, 140, 140, 300, etime=300))  # from before the window into it
    books.put(2, stay(500, 590, 640, 640, 700, etime=700))  # in the last step, and out of it
    books.put(3, stay(540, 550, 555, etime=555), state=7)

    found = counted(books, 100, 600, 5)

    assert found.transfer_seconds == [40, 0, 0, 0, 15]
    with books.engine.begin() as c:
        lines = report(c, books.tables, window(100, 600), "user")
    assert sum(line.transfer_seconds for line in lines) == sum(found.transfer_seconds)


@pytest.mark.parametrize("name", ["plot.svg", "plot.png"])
def test_command_draws_a_plot(
    site: Site, books: Accounts, database_url: str, tmp_path: Path, name: str
) -> None:
    books.put(1, stay(1000, 1010, 1040, 1040, 9000, etime=9000))
    path = tmp_path / name

    told = Daemon(site, database_url).command(
        "accounting", "plot", str(path), "--json", "--from", "1970-01-01", "--to", "1970-01-02"
    )

    assert told.returncode == 0, told.stderr
    assert max(json.loads(told.stdout)["running_vms"]) == 1
    if name.endswith("png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
    else:
        texts = {text.text for text in ET.parse(path).iter() if text.text}
        assert {"running VMs", "transfer time (min)", "UTC"} <= texts


@pytest.mark.parametrize("steps", ["0", "-3", "100000000"])
def test_number_of_steps_has_limits(
    site: Site, books: Accounts, database_url: str, tmp_path: Path, steps: str
) -> None:
    told = Daemon(site, database_url).command(
        "accounting", "plot", str(tmp_path / "plot.png"), "--steps", steps
    )

    assert told.returncode == 2
    assert "--steps" in told.stderr


def test_without_matplotlib_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigError, match="-m pip install matplotlib"):
        plot(
            Series(start=0, step_seconds=1, running_vms=[], transfer_seconds=[]), tmp_path / "p.png"
        )


def test_plot_of_another_format_is_refused(tmp_path: Path) -> None:
    nothing = Series(start=0, step_seconds=1, running_vms=[], transfer_seconds=[])

    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        plot(nothing, tmp_path / "plot.gif")
