"""Profiles of VM hosts whose columns hold what an operator may well have written there."""

from __future__ import annotations

import pytest

from tests import esxi_fixtures
from tests.daemon import Daemon, Daemons, eventually
from tests.esxi_site import FIRST, EsxiSite, daemon_keys

mode, hosts, site = esxi_fixtures.mode, esxi_fixtures.hosts, esxi_fixtures.site
daemons, daemon = esxi_fixtures.daemons, esxi_fixtures.daemon


def write(site: EsxiSite, **columns: str) -> None:
    for name, value in columns.items():
        site.execute(f"UPDATE vmprofile SET {name} = '{value}' WHERE profilename = 'vcsim'")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("datastorepath", "", "VM host profile 'vcsim' has the path '', which names no datastore"),
        ("vmpath", "  ", "VM host profile 'vcsim' has the path '  ', which names no datastore"),
        ("datastorepath", "d/masters", "the VM host has no datastore 'd'"),
        ("repositorypath", "Shared/repository", "the VM host has no datastore 'Shared'"),
        ("repositorypath", "x/../y", "VM host profile 'vcsim' has the path 'x/../y'"),
    ],
)
def test_path_that_leads_nowhere_is_the_vm_host_s_fault(
    site: EsxiSite, daemon: Daemon, column: str, value: str, said: str
) -> None:
    write(site, **{column: value})

    request = site.ask("reload", 1)

    (ended,) = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert ended["reason"].startswith(said)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available"
    assert site.machines() == {}


def test_paths_may_be_written_in_every_way_that_has_one_meaning(
    site: EsxiSite, daemons: Daemons
) -> None:
    write(
        site,
        datastorepath="  [shared]   ./masters/ ",
        vmpath=" shared/./virtuelle-日本/",
        repositorypath=" shared//repository ",
        resourcepath=" ",
        folderpath="/ ",
    )
    daemon = daemons.start(**daemon_keys(site))

    request = site.ask("reload", 1)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available", daemon.describe()
    assert site.machines()[f"vm1_{FIRST}"].parents == [f"[shared] masters/{FIRST}/{FIRST}.vmdk"]


def test_repository_of_spaces_is_none(site: EsxiSite, daemons: Daemons) -> None:
    write(site, repositorypath="   ")
    daemon = daemons.make(**daemon_keys(site))

    done = daemon.command("esxi", "check", "esx1.example.org")

    assert "repository" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
