"""Faults 4, 9, 10, 12, 24 and 27: signals, pids, clocks, full disks, no room for a process."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from tests.daemon import Daemons, eventually
from tests.site import NEW_REVISION, Site


def test_fault_04_second_term_is_no_harm(site: Site, daemons: Daemons) -> None:
    site.write_script(delays={"transfervm": 1})
    daemon = daemons.start(shutdown_grace=20)
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    daemon.send(signal.SIGTERM)
    late = site.ask("new", 2)
    time.sleep(0.3)
    daemon.send(signal.SIGTERM)

    assert daemon.process is not None
    assert daemon.process.wait(30) == 0
    # What was begun is finished, and nothing more is begun.
    assert site.pair(request) == "reserved/new"
    assert site.pair(late) == "new/new"


def test_fault_09_reused_pid_is_not_taken_for_the_worker(site: Site, daemons: Daemons) -> None:
    """The claim names a live process, but one that started at another time."""
    site.write_script(delays={"transfervm": 60})
    first = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), first.describe)
    first.kill()
    for worker in first.workers():
        worker.kill()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        site.execute(f"UPDATE vcld_claim SET pid = {stranger.pid}")
        site.write_script(delays={"transfervm": 0})

        second = daemons.start()

        eventually(lambda: site.computer(1) == "reserved", second.describe)
        assert not second.events("worker adopted")
        assert stranger.poll() is None
        stranger.kill()


def test_fault_09_pids_above_32767_are_kept_whole(site: Site, daemons: Daemons) -> None:
    """Both our table and the process titles hold pids of seven digits."""
    highest = Path("/proc/sys/kernel/pid_max").read_text().strip()
    site.write_script(delays={"transfervm": 60})
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "transfervm" in site.steps(request), daemon.describe)

    site.execute(f"UPDATE vcld_claim SET pid = {int(highest) - 1}")

    assert site.claims()[0].pid == int(highest) - 1


@pytest.mark.parametrize("zone", ["+00:00", "-08:00", "+05:30"])
def test_fault_10_database_clock_in_another_zone_changes_nothing(
    site: Site, daemons: Daemons, database_url: str, zone: str
) -> None:
    """VCL's columns are read and written by one clock: that of the session."""
    url = make_url(database_url)
    before = str(url.query.get("init_command", "")).removeprefix("SET SESSION ")
    settings = ", ".join(filter(None, [f"SET SESSION time_zone = '{zone}'", before]))
    daemons.url = url.update_query_dict({"init_command": settings}).render_as_string(
        hide_password=False
    )
    site.execute(f"SET @@session.time_zone = '{zone}'")
    request = site.ask("new", 1)
    future = site.ask("new", 2, start=7200, seconds=14400)
    site.execute("SET @@session.time_zone = DEFAULT")

    daemon = daemons.start(takeover_after=0)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    assert site.pair(request) == "pending/reserved"
    assert site.pair(future) == "new/new"


def test_fault_10_clock_of_the_node_stepping_does_not_matter(
    site: Site, daemons: Daemons, tmp_path: Path
) -> None:
    """Waits run on the monotonic clock, rules on the database's: the wall clock is unused."""
    clock = tmp_path / "sitecustomize.py"
    clock.write_text(
        "import time\n"
        "real = time.time\n"
        "began = time.monotonic()\n"
        "# An hour forth, then an hour back, each second.\n"
        "time.time = lambda: real() + (3600 if int(time.monotonic() - began) % 2 else -3600)\n"
    )
    daemon = daemons.make()
    daemon.environ["PYTHONPATH"] = str(tmp_path)
    daemon.start()

    request = site.ask("new", 1)

    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.connect(request)
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    site.end(request)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)


def test_fault_12_full_disk_under_the_log_stops_nothing(site: Site, daemons: Daemons) -> None:
    """/dev/full refuses every write as a full disk does."""
    daemon = daemons.make(log="/dev/full").start(wait=False)
    errors = daemon.folder / "vcld.err"

    request = site.ask("tomaintenance", 1)

    eventually(lambda: site.pair(request) == "gone", errors.read_text)
    text = errors.read_text()
    assert text.count("/dev/full cannot be written: No space left on device") >= 1
    assert '"event": "daemon started"' in text


def test_fault_12_no_file_descriptors_left_is_waited_out(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()
    process = psutil.Process(daemon.pid)
    used = process.num_fds()
    process.rlimit(psutil.RLIMIT_NOFILE, (used, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    request = site.ask("tomaintenance", 1)
    time.sleep(2)
    process.rlimit(psutil.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert daemon.process is not None
    assert daemon.process.poll() is None


def test_fault_12_fork_without_room_is_tried_later(site: Site, daemons: Daemons) -> None:
    """The kernel's EAGAIN, at the first forks: the requests are handed back and done later."""
    daemon = daemons.make()
    (daemon.folder / "sitecustomize.py").write_text(
        "import errno, os\n"
        "real, left = os.fork, [2]\n"
        "def fork():\n"
        "    if left[0]:\n"
        "        left[0] -= 1\n"
        "        raise BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "    return real()\n"
        "os.fork = fork\n"
    )
    daemon.environ["PYTHONPATH"] = str(daemon.folder)
    daemon.start()

    requests = [site.ask("tomaintenance", 1), site.ask("tomaintenance", 2)]

    eventually(lambda: daemon.events("no worker could be started"), daemon.describe)
    eventually(lambda: all(site.pair(r) == "gone" for r in requests), daemon.describe)


def test_fault_24_end_passes_during_the_load(site: Site, daemons: Daemons) -> None:
    """The load is finished or given up, but nobody gets a computer beyond the end."""
    site.variable("general_end_notice_first", 1)
    site.variable("general_end_notice_second", 1)
    site.write_script(delays={"transfervm": 3})
    daemon = daemons.start()

    request = site.ask("new", 1, seconds=2)

    eventually(
        lambda: (
            site.pair(request) == "gone"
            or site.pair(request).startswith(("complete/", "failed/", "timeout/"))
            or site.pair(request) == "pending/reserved"
        ),
        daemon.describe,
    )
    if site.pair(request) == "pending/reserved":
        site.connect(request)
    over = ("complete/", "failed/", "gone")
    eventually(lambda: site.pair(request).startswith(over), daemon.describe)
    eventually(lambda: site.computer(1) in {"available", "reload"}, daemon.describe)


def test_fault_27_makeproduction_while_the_session_is_looked_after(
    site: Site, daemons: Daemons
) -> None:
    """The web site asks for it in the middle of a look: the look gives way."""
    daemon = daemons.start(log_level="debug")
    loaded = site.ask("reload", 1)
    eventually(lambda: site.pair(loaded) == "gone", daemon.describe)
    site.set_computer(1, "inuse")
    site.write_script(rules=[{"step": "inuse:start", "hang": True}])
    request = site.ask("inuse", 1, revision=NEW_REVISION)
    site.execute("UPDATE reservation SET lastcheck = NOW() - INTERVAL 1 HOUR")
    eventually(lambda: daemon.events("step reached", step="inuse:start"), daemon.describe)
    site.write_script(rules=[])

    site.set_state(request, "makeproduction", "inuse")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    production = f"SELECT production FROM imagerevision WHERE id = {NEW_REVISION}"
    assert site.scalar(production) == 1
