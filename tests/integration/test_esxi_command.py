"""``vcld esxi``: what an operator sees of a VM host before a load."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from pyVim.connect import Disconnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests import esxi_fixtures
from tests.daemon import Daemon
from tests.esxi_site import FIRST, EsxiSite, daemon_keys

mode, hosts, site = esxi_fixtures.each_mode, esxi_fixtures.hosts, esxi_fixtures.site


@pytest.fixture
def daemon(site: EsxiSite, database_url: str) -> Daemon:
    """A configuration; nothing is started."""
    return Daemon(site, database_url, **daemon_keys(site))


def test_check_tells_what_a_load_needs(site: EsxiSite, daemon: Daemon) -> None:
    done = daemon.command("esxi", "check", "esx1", "--json")

    assert done.returncode == 0, done.stderr
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert all(one["ok"] for one in found.values())
    assert "VMware" in found["API"]["text"]
    assert found["certificate"]["text"] == "checked: pinned"
    if site.mode == "esx":
        assert found["licence"]["text"] == "Evaluation Mode"
    assert found["repository"]["text"].endswith("2 images")
    assert "GiB for new loads" in found["masters"]["text"]
    assert found["card 0"]["text"] == "network Private"
    assert "card 1" in found
    assert "vcsim-pw" not in done.stdout + done.stderr


def test_check_names_every_problem_and_fails(site: EsxiSite, daemon: Daemon) -> None:
    site.execute(
        "UPDATE vmprofile SET virtualswitch0 = 'Nowhere', datastorepath = '[gone] x'"
        " WHERE profilename = 'vcsim'"
    )

    done = daemon.command("esxi", "check", "esx1.example.org")

    assert done.returncode == 10
    assert done.stdout.count("PROBLEM") == 2
    assert "Nowhere" in done.stdout
    assert "gone" in done.stdout


def test_check_names_a_path_that_leads_nowhere(site: EsxiSite, daemon: Daemon) -> None:
    site.execute("UPDATE vmprofile SET datastorepath = '' WHERE profilename = 'vcsim'")

    done = daemon.command("esxi", "check", "esx1")

    assert done.returncode == 10
    assert "the path '' names no datastore; write [datastore] folder" in done.stdout


def test_free_licence_is_named_where_it_matters(site: EsxiSite, daemon: Daemon) -> None:
    """A vCenter is never free; what its licences are called does not matter."""
    site.vcsim.set_licence("esxBasic", "VMware vSphere 7 Hypervisor")

    done = daemon.command("esxi", "check", "esx1")

    if site.mode == "vc":
        assert done.returncode == 0, done.stdout
        assert "licence" not in done.stdout
    else:
        assert done.returncode == 10
        assert done.stdout.count("PROBLEM") == 1
        assert "VMware vSphere 7 Hypervisor: it lets programs only read" in done.stdout


def test_host_in_maintenance_mode_is_named_and_gets_no_load(site: EsxiSite, daemon: Daemon) -> None:
    session = site.vcsim.connect()
    content = session.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
    for host in view.view:
        WaitForTask(host.EnterMaintenanceMode_Task(0))
    Disconnect(session)
    request = site.ask("new", 1)

    checked = daemon.command("esxi", "check", "esx1")
    planned = daemon.command("esxi", "plan", str(request))

    assert checked.returncode == 10
    assert checked.stdout.count("PROBLEM") == 1
    assert "in maintenance mode: nothing can be started" in checked.stdout
    assert planned.returncode == 10
    assert "esx1.example.org is in maintenance mode" in planned.stderr


def test_check_says_how_vms_get_their_disks(site: EsxiSite, daemon: Daemon) -> None:
    site.variable("vmware|disk|profile|vcsim", "clone")

    done = daemon.command("esxi", "check", "esx1", "--json")

    found = {one["what"]: one for one in json.loads(done.stdout)}
    if site.mode == "vc":
        assert found["disks"]["text"] == "clone (variable vmware|disk|profile|vcsim)"
        assert done.returncode == 0
    else:
        assert not found["disks"]["ok"]
        assert "asks for clones, which esx1.example.org cannot make" in found["disks"]["text"]
        assert done.returncode == 10


def test_check_of_a_host_that_is_away_says_so(site: EsxiSite, daemon: Daemon) -> None:
    site.stop()

    done = daemon.command("esxi", "check", "esx1")

    assert done.returncode == 10
    assert "does not" in done.stdout


def test_plan_on_a_host_that_is_away_does_not_wait_for_it(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("new", 1)
    site.stop()
    begun = time.monotonic()

    done = daemon.command("esxi", "plan", str(request))

    assert done.returncode == 10
    assert done.stderr.count("\n") == 1
    assert "does not answer" in done.stderr
    assert time.monotonic() - begun < 10


def test_check_of_an_unknown_host_says_so(site: EsxiSite, daemon: Daemon) -> None:
    done = daemon.command("esxi", "check", "esx9")

    assert done.returncode == 10
    assert "no computer esx9 is a VM host" in done.stderr


def test_plan_says_what_a_load_would_do_and_does_nothing(site: EsxiSite, daemon: Daemon) -> None:
    request = site.ask("new", 1)

    done = daemon.command("esxi", "plan", str(request), "--json")

    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout)["vm1"]
    assert lines[0].startswith(f"copy [shared] repository/{FIRST}/{FIRST}.vmdk to shared")
    assert any("a linked disk" in line for line in lines)
    assert "connect Private with MAC 00:50:56:00:00:01" in lines
    assert site.machines() == {}
    assert list(site.masters.iterdir()) == []
    assert site.pair(request) == "new/new"
    changing = {"CreateVM_Task", "CopyVirtualDisk_Task", "MakeDirectory", "PUT /folder"}
    assert not changing & set(site.vcsim.counted()["calls"])


def test_plan_of_a_load_that_cannot_work_says_why(site: EsxiSite, daemon: Daemon) -> None:
    shutil.rmtree(site.repository / FIRST)
    request = site.ask("new", 1)

    done = daemon.command("esxi", "plan", str(request))

    assert done.returncode == 10
    assert f"image {FIRST} is neither on datastore shared nor in the repository" in done.stderr
