"""Whatever an ESXi worker waits for, it keeps what it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_xcat import FakeXcat
from tests.xcat_alone import Bench
from vcld.provisioning import leasing
from vcld.provisioning.esxi.host import Host
from vcld.store import leases


def test_wait_for_anything_renews_the_leases_that_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partner's checksums of a large image take minutes; a lease lasts for half of one."""
    monkeypatch.setattr(leasing, "RENEW_SECONDS", 0.01)
    asked: list[Callable[..., Any]] = []
    with FakeXcat(tmp_path / "xcat") as xcat:
        bench = Bench(xcat, tmp_path)
        tools = bench.tools()
        run = tools.run

        def noted(work: Callable[..., Any], *args: Any, **facts: Any) -> Any:
            asked.append(work)
            return run(work, *args, **facts)

        host = Host(bench.reservation(), dataclasses.replace(tools, run=noted))
        with host.leases.hold("retrieve:image", "the fetching of image"):
            host.tools.cancellation.wait(0.1)

    assert asked.count(leases.renew) > 2
