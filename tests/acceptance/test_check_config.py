"""``vcld check`` tells what is wrong with a configuration before a daemon is started with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from tests.mariadb import Server
from tests.site import Site
from vcld.errors import ExitCode

#: As a person might choose it: not ASCII, with signs that mean something in URLs and files.
PASSWORD = "h\u00e4\u20ac r#=%40:/x"
USER = "vcld_check"


class Checked:
    """A configuration file, and the installed command that checks it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "vcld.conf"
        self.keys: dict[str, Any] = {
            "fqdn": "node1.example.org",
            "log": folder / "vcld.log",
            "pidfile": folder / "vcld.pid",
        }
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith("VCLD_")
        }

    def check(
        self, *arguments: str, mode: int = 0o600, url: str | None = None, **keys: Any
    ) -> subprocess.CompletedProcess[str]:
        self.path.write_text(
            "".join(f"{key}={value}\n" for key, value in {**self.keys, **keys}.items()),
            encoding="utf-8",
        )
        self.path.chmod(mode)
        environ = {**self.environ, "VCLD_CONFIG": str(self.path)}
        if url is not None:
            environ["VCLD_DATABASE_URL"] = url
        return subprocess.run(
            [sys.executable, "-m", "vcld", "check", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def told_by(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """Problems and warnings of ``--json``, but for plugins: they are not the configuration's."""
    told = json.loads(done.stdout)
    problems = [problem for problem in told["problems"] if " plugin " not in problem]
    return {"problems": problems, "warnings": told["warnings"]}


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    return Checked(tmp_path)


@pytest.fixture
def keys_of_user(mariadb: Server, database_url: str) -> Iterator[dict[str, Any]]:
    """The database keys for a user with an awkward password."""
    url = make_url(database_url)
    quoted = PASSWORD.replace("'", "''")
    mariadb.query(f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{quoted}'")
    mariadb.query(f"GRANT ALL ON `{url.database}`.* TO '{USER}'@'%'")
    yield {
        "server": f"{url.host}:{url.port}",
        "database": url.database,
        "LockerWrtUser": USER,
        "wrtPass": PASSWORD,
    }
    mariadb.query(f"DROP USER '{USER}'@'%'")


def test_right_configuration_is_well(checked: Checked, site: Site, database_url: str) -> None:
    done = checked.check("--json", url=database_url)

    assert told_by(done) == {"problems": [], "warnings": []}
    assert done.stderr == ""


def test_database_keys_of_the_file_open_the_database_whatever_the_password(
    checked: Checked, site: Site, keys_of_user: dict[str, Any]
) -> None:
    done = checked.check("--json", **keys_of_user)

    assert told_by(done) == {"problems": [], "warnings": []}


def test_wrong_password_is_told_without_the_password(
    checked: Checked, site: Site, keys_of_user: dict[str, Any]
) -> None:
    done = checked.check(**{**keys_of_user, "wrtPass": "qZx7-not-the-one"})

    assert done.returncode == ExitCode.CONFIG
    assert "1045" in done.stdout
    assert USER in done.stdout
    assert "qZx7" not in done.stdout + done.stderr


def test_unknown_key_is_warned_of_and_hinders_nothing(
    checked: Checked, site: Site, database_url: str
) -> None:
    done = checked.check(url=database_url, max_wokers=3)

    assert done.stdout.startswith(
        f"warning: {checked.path}:4: unknown key max_wokers is ignored; did you mean max_workers?\n"
    )


def test_the_same_for_programs(checked: Checked, site: Site, database_url: str) -> None:
    done = checked.check("--json", url=database_url, max_wokers=3)

    told = told_by(done)
    assert told["problems"] == []
    assert [warning.split(": ")[1] for warning in told["warnings"]] == [
        "unknown key max_wokers is ignored; did you mean max_workers?"
    ]


def test_every_problem_of_the_file_is_told_at_once(checked: Checked) -> None:
    done = checked.check(fqdn="", poll_interval="soon", takeover_after=-1)

    assert done.returncode == ExitCode.CONFIG
    assert [line.split(": ")[1:3] for line in done.stderr.splitlines()] == [
        [f"{checked.path}:4", "key poll_interval"],
        [f"{checked.path}:5", "key takeover_after"],
        [f"{checked.path}:1", "key fqdn is missing"],
        [str(checked.path), "key lockerwrtuser is missing"],
    ]
    assert "Traceback" not in done.stderr


def test_file_with_a_password_that_others_may_read_is_refused_with_the_remedy(
    checked: Checked,
) -> None:
    done = checked.check(mode=0o644, lockerwrtuser="vcl", wrtpass="qZx7-secret")

    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == (
        f"vcld: {checked.path}: holds a password but others may use it (mode 0644);"
        f" run: chmod 600 {checked.path}\n"
    )


def test_missing_file_is_refused_with_how_to_name_one(checked: Checked, tmp_path: Path) -> None:
    done = checked.check("--config", str(tmp_path / "nowhere.conf"))

    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == (
        f"vcld: {tmp_path}/nowhere.conf: cannot be read (No such file or directory);"
        " name the file with --config or VCLD_CONFIG\n"
    )


def test_node_that_the_database_does_not_know_is_told(
    checked: Checked, site: Site, database_url: str
) -> None:
    done = checked.check(url=database_url, fqdn="stranger.example.org")

    assert done.returncode == ExitCode.CONFIG
    assert "stranger.example.org" in done.stdout


def test_new_site_without_any_node_is_told_where_to_add_one(
    checked: Checked, site: Site, database_url: str
) -> None:
    site.execute("DELETE FROM managementnode")

    done = checked.check(url=database_url)

    assert done.returncode == ExitCode.CONFIG
    assert "add this node on the web site's page of management nodes" in done.stdout


def test_value_that_is_neither_yes_nor_no_is_warned_of(
    checked: Checked, site: Site, database_url: str
) -> None:
    """The Perl daemon took it for yes, so it stays yes."""
    done = checked.check("--json", url=database_url, takeover="flase", verbose="yes", jabber=1)

    assert told_by(done) == {
        "problems": [],
        "warnings": [f"{checked.path}:4: key takeover: flase means yes here; write yes or no"],
    }


def test_variables_that_count_as_not_set_are_warned_of(
    checked: Checked, site: Site, database_url: str
) -> None:
    site.variable("acknowledgetimeout", "15 min")
    site.variable("reconnecttimeout|Local", "-1")
    site.variable("general_inuse_check", "120")
    site.variable("cluster_inuse_check", "0")
    site.variable("other|acknowledgetimeout", "x")

    done = checked.check("--json", url=database_url)

    assert told_by(done) == {
        "problems": [],
        "warnings": [
            "variable acknowledgetimeout: '15 min' is no number of seconds: as if it were not set"
            " (built in: 900)",
            "variable reconnecttimeout|Local: '-1' is no number of seconds: as if it were not set"
            " (built in: 900)",
        ],
    }


def test_full_disk_of_the_log_is_told(
    checked: Checked, site: Site, database_url: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"NOT TESTED: a small disk is wanted, as root: {done.stderr}"
    try:
        done = checked.check("--json", url=database_url, log=disk / "vcld.log")
    finally:
        subprocess.run(["umount", disk], check=True)

    assert told_by(done)["problems"] == [
        f"log: the disk of {disk}/vcld.log is full: lines are lost; make room"
    ]


def test_folders_that_the_daemon_could_not_write_to_are_told(
    checked: Checked, site: Site, database_url: str, tmp_path: Path
) -> None:
    done = checked.check(
        url=database_url, log=tmp_path / "no" / "vcld.log", pidfile=tmp_path / "no" / "vcld.pid"
    )

    assert done.returncode == ExitCode.CONFIG
    assert f"log: the folder {tmp_path}/no " in done.stdout
    assert f"pidfile: the folder {tmp_path}/no " in done.stdout


@pytest.mark.parametrize("certificate", ["missing", "wrong"])
def test_certificate_that_cannot_be_used_is_told(
    checked: Checked, tmp_path: Path, certificate: str
) -> None:
    path = tmp_path / "ca.pem"
    if certificate == "wrong":
        path.write_text("not a certificate")

    done = checked.check(lockerwrtuser="vcl", enable_mysql_ssl="yes", mysql_ssl_cert=path)

    assert done.returncode == ExitCode.CONFIG
    assert f"key mysql_ssl_cert: {path} is no CA certificate" in done.stderr
    assert "Traceback" not in done.stderr


def test_database_that_does_not_answer_is_told_without_waiting_long(checked: Checked) -> None:
    done = checked.check(lockerwrtuser="vcl", server="127.0.0.1:9", wrtpass="qZx7-secret")

    assert done.returncode == ExitCode.UNAVAILABLE
    assert "127.0.0.1" in done.stdout
    assert "qZx7" not in done.stdout + done.stderr
