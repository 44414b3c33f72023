"""Signals that an operator sends, to the daemon or, by mistake or by systemd, to all it started."""

from __future__ import annotations

import os
import signal

import pytest

from tests.daemon import Daemons, eventually
from tests.site import Site


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_for_one_process_harms_none_of_the_others(
    site: Site, daemons: Daemons, number: signal.Signals
) -> None:
    """``systemctl kill -s`` and ``pkill`` send it to the daemon and to its workers alike."""
    site.write_script(rules=[{"step": "startvm", "hang": True}])
    daemon = daemons.start()
    request = site.ask("new", 1)
    eventually(lambda: "startvm" in site.steps(request), daemon.describe)
    (worker,) = daemon.workers()

    for pid in (worker.pid, daemon.pid):
        os.kill(pid, number)

    other = site.ask("new", 2)
    eventually(lambda: "startvm" in site.steps(other), daemon.describe)
    assert not daemon.events("worker died, its work is repeated")
    assert worker.pid in {process.pid for process in daemon.workers()}


def test_stack_of_a_daemon_is_written_as_that_of_a_worker_is(site: Site, daemons: Daemons) -> None:
    daemon = daemons.start()

    daemon.send(signal.SIGUSR2)

    stray = daemon.folder / f"{daemon.name}.err"
    eventually(lambda: "supervisor/loop.py" in stray.read_text(), daemon.describe)
