"""What an operator sees and does at the command line, on a site with a running daemon or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from tests.daemon import Daemon, Daemons, eventually
from tests.mariadb import Server
from tests.site import Site
from vcld.errors import ExitCode
from vcld.states.table import STATES

CHECKS = (("check",), ("db", "check"))
EVERY_COMMAND = (
    ("status",),
    ("status", "--json"),
    ("watch", "--json", "--for", "0.5"),
    ("explain", "1"),
    ("retry", "1"),
    ("cancel", "1"),
    ("check",),
    ("db", "check"),
)


@pytest.fixture
def operator(daemons: Daemons) -> Daemon:
    """The commands of a site whose daemon does not run."""
    return daemons.make()


@pytest.fixture
def empty(mariadb: Server) -> Iterator[str]:
    """URL of a database without a table."""
    yield mariadb.create_database("cli_empty")
    mariadb.drop_database("cli_empty")


def output(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == ExitCode.DONE, done.stderr + done.stdout
    assert done.stderr == ""
    return done.stdout


def one_line(table: str) -> str:
    """The last column's text without its folding; other columns are lost."""
    cells = [line.rstrip("│ ").rpartition("│")[2].strip() for line in table.splitlines()]
    return " ".join(cell for cell in cells if cell)


def document(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(output(done))


def refusal(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a command that refused."""
    assert done.returncode == code, done.stderr + done.stdout
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("vcld: ")
    return line


def test_status_shows_each_reservation_with_its_worker_its_step_and_what_it_does(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    loading, waiting = site.ask("new", 1), site.ask("new", 2, start=7200)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(loading), daemon.describe)

    picture = document(daemon.command("status", "--all", "--json"))

    (node,) = picture["nodes"]
    assert node["hostname"] == "node1.example.org"
    assert node["pid"] == daemon.pid
    assert not node["stopped"]
    lines = {line["requestid"]: line for line in picture["requests"]}
    assert lines[loading]["state"] == "pending"
    assert lines[loading]["laststate"] == "new"
    assert lines[loading]["computer"] == "vm1"
    assert lines[loading]["computer_state"] == "reloading"
    assert lines[loading]["pid"] in [worker.pid for worker in daemon.workers()]
    assert lines[waiting]["phase"] is None
    progress = picture["progress"][str(lines[loading]["reservationid"])]
    assert progress["name"] == "transfervm"
    assert 0 < progress["fraction"] < 1
    assert picture["computers"] == {"available": 9, "reloading": 1}

    text = output(daemon.command("status"))
    for word in ("node1.example.org", "pending/new", "vm1", "transfervm", "left:"):
        assert word in text
    assert f"{waiting}:" not in text
    assert "Not shown: 1 start later (vcld status --all)." in text
    assert f"{waiting}:" in output(daemon.command("status", "--all"))


def test_claims_of_a_dead_node_are_told_as_unknown_and_promise_no_progress(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    request = site.ask("new", 1)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)
    (worker,) = daemon.workers()
    daemon.send(signal.SIGSTOP)
    site.execute("UPDATE managementnode SET lastcheckin = NOW() - INTERVAL 5 MINUTE")

    picture = document(daemon.command("status", "--json"))

    (line,) = picture["requests"]
    assert line["phase"] == "running"
    assert line["pid"] is None
    assert line["last_pid"] == worker.pid
    assert line["unwatched_because"].startswith("node1.example.org is silent for 3")
    assert picture["progress"] == {}
    text = output(daemon.command("status"))
    assert "unknown" in text
    assert "left:" not in text
    (rule,) = [
        rule
        for rule in document(daemon.command("explain", str(request), "--json"))["rules"]
        if rule["rule"] == "unwatched"
    ]
    assert rule["reservation"] == line["reservationid"]
    assert f"worker {worker.pid} had it; node1.example.org is silent for" in rule["text"]
    assert "works on it" not in output(daemon.command("explain", str(request)))
    site.execute("UPDATE managementnode SET lastcheckin = NOW()")
    site.execute("UPDATE vcld_daemon SET stopped_at = UTC_TIMESTAMP()")
    (line,) = document(daemon.command("status", "--json"))["requests"]
    assert line["unwatched_because"] == "vcld for node1.example.org is stopped"


def test_status_tells_of_a_load_that_does_not_get_on(site: Site, daemons: Daemons) -> None:
    """Not for hours that a second is left."""
    site.write_script(rules=[{"step": "transfervm", "hang": True}])
    request = site.ask("new", 1)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)
    site.execute("UPDATE computerloadlog SET timestamp = timestamp - INTERVAL 3 HOUR")

    text = output(daemon.command("status"))

    assert "LATE: no step for 3h" in text
    assert " left:" not in text


def test_status_tells_that_the_daemon_of_this_machine_has_died(
    site: Site, daemons: Daemons
) -> None:
    """At once: its heartbeat counts as young for a minute."""
    daemon = daemons.start()
    daemon.kill()
    request = site.ask("new", 1)

    assert f"DIED, was {daemon.pid} on" in output(daemon.command("status"))
    assert f"no vcld runs for node1.example.org: vcld explain {request}" in one_line(
        output(daemon.command("status"))
    )
    assert "has died" in output(daemon.command("explain", str(request)))


def test_status_names_the_computers_that_wait_for_a_person(site: Site, operator: Daemon) -> None:
    site.set_computer(2, "failed")
    site.set_computer(7, "failed")
    site.set_computer(3, "maintenance")

    assert document(operator.command("status", "--json"))["out_of_service"] == {
        "failed": ["vm2", "vm7"],
        "maintenance": ["vm3"],
    }
    text = output(operator.command("status"))
    assert "vm2, vm7" in text


def test_status_tells_which_requests_nobody_will_mend(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    odd, failed = site.ask("serverinuse", 1), site.ask("failed", 2, laststate="new")
    broken, stray = site.ask("maintenance", 3, laststate="inuse"), site.ask("new", 4, start=60)
    site.set_state(stray, "pending")

    text = one_line(output(daemon.command("status")))

    for request, why in (
        (odd, "no management node processes such a state"),
        (failed, "it failed"),
        (broken, "an administrator is waited for"),
        (stray, "nobody has it"),
    ):
        assert f"{why}: vcld explain {request}" in text
    assert f"'vcld retry {failed}'" in output(daemon.command("explain", str(failed)))


def test_watch_gives_one_picture_after_another_and_the_bar_of_a_load(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    request = site.ask("new", 1)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    lines = output(daemon.command("watch", "--json", "--interval", "0.2", "--for", "1"))
    pictures = [json.loads(line) for line in lines.splitlines()]
    assert len(pictures) >= 2
    assert all(p["requests"][0]["requestid"] == request for p in pictures)

    drawn = output(daemon.command("watch", "--for", "0.5"))
    assert "computers: 9 available, 1 reloading" in drawn
    assert "━" in drawn
    assert "left:" in drawn


def test_watch_outlives_the_database(site: Site, operator: Daemon, restartable: Server) -> None:
    watching = subprocess.Popen(
        # A test run in the background of a shell has its children ignore Ctrl-C.
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "vcld",
            "watch",
            "--json",
            "--interval",
            "0.2",
        ],
        env=operator.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    try:
        assert "requests" in json.loads(watching.stdout.readline())
        restartable.kill()
        kinds: list[str] = []
        while "waiting" not in kinds:
            kinds += json.loads(watching.stdout.readline())
        restartable.revive()
        while "requests" not in json.loads(watching.stdout.readline()):
            pass
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    finally:
        watching.kill()
        watching.communicate()


def test_explain_names_the_rule_and_the_clock(site: Site, operator: Daemon) -> None:
    later = site.ask("new", 1, start=2 * 86400)
    served = site.ask("inuse", 2, laststate="inuse", seconds=7200)
    unpaired = site.ask("new", 3)
    site.execute(f"DELETE FROM reservation WHERE requestid = {unpaired}")

    told = document(operator.command("explain", str(later), "--json"))
    assert (told["requestid"], told["state"], told["laststate"]) == (later, "new", "new")
    text = " ".join(told["sentences"])
    assert "nothing is to be done" in text
    assert "No vcld has ever run for node1.example.org." in text
    assert "nothing is to be done" in output(operator.command("explain", str(later)))

    text = output(operator.command("explain", str(served)))
    assert f"Request {served} is inuse, before inuse." in text

    text = output(operator.command("explain", str(unpaired)))
    assert "It has no reservation" in text


def test_explain_shows_what_happened_so_far_and_who_works_on_it(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(delays={"transfervm": 60})
    request = site.ask("new", 1)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)
    (worker,) = daemon.workers()

    text = output(daemon.command("explain", str(request)))

    assert f"worker {worker.pid} works on it, attempt 1." in text
    assert "Load log:" in text
    assert "transfervm:" in text


def test_cancel_ends_a_request_as_the_end_button_does(site: Site, daemons: Daemons) -> None:
    site.write_script(delays={"transfervm": 60})
    request = site.ask("new", 1)
    daemon = daemons.start()
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)
    site.write_script(delays={})

    told = document(daemon.command("cancel", str(request), "--json"))

    assert told["request"] == request
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)


def test_cancel_before_the_start_leaves_the_computer_to_whom_it_serves(
    site: Site, operator: Daemon
) -> None:
    site.set_computer(2, "inuse")
    request = site.ask("new", 2, start=7200)

    assert "it is removed" in output(operator.command("cancel", str(request)))

    assert site.pair(request) == "gone"
    assert site.scalar("SELECT ending FROM log") == "deleted"
    assert site.computer(2) == "inuse"


def test_retry_takes_up_at_once_what_waits_for_its_next_attempt(
    site: Site, daemons: Daemons
) -> None:
    site.write_script(
        rules=[{"step": "startvm", "error": "BackendUnavailableError", "message": "busy"}]
    )
    request = site.ask("new", 1)
    daemon = daemons.start(retry_delay=600)
    waiting = eventually(
        lambda: [claim for claim in site.claims() if claim.phase == "retry"], daemon.describe
    )
    assert len(waiting) == 1
    assert "taken up in" in output(daemon.command("explain", str(request)))
    site.write_script(rules=[])

    assert output(daemon.command("retry", str(request)))

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)


@pytest.mark.parametrize("command", ["explain", "retry", "cancel"])
def test_a_request_that_is_not_there_is_named(command: str, operator: Daemon) -> None:
    assert "there is no request 4711" in refusal(operator.command(command, "4711"), ExitCode.FAILED)


@pytest.mark.parametrize("arguments", [("explain", "seven"), ("frobnicate",), (), ("retry",)])
def test_wrong_arguments_are_refused_with_the_usage(
    arguments: tuple[str, ...], operator: Daemon
) -> None:
    done = operator.command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: vcld")
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [("status",), ("db", "check"), ("accounting", "check"), ("explain", "1")]
)
def test_the_configuration_may_be_named_after_each_command_and_its_action(
    arguments: tuple[str, ...], operator: Daemon
) -> None:
    missing = operator.folder / "nowhere.conf"
    done = operator.command(*arguments, "--config", str(missing))
    assert str(missing) in refusal(done, ExitCode.CONFIG)


@pytest.mark.parametrize("arguments", EVERY_COMMAND)
def test_without_a_database_each_command_says_so_in_one_line(
    arguments: tuple[str, ...], operator: Daemon
) -> None:
    operator.environ["VCLD_DATABASE_URL"] = "mysql+pymysql://vcl:s3cret@127.0.0.1:9/vcl"
    done = operator.command(*arguments)
    told = done.stdout + done.stderr
    assert "Traceback" not in told
    assert "s3cret" not in told
    if arguments == ("check",):
        assert done.returncode == ExitCode.UNAVAILABLE
        assert "127.0.0.1:9" in told
    elif arguments[0] == "watch":
        assert done.returncode == ExitCode.DONE
        assert "waiting" in json.loads(done.stdout.splitlines()[0])
    else:
        assert "127.0.0.1" in refusal(done, ExitCode.UNAVAILABLE)


@pytest.mark.parametrize("arguments", EVERY_COMMAND)
def test_a_database_without_the_schema_is_refused_with_the_remedy(
    arguments: tuple[str, ...], operator: Daemon, empty: str
) -> None:
    operator.environ["VCLD_DATABASE_URL"] = empty
    done = operator.command(*arguments)
    told = done.stdout + done.stderr
    assert done.returncode == ExitCode.CONFIG, told
    assert "Traceback" not in told
    remedy = "'vcld db init'" if arguments in CHECKS else "vcld db check"
    assert remedy in told


@pytest.mark.parametrize("arguments", EVERY_COMMAND)
def test_a_database_that_does_not_exist_is_refused_with_the_remedy(
    arguments: tuple[str, ...], operator: Daemon
) -> None:
    url = make_url(operator.environ["VCLD_DATABASE_URL"]).set(database="no_such_database")
    operator.environ["VCLD_DATABASE_URL"] = url.render_as_string(hide_password=False)
    done = operator.command(*arguments)
    told = done.stdout + done.stderr
    assert done.returncode == ExitCode.CONFIG, told
    assert "Traceback" not in told
    assert "1049" in told
    if arguments not in CHECKS:
        assert "'vcld db init'" in told


def test_db_init_makes_a_schema_that_db_check_accepts_and_never_a_second_time(
    operator: Daemon, mariadb: Server, empty: str
) -> None:
    operator.environ["VCLD_DATABASE_URL"] = empty
    assert "made the VCL schema" in output(operator.command("db", "init", "--simulator"))
    well = document(operator.command("db", "check", "--json"))
    assert well == {"usable": True, "problems": []}
    name = str(make_url(empty).database)
    assert name in refusal(operator.command("db", "init"), ExitCode.CONFIG)
    mariadb.query(f"ALTER TABLE `{name}`.reservation DROP COLUMN remoteIP")
    broken = operator.command("db", "check", "--json")
    told = json.loads(broken.stdout)
    assert broken.returncode == ExitCode.CONFIG
    assert not told["usable"]
    assert any("remoteIP" in problem for problem in told["problems"])


def test_states_prints_the_one_table_and_the_docs_hold_it() -> None:
    def states(*arguments: str) -> str:
        return output(
            subprocess.run(
                [sys.executable, "-m", "vcld", "states", *arguments],
                capture_output=True, text=True, timeout=60, check=False,
            )
        )  # fmt: skip

    assert set(json.loads(states("--json"))) == set(STATES)
    table = states()
    assert not [name for name in STATES if name not in table]
    page = Path(__file__).parents[2] / "docs" / "states.md"
    assert states("--markdown") == page.read_text(encoding="utf-8")


def test_a_reader_that_leaves_early_is_no_error(site: Site, operator: Daemon) -> None:
    site.ask("new", 1)
    command = [sys.executable, "-m", "vcld", "watch", "--json", "--interval", "0.2"]
    with subprocess.Popen(
        command,
        env={**operator.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(20) == ExitCode.DONE
        assert watching.stderr.read() == b""


def test_explain_names_the_request_that_has_the_computer(site: Site, daemons: Daemons) -> None:
    site.write_script(rules=[{"step": "startvm", "hang": True}])
    daemon = daemons.start()
    holder = site.ask("new", 1)
    eventually(lambda: "startvm" in site.steps(holder), daemon.describe)

    request = site.ask("new", 1)

    eventually(lambda: site.pair(request) == "pending/new", daemon.describe)
    wanted = f"waits for the computer: request {holder} (pending/new) has it"
    eventually(lambda: wanted in daemon.command("explain", str(request)).stdout, daemon.describe)
    site.delete(holder)
    eventually(lambda: "startvm" in site.steps(request), daemon.describe)
    assert "waits for" not in daemon.command("explain", str(request)).stdout


@pytest.mark.parametrize("command", [("status",), ("watch", "--for", "0.1")])
def test_names_that_the_locale_lacks_are_spelled_out(
    site: Site, operator: Daemon, command: tuple[str, ...]
) -> None:
    """For people; what programs read says the very name."""
    site.execute("UPDATE user SET unityid = 'žluťoučký' WHERE id = 101")
    site.ask("reload", 1)
    environ = {**operator.environ, "PYTHONIOENCODING": "iso-8859-1", "PYTHONPATH": os.getcwd()}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "vcld", *arguments], env=environ, capture_output=True, check=True
        )
        assert done.stderr == b""
        return done.stdout.decode("iso-8859-1")

    assert r"\u017elu" in run(*command)
    assert "žluťoučký" in str(json.loads(run(*command, "--json")))
