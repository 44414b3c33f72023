"""Reading vcld.conf: what is taken, what is warned of, what is refused and how."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vcld import config
from vcld.config import Secret, Settings
from vcld.config.reader import parse_line
from vcld.errors import ConfigError, ExitCode

NEEDED = "fqdn=node1.example.org\nlockerwrtuser=vcl\n"

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a file with what is needed first, then the given lines, and load it."""

    def write_and_load(
        text: str = "", *, mode: int = 0o600, needed: str = NEEDED, **environ: str
    ) -> Settings:
        path = tmp_path / "vcld.conf"
        path.write_bytes((needed + text).encode("utf-8", "surrogateescape"))
        path.chmod(mode)
        return config.load(path, environ)

    return write_and_load


def problems_of(read: Read, text: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **more)
    return [re.sub(r"\S*/vcld\.conf", "vcld.conf", problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("server=db1", ("server", "db1")),
        ("  Server =  db1  \r", ("server", "db1")),
        ("LockerWrtUser=vcl", ("lockerwrtuser", "vcl")),
        ("wrtPass=a=b=c", ("wrtpass", "a=b=c")),
        ("wrtPass=a#b", ("wrtpass", "a#b")),
        ("wrtPass=#ab", ("wrtpass", "#ab")),
        ("server=db1 # the old one", ("server", "db1")),
        ("server=db1\t#the old one = x", ("server", "db1")),
        ("server=", ("server", "")),
        ("server", ("server", None)),
        ("# server=db1", None),
        ("   # server=db1", None),
        ("   ", None),
    ],
)
def test_line_is_key_and_value_and_a_comment_needs_space_before_it(
    line: str, pair: tuple[str, str | None] | None
) -> None:
    assert parse_line(line) == pair


def test_values_of_each_kind_are_read(read: Read) -> None:
    settings = read(
        "Server=db1:3307\nwrtPass=geheim-#1=x\nverbose=yes\npoll_interval=0.5\n"
        "max_workers=7\nlog_format=JSON\nlog=/var/log/x.log\n"
    )

    assert settings.server == "db1:3307"
    assert settings.wrtpass == Secret("geheim-#1=x")
    assert settings.verbose is True
    assert settings.poll_interval_seconds == 0.5
    assert settings.max_workers == 7
    assert settings.log_format == "json"
    assert settings.log_path == Path("/var/log/x.log")
    assert settings.warnings == ()


def test_file_is_the_argument_else_the_variable(tmp_path: Path) -> None:
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    first.write_text(NEEDED + "processname=first\n")
    second.write_text(NEEDED + "processname=second\n")

    assert config.load(first, {"VCLD_CONFIG": str(second)}).processname == "first"
    assert config.load(None, {"VCLD_CONFIG": str(second)}).processname == "second"


def test_path_of_the_file_outlives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vcld.conf").write_text(NEEDED)
    monkeypatch.chdir(tmp_path)

    assert config.load(Path("vcld.conf"), {}).path == tmp_path / "vcld.conf"


def test_missing_file_is_refused_with_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.conf: cannot be read .*--config"):
        config.load(tmp_path / "nowhere.conf", {})


def test_every_problem_is_told_at_once_with_file_and_line(read: Read) -> None:
    text = "max_workers=0\npoll_interval=soon\nlog_level=loud\nverbose\nserver=db1:x\n"

    problems = problems_of(read, text, needed="")

    assert problems == [
        "vcld.conf:1: key max_workers: '0' is not a whole number, at least 1; correct it, or"
        " remove the line (default 100)",
        "vcld.conf:2: key poll_interval: 'soon' is not a number of seconds, at least 0.05;"
        " correct it, or remove the line (default 1)",
        "vcld.conf:3: key log_level: 'loud' is not one of debug, info, warning, error;"
        " correct it, or remove the line (default info)",
        "vcld.conf:4: key verbose has no value; write KEY=VALUE, or # before a comment",
        "vcld.conf:5: key server: 'db1:x' is not a host, host:port or the absolute path of a"
        " socket; correct it, or remove the line (default localhost)",
        "vcld.conf: key fqdn is missing: Host name of this management node as in table"
        " managementnode; add fqdn=VALUE",
        "vcld.conf: key lockerwrtuser is missing: Database user that may read and write;"
        " add lockerwrtuser=VALUE",
    ]


