"""The interface's commands and questions, asked of vcsim by a provisioner outside any worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from sqlalchemy.engine import Engine

from tests import esxi_fixtures
from tests.daemon import Daemon, eventually
from tests.esxi_site import FIRST, SECOND, EsxiSite, daemon_keys
from vcld.config import Settings
from vcld.errors import Blame, ImageNotFoundError, ProvisioningError
from vcld.guest.interface import Tools
from vcld.guest.simulator import SimulatorGuest
from vcld.provisioning.esxi.provisioner import EsxiProvisioner
from vcld.provisioning.interface import LoadStatus, PowerAction, PowerState
from vcld.schema.engine import Database
from vcld.snapshot import ServerRequest
from vcld.store import nodes, snapshots
from vcld.supervisor.warming import NOBODY
from vcld.waiting import Cancellation

mode, hosts = esxi_fixtures.each_mode, esxi_fixtures.hosts
site, daemons, daemon = esxi_fixtures.site, esxi_fixtures.daemons, esxi_fixtures.daemon
Make = Callable[..., EsxiProvisioner]
SERVER = ServerRequest(
    id=1, name="server", fixedIP=None, fixedMAC=None, admingroupid=None, logingroupid=None,
    monitored=False,
)  # fmt: skip


@pytest.fixture
def make(site: EsxiSite, database: Engine) -> Iterator[Make]:
    """Makes the provisioner of a request's first reservation."""
    shared = Database(database)
    keys = daemon_keys(site)
    settings = Settings(
        fqdn=site.nodes[0],
        vsphere_config=str(keys["vsphere_config"]),
        simulator_config=str(site.script_path),
    )
    made: list[EsxiProvisioner] = []

    def run(work: Callable[..., Any], *args: Any, **facts: Any) -> Any:
        return shared.run(lambda c: work(c, *args, **facts))

    def make_one(request: int, *, server: bool = False) -> EsxiProvisioner:
        (id_,) = site.reservations(request)
        grip = dataclasses.replace(
            NOBODY, requestid=request, reservationid=id_, state="new", laststate="new"
        )
        node = run(nodes.get_node, settings.fqdn)
        reservation = run(snapshots.load_reservation, grip, node, preload_only=False)
        if server:
            asked = dataclasses.replace(reservation.request, server=SERVER)
            reservation = dataclasses.replace(reservation, request=asked)
        tools = Tools(
            settings=settings,
            cancellation=Cancellation(),
            progress=lambda name, text: None,
            variables=lambda name: None,
            log=structlog.get_logger(),
            run=run,
        )
        made.append(EsxiProvisioner(reservation, SimulatorGuest(reservation, tools), tools))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def loaded(site: EsxiSite, daemon: Daemon) -> int:
    """Computer 1 has a VM; a request that nobody works on is about it."""
    reload = site.ask("reload", 1)
    eventually(lambda: site.pair(reload) == "gone", daemon.describe)
    return site.ask("new", 1, start=90000, seconds=180000)


def test_power_is_switched_and_repeating_it_is_no_failure(
    site: EsxiSite, daemon: Daemon, make: Make
) -> None:
    provisioner = make(loaded(site, daemon))
    assert provisioner.power_status() is PowerState.ON
    for action, state in (
        (PowerAction.ON, PowerState.ON),
        (PowerAction.OFF, PowerState.OFF),
        (PowerAction.OFF, PowerState.OFF),
        (PowerAction.RESET, PowerState.ON),
        (PowerAction.RESET, PowerState.ON),
    ):
        provisioner.power(action)
        if action is PowerAction.RESET:
            # The simulator's reset ends before the power-on that it has begun.
            eventually(lambda: provisioner.power_status() is not PowerState.OFF)
        assert provisioner.power_status() is state
    assert site.world.computer("vm1").is_answering


def test_computer_without_a_vm_has_no_power_to_switch(site: EsxiSite, make: Make) -> None:
    provisioner = make(site.ask("new", 1, start=90000, seconds=180000))

    assert provisioner.power_status() is PowerState.UNKNOWN
    with pytest.raises(ProvisioningError, match="vm1 has no VM on its VM host") as caught:
        provisioner.power(PowerAction.ON)
    assert caught.value.blame is Blame.COMPUTER


def test_unload_leaves_nothing_and_may_be_repeated(
    site: EsxiSite, daemon: Daemon, make: Make
) -> None:
    provisioner = make(loaded(site, daemon))

    provisioner.unload()
    provisioner.unload()

    assert site.machines() == {}
    assert list(site.vms.iterdir()) == []
    assert (site.masters / FIRST).exists()


def test_maintenance_removes_the_system_of_a_vm_only(
    site: EsxiSite, daemon: Daemon, make: Make
) -> None:
    request = loaded(site, daemon)
    provisioner = make(request)
    blade = dataclasses.replace(provisioner.reservation.computer, type="blade")
    provisioner.reservation = dataclasses.replace(provisioner.reservation, computer=blade)
    assert provisioner.post_maintenance() is False
    assert list(site.machines()) == [f"vm1_{FIRST}"]

    assert make(request).post_maintenance() is True
    assert site.machines() == {}


def test_server_may_not_have_a_disk_that_is_linked(
    site: EsxiSite, daemon: Daemon, make: Make
) -> None:
    request = loaded(site, daemon)
    with site.world.change("vm1") as machine:
        machine.post_load = True

    assert make(request).node_status().status is LoadStatus.READY
    status = make(request, server=True).node_status()

    assert status.status is LoadStatus.RELOAD
    assert status.reason == "a server needs a disk of its own"


def test_server_with_a_disk_of_its_own_is_ready(site: EsxiSite, daemon: Daemon, make: Make) -> None:
    request = site.make_server(1)
    eventually(lambda: site.computer(1) == "inuse", daemon.describe)
    with site.world.change("vm1") as machine:
        machine.tainted = ""

    assert make(request, server=True).node_status().status is LoadStatus.READY


def test_image_is_found_on_the_datastore_and_in_the_repository(
    site: EsxiSite, daemon: Daemon, make: Make
) -> None:
    provisioner = make(loaded(site, daemon))

    assert provisioner.image_exists()
    assert provisioner.image_exists(SECOND)  # in the repository only
    assert not provisioner.image_exists("nowhere-v1")
    assert provisioner.image_size_mib() == provisioner.image_size_mib(SECOND) == 1
    with pytest.raises(ImageNotFoundError, match="nowhere-v1 is nowhere on the VM host"):
        provisioner.image_size_mib("nowhere-v1")


def test_placement_says_where_and_how(site: EsxiSite, daemon: Daemon, make: Make) -> None:
    placement = make(loaded(site, daemon)).placement()

    assert placement.deploy_id == f"vm1_{FIRST}"
    assert placement.folder == "[shared] vms/vm1_2-v1"
    assert placement.transfer == "linked"
