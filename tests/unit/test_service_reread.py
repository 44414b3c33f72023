"""Reading the configuration again while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.logged import Log, logging_restored
from vcld import config
from vcld.config import Secret, Settings
from vcld.service import Shell
from vcld.service.composition import reread


class ToldShell(Shell):
    """Remembers what systemd would hear."""

    def __init__(self) -> None:
        super().__init__(lock=-1)
        self.told: list[str] = []

    def tell(self, state: str) -> None:
        self.told.append(state.partition("\n")[0])


class Site:
    """A configuration file, and the settings a daemon started with."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "vcld.conf"
        self.log = Log(folder / "vcld.log")
        self.shell = ToldShell()
        self.running = self.write("poll_interval=1\nserver=db1\nwrtpass=first-password\n")

    def write(self, text: str) -> Settings:
        needed = f"fqdn=n1.example.org\nlockerwrtuser=vcl\nlog={self.log.path}\n"
        self.path.write_text(needed + text)
        self.path.chmod(0o600)
        return config.load(self.path, {})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("VCLD_DATABASE_URL", raising=False)
    with logging_restored():
        site = Site(tmp_path)
        site.log.configure()
        yield site


def test_changed_values_count_at_once(site: Site) -> None:
    site.write("poll_interval=2\nserver=db1\nwrtpass=first-password\nmax_workers=9\n")

    fresh = reread(site.running, site.shell)

    assert fresh is not None
    assert (fresh.poll_interval_seconds, fresh.max_workers) == (2.0, 9)
    assert site.log.lines == []


def test_systemd_hears_of_the_reading_and_its_end(site: Site) -> None:
    reread(site.running, site.shell)

    assert site.shell.told == ["RELOADING=1", "READY=1"]


def test_file_with_errors_changes_nothing_and_every_error_is_logged(site: Site) -> None:
    site.path.write_text("fqdn=n1.example.org\nlockerwrtuser=vcl\npoll_interval=x\nmax_workers=0\n")

    assert reread(site.running, site.shell) is None

    (line,) = site.log.lines
    assert line["level"] == "error"
    assert [problem.split(": ")[1] for problem in line["problems"]] == [
        "key poll_interval",
        "key max_workers",
    ]
    assert site.shell.told == ["RELOADING=1", "READY=1"]


def test_what_only_a_restart_can_change_stays_and_is_warned_of(site: Site) -> None:
    site.write("server=db2\nwrtpass=second-password\nprocessname=other\ndatabase_timeout=60\n")

    fresh = reread(site.running, site.shell)

    assert fresh is not None
    assert (fresh.server, fresh.processname) == ("db1", "vcld")
    assert fresh.wrtpass == Secret("first-password")
    assert fresh.database_timeout_seconds == 30.0
    (line,) = site.log.lines
    assert line["level"] == "warning"
    assert line["keys"] == ["processname", "server", "wrtpass", "database_timeout"]
    assert "-password" not in site.log.text


def test_level_and_log_file_change_at_once(site: Site) -> None:
    moved = Log(site.path.with_name("other.log"))
    site.path.write_text(
        f"fqdn=n1.example.org\nlockerwrtuser=vcl\nserver=db1\nlog={moved.path}\nodd=1\nverbose=yes\n"
    )

    fresh = reread(site.running, site.shell)

    assert fresh is not None
    assert fresh.level == "debug"
    assert "unknown key odd" in moved.lines[0]["problem"]
    assert site.log.text == ""


def test_log_that_cannot_be_written_is_refused_and_the_old_one_goes_on(site: Site) -> None:
    folder = site.path.with_name("no-such-folder")
    site.path.write_text(f"fqdn=n1.example.org\nlockerwrtuser=vcl\nlog={folder / 'vcld.log'}\n")

    assert reread(site.running, site.shell) is None

    (line,) = site.log.lines
    assert "cannot be written" in line["problems"][0]


def test_file_that_is_gone_changes_nothing(site: Site) -> None:
    site.path.unlink()

    assert reread(site.running, site.shell) is None
    assert "cannot be read" in site.log.lines[0]["problems"][0]
