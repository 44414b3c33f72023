"""Connections that are cut before a call, or after it: done, but nobody was told."""

from __future__ import annotations

import pytest

from tests import esxi_fixtures
from tests.daemon import Daemon, eventually
from tests.esxi_site import CAPTURED, FIRST, EsxiSite
from tests.integration.test_esxi_kills import (
    CAPTURE_CALLS,
    LOAD_CALLS,
    RELOAD_CALLS,
    check_kept,
    check_loaded,
    in_use,
)
from tests.site import NEW_REVISION

mode, hosts = esxi_fixtures.each_mode, esxi_fixtures.hosts
site, daemon = esxi_fixtures.site, esxi_fixtures.daemon
daemons = esxi_fixtures.daemons
each_way = pytest.mark.parametrize("action", ["cut", "lost"])


def strike(site: EsxiSite, method: str, action: str) -> None:
    site.vcsim.counted(reset=True)
    site.vcsim.rules({"method": method, "action": action, "times": 1})


def is_struck(site: EsxiSite, method: str) -> bool:
    return bool(site.vcsim.counted()["calls"].get(method))


@each_way
@pytest.mark.parametrize("method", LOAD_CALLS)
def test_load_that_loses_its_connection_is_done_over(
    site: EsxiSite, daemon: Daemon, method: str, action: str
) -> None:
    strike(site, method, action)

    check_loaded(site, daemon, site.ask("reload", 1))

    assert is_struck(site, method)
    assert site.leftovers() == []
    assert site.scalar("SELECT COUNT(*) FROM vcld_lease") == 0


@each_way
@pytest.mark.parametrize("method", RELOAD_CALLS)
def test_load_that_loses_its_connection_while_it_removes_the_old_vm_is_done_over(
    site: EsxiSite, daemon: Daemon, method: str, action: str
) -> None:
    check_loaded(site, daemon, site.ask("reload", 1))
    site.set_computer(1, "reload")
    strike(site, method, action)

    check_loaded(site, daemon, site.ask("reload", 1))

    assert is_struck(site, method)


@each_way
@pytest.mark.parametrize("method", CAPTURE_CALLS)
def test_capture_that_loses_its_connection_costs_no_disk_and_can_be_repeated(
    site: EsxiSite, daemon: Daemon, method: str, action: str
) -> None:
    request = in_use(site, daemon)
    before = site.content(site.masters, FIRST)
    strike(site, method, action)

    site.set_state(request, "image")

    check_kept(site, daemon, request, before)


@each_way
@pytest.mark.parametrize("method", ["UnregisterVM", "DeleteDatastoreFile_Task"])
def test_capture_that_cannot_remove_the_vm_has_its_image_all_the_same(
    site: EsxiSite, daemon: Daemon, method: str, action: str
) -> None:
    request = in_use(site, daemon)
    strike(site, method, action)

    site.set_state(request, "image")

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert is_struck(site, method)
    assert daemon.events("the captured VM is left to the next load")
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    eventually(lambda: site.scalar("SELECT COUNT(*) FROM request") == 0, daemon.describe)
    assert list(site.machines()) == [f"vm1_{CAPTURED}"]
    assert site.content(site.repository, CAPTURED)["imagerevision_id"] == NEW_REVISION
    assert [path.name for path in site.vms.iterdir()] == ["vm1_2-v2"]