def test_needed_key_without_a_value_is_told_with_its_line(read: Read) -> None:
    assert problems_of(read, "\nfqdn=\nlockerwrtuser=vcl\n", needed="")[0].startswith(
        "vcld.conf:2: key fqdn is missing"
    )


@pytest.mark.parametrize(
    "line",
    [
        "poll_interval=nan",
        "poll_interval=inf",
        "takeover_after=-1",
        "max_workers=2.5",
        "smtp_port=65536",
        "log=vcld.log",
        "pidfile=run/vcld.pid",
        "processname=a/b",
        "processname=a|b",
        "fqdn=node 1",
        "xmlrpc_url=ftp://vcl.example.org/",
        "server=db1:70000",
        "server=db1/x",
    ],
)
def test_wrong_value_is_refused_with_its_key(read: Read, line: str) -> None:
    name = line.partition("=")[0]

    (problem,) = problems_of(read, line, needed=NEEDED if name != "fqdn" else "lockerwrtuser=v\n")

    assert f": key {name}: " in problem
    assert "correct it" in problem


def test_error_ends_the_process_with_the_configuration_exit_code() -> None:
    assert ConfigError("x").exit_code == ExitCode.CONFIG


def test_unknown_key_is_a_warning_that_names_a_near_one(read: Read) -> None:
    settings = read("maxworkers=3\nsomething_else=1\n")

    first, second = settings.warnings
    assert first.endswith(
        "vcld.conf:3: unknown key maxworkers is ignored; did you mean max_workers?"
    )
    assert second.endswith("vcld.conf:4: unknown key something_else is ignored")


def test_of_a_key_given_twice_the_first_counts_and_the_second_is_warned_of(read: Read) -> None:
    settings = read("server=db1\nserver=db2\n")

    assert settings.server == "db1"
    assert settings.warnings[0].endswith(":4: key server is ignored: it is set in line 3")


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("yes", True), ("1", True), ("on", True), ("no", False), ("None", False), ("", False)],
)
def test_yes_and_no_mean_what_they_mean_to_vcl(read: Read, value: str, meaning: bool) -> None:
    settings = read(f"verbose={value}\n")

    assert settings.verbose is meaning
    assert settings.warnings == ()


@pytest.mark.parametrize("value", ["0", "false", "OFF"])
def test_what_says_no_but_meant_yes_to_the_perl_daemon_is_warned_of(read: Read, value: str) -> None:
    settings = read(f"enable_mysql_ssl={value}\n")

    assert settings.enable_mysql_ssl is False
    assert "write yes or no" in settings.warnings[0]


def test_verbose_means_level_debug(read: Read) -> None:
    assert read("verbose=yes\nlog_level=error\n").level == "debug"
    assert read("log_level=error\n").level == "error"


