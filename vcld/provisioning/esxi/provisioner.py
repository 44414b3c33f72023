"""The provisioner for computers that are VMs on an ESXi host or below a vCenter."""

from __future__ import annotations

from vcld.errors import ImageNotFoundError
from vcld.guest.interface import Guest, Tools
from vcld.provisioning.esxi import disks, leftovers, sources
from vcld.provisioning.esxi.capture import Capture
from vcld.provisioning.esxi.disks import DiskMode
from vcld.provisioning.esxi.faults import translated
from vcld.provisioning.esxi.host import Host
from vcld.provisioning.esxi.images import StoredImage
from vcld.provisioning.esxi.load import Loader
from vcld.provisioning.esxi.machines import POWERED_OFF, POWERED_ON, SUSPENDED
from vcld.provisioning.esxi.probe import EsxiProbe
from vcld.provisioning.esxi.retrieval import Retrieval
from vcld.provisioning.interface import (
    LoadStatus,
    NodeStatus,
    Placement,
    PowerAction,
    PowerState,
    Provisioner,
)
from vcld.snapshot import Reservation

STATES = {
    POWERED_ON: PowerState.ON,
    POWERED_OFF: PowerState.OFF,
    SUSPENDED: PowerState.SUSPENDED,
}


class EsxiProvisioner(Provisioner):
    """VMs by the vSphere API."""

    probe = EsxiProbe

    def __init__(self, reservation: Reservation, guest: Guest, tools: Tools) -> None:
        super().__init__(reservation, guest, tools)
        self.host = Host(reservation, tools, guest.on_step)

    @translated
    def node_status(self) -> NodeStatus:
        """As everywhere; besides, a server may not keep a disk that is linked to a master."""
        status = super().node_status()
        server = self.reservation.request.is_server
        if status.status is LoadStatus.RELOAD or not server:
            return status
        machine = self.host.machines.find()
        if machine is None or any(disk.parent for disk in self.host.machines.disks(machine)):
            return NodeStatus(LoadStatus.RELOAD, "a server needs a disk of its own")
        return status

    @translated
    def load(self) -> str | None:
        Loader(self.host).run()
        self.guest.await_answer()
        name = self.reservation.computer.shortname
        self.tools.progress("machinebooted", f"{name} has booted and answers")
        return self.guest.post_load()

    @translated
    def plan_load(self) -> list[str]:
        """What ``load`` would do, a sentence each; nothing is changed."""
        return Loader(self.host).plan()

    @translated
    def image_exists(self, name: str | None = None) -> bool:
        return self._find(name) is not None

    @translated
    def retrieve_image(self, name: str | None = None) -> None:
        Retrieval(self.host, name or self.reservation.imagerevision.imagename).run()

    @translated
    def image_size_mib(self, name: str | None = None) -> int:
        wanted = name or self.reservation.imagerevision.imagename
        both = (self.host.masters.find(wanted), self.host.find_stored(wanted))
        found = [image for image in both if image is not None]
        if not found:
            raise ImageNotFoundError(f"image {wanted} is nowhere on the VM host")
        return max(image.size_mib for image in found)

    @translated
    def capture(self, *, keep_running: bool) -> None:
        Capture(self.host, self.guest).run(keep_running=keep_running)

    @translated
    def power(self, action: PowerAction) -> None:
        machines = self.host.machines
        machine = machines.get()
        if action is not PowerAction.ON:
            machines.power_off(machine)
        if action is not PowerAction.OFF:
            machines.power_on(machine)

    @translated
    def power_status(self) -> PowerState:
        machine = self.host.machines.find()
        if machine is None:
            return PowerState.UNKNOWN
        state = self.host.machines.power_state(machine)
        return STATES.get(state, PowerState.UNKNOWN)

    @translated
    def unload(self) -> None:
        self.host.machines.remove(self.host.machines.own())
        bases = [self.host.vm_base]
        if disks.choose(self.host) is DiskMode.CLONE:
            bases.append(sources.root_of(self.host.vm_base))
        for base in bases:
            leftovers.remove(self.host, base)
        self.host.refresh()

    @translated
    def post_maintenance(self) -> bool:
        if self.reservation.computer.type != "virtualmachine":
            return False
        if self.reservation.computer.vmhost is not None:
            self.unload()
        return True

    @translated
    def placement(self) -> Placement:
        self.host.refresh()
        machine = self.host.machines.get()
        linked = any(disk.parent for disk in self.host.machines.disks(machine))
        chosen = disks.choose(self.host)
        mode = (DiskMode.LINKED if chosen is DiskMode.COPY else chosen) if linked else DiskMode.COPY
        return Placement(
            deploy_id=machine.name,
            folder=str(machine.path.parent) if machine.path else "",
            transfer=mode.value,
        )

    def close(self) -> None:
        self.host.close()

    def _find(self, name: str | None) -> StoredImage | None:
        wanted = name or self.reservation.imagerevision.imagename
        return self.host.masters.find(wanted) or self.host.find_stored(wanted)
