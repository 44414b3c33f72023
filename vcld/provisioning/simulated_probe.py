"""The simulator's probe: a host whose VMs are busy while somebody is connected to them."""

from __future__ import annotations

from vcld.guest.simulated_steps import pass_host_step
from vcld.guest.simulated_world import World
from vcld.provisioning.probing import HostProbe, HostUsage, Measurement, ProbedVm, VmUsage

#: Of a core: a VM that runs, and each user who is connected to it.
IDLE_PERCENT, USER_PERCENT = 5, 50
#: What the host takes for itself.
OWN_CPU_PERCENT, OWN_MEMORY_KIB = 10, 1024 * 1024
DISK_MIB, VM_DISK_MIB = 2_000_000, 20_000
#: What a load receives over the network, and what a user sends.
LOAD_KIB, USER_KIB = 2048, 512


class SimulatorProbe(HostProbe):
    """Reads the files of the simulated computers. The step's name is ``host:probe``."""

    def measure(self) -> Measurement:
        world = World(self.tools.settings.simulator_config)
        name = self.host.hostname.partition(".")[0]
        cancellation = self.tools.cancellation
        pass_host_step(world, "host:probe", name, self.host.computerid, cancellation)
        vms = {vm.reservationid: _measure(world, vm) for vm in self.host.vms}
        cpu = sum(vm.cpu_percent or 0 for vm in vms.values())
        memory = sum(vm.memory_kib or 0 for vm in vms.values())
        host = HostUsage(
            max_cpu_percent=self.host.procnumber * 100,
            used_cpu_percent=cpu + OWN_CPU_PERCENT,
            max_memory_kib=self.host.ram_mib * 1024,
            used_memory_kib=memory + OWN_MEMORY_KIB,
            max_disk_mib=DISK_MIB,
            used_disk_mib=VM_DISK_MIB * len(vms),
        )
        return Measurement(host=host, vms=vms)


def _measure(world: World, vm: ProbedVm) -> VmUsage:
    computer = world.computer(vm.node_name)
    users = len(computer.connected)
    if computer.power != "on":
        return VmUsage(cpu_percent=0, memory_kib=0)
    return VmUsage(
        cpu_percent=min(vm.procnumber * 100, IDLE_PERCENT + users * USER_PERCENT),
        memory_kib=vm.ram_mib * 1024 // (1 if users else 2),
        sent_kib=users * USER_KIB,
        received_kib=LOAD_KIB,
    )