@pytest.mark.parametrize("name", ["wrtpass", "xmlrpc_pass", "jabpass", "windows_root_password"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_password_in_a_file_that_others_may_use_is_refused(
    read: Read, name: str, mode: int
) -> None:
    (problem,) = problems_of(read, f"{name}=sesame-1\n", mode=mode)

    assert problem == (
        f"vcld.conf: holds a password but others may use it (mode {mode:04o});"
        " run: chmod 600 vcld.conf"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_password_in_a_file_of_its_owner_is_taken(read: Read, mode: int) -> None:
    assert read("wrtpass=sesame-1\n", mode=mode).wrtpass == Secret("sesame-1")


def test_file_without_a_password_may_be_read_by_all(read: Read) -> None:
    assert read("wrtpass=\n", mode=0o644).wrtpass is None


def test_there_is_no_default_for_a_password(read: Read) -> None:
    settings = read()

    assert settings.windows_root_password is None
    assert settings.wrtpass is None
    assert settings.xmlrpc_pass is None


def test_passwords_show_nowhere_in_the_settings(read: Read) -> None:
    settings = read(
        "wrtpass=sesame-1\nxmlrpc_pass=sesame-2\n",
        VCLD_DATABASE_URL="mysql://vcl:sesame-3@db1/vcl",
    )

    for text in (
        repr(settings),
        str(settings.wrtpass),
        f"{settings.url}",
        str(settings.database_url),
    ):
        assert "sesame" not in text
    assert settings.wrtpass is not None
    assert settings.wrtpass.reveal() == "sesame-1"


def test_line_that_may_be_a_stray_password_is_not_repeated(read: Read) -> None:
    (problem,) = problems_of(read, "sesame-1\n")

    assert problem == "vcld.conf:3: this is no key=value; write KEY=VALUE, or # before a comment"


def test_value_that_is_not_utf8_is_refused_and_a_comment_may_be_anything(read: Read) -> None:
    (problem,) = problems_of(read, "# gr\udcfcn\nwrtpass=gr\udcfcn\n")

    assert problem == "vcld.conf:4: key wrtpass: not UTF-8; save the file as UTF-8"


def test_mark_of_a_windows_editor_at_the_beginning_is_no_part_of_the_key(read: Read) -> None:
    assert read(needed="\ufeff" + NEEDED).fqdn == "node1.example.org"


@pytest.mark.parametrize(
    ("server", "host", "port", "socket"),
    [
        ("db1", "db1", None, None),
        ("db1:3307", "db1", 3307, None),
        ("192.0.2.1:3307", "192.0.2.1", 3307, None),
        ("2001:db8::1", "2001:db8::1", None, None),
        ("[2001:db8::1]:3307", "2001:db8::1", 3307, None),
        ("/run/mysqld/mysqld.sock", "localhost", None, "/run/mysqld/mysqld.sock"),
    ],
)
def test_server_is_a_host_a_host_with_port_or_a_socket(
    read: Read, server: str, host: str, port: int | None, socket: str | None
) -> None:
    url = read(f"server={server}\ndatabase=vcl2\nwrtpass=p@:/#?\n").database_url

    assert (url.host, url.port, url.query.get("unix_socket")) == (host, port, socket)
    assert (url.drivername, url.username, url.password) == ("mysql+pymysql", "vcl", "p@:/#?")
    assert url.database == "vcl2"


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_url_of_the_environment_replaces_the_database_keys(read: Read, scheme: str) -> None:
    settings = read(
        "fqdn=node1.example.org\nserver=elsewhere\n",
        needed="",
        VCLD_DATABASE_URL=f"{scheme}://me:sesame-1@db1:3307/vcl?ssl_verify_cert=true",
    )

    url = settings.database_url
    assert url.drivername == "mysql+pymysql"
    assert (url.username, url.password, url.host, url.port) == ("me", "sesame-1", "db1", 3307)
    assert url.query == {"ssl_verify_cert": "true"}


def test_url_may_name_an_sqlite_file(read: Read) -> None:
    url = read(VCLD_DATABASE_URL="sqlite:////tmp/demo.db").database_url

    assert (url.drivername, url.database) == ("sqlite", "/tmp/demo.db")


@pytest.mark.parametrize(
    "url",
    [
        "sesame-1",
        "mysql://h:sesame-1",
        "postgresql://u:sesame-1@h/x",
        "mysql+mysqldb://u:sesame-1@h",
    ],
)
def test_wrong_url_of_the_environment_is_refused_and_not_repeated(read: Read, url: str) -> None:
    (problem,) = problems_of(read, "", VCLD_DATABASE_URL=url)

    assert problem.startswith("VCLD_DATABASE_URL: not a URL")
    assert "mysql+pymysql://user:password@host/vcl" in problem
    assert "sesame" not in problem


def test_reading_the_configuration_needs_neither_sqlalchemy_nor_structlog(tmp_path: Path) -> None:
    path = tmp_path / "vcld.conf"
    path.write_text(NEEDED)
    program = (
        "import sys, pathlib; from vcld import config;"
        f" config.load(pathlib.Path({str(path)!r}), {{}});"
        " print([name for name in ('sqlalchemy', 'structlog', 'rich') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.strip() == "[]"
