"""Space on datastores: what is free, less what is promised to work under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from pyVmomi import vmodl

from vcld.errors import Blame, ProvisioningError
from vcld.guest.interface import Tools
from vcld.provisioning.esxi.client import Client
from vcld.provisioning.esxi.inventory import Datastore
from vcld.provisioning.leasing import Leases
from vcld.store import leases as rows

GIB = 1 << 30
#: A VMFS volume that is filled to the last byte stops every VM on it.
SPARE_BYTES = 1 * GIB
#: Counting takes a moment only: whoever is next looks this often.
COUNT_SECONDS = 0.05


class Space:
    """Promises space to one worker's load or capture."""

    def __init__(self, client: Client, leases: Leases, tools: Tools) -> None:
        self._client = client
        self._leases = leases
        self._tools = tools

    @contextmanager
    def promise(
        self,
        needs: Mapping[str, tuple[Datastore, int]],
        make_room: Callable[[Datastore, int], None] = lambda store, missing: None,
    ) -> Iterator[None]:
        """Keep space for the work of the block: bytes by URL of the datastore.

        Checking and promising are one step, for which workers of all nodes wait for one
        another. ``make_room`` may remove something, told how many bytes are missing.

        Raises:
            ProvisioningError: there is not enough; the VM host is to blame.
        """
        with ExitStack() as promises:
            for url, (store, needed) in sorted(needs.items()):
                name = f"space:{url}"
                turn = f"the count of space on {store.name}"
                with self._leases.hold(f"count:{url}", turn, next_seconds=COUNT_SECONDS):
                    missing = self._missing(store, needed)
                    if missing > 0:
                        make_room(store, missing)
                        missing = self._missing(store, needed)
                    if missing > 0:
                        raise ProvisioningError(
                            f"datastore {store.name} has too little space: {_gib(needed)} are"
                            f" needed, {_gib(missing)} more than are free and not promised to"
                            " other loads",
                            blame=Blame.VMHOST,
                        )
                    promises.enter_context(self._leases.promise(name, needed))
            yield

    def available_bytes(self, store: Datastore) -> int:
        """What is free now and promised to nobody, beyond what must stay free."""
        promised: int = self._tools.run(rows.promised, f"space:{store.url}")
        return free_bytes(self._client, store) - promised - SPARE_BYTES

    def _missing(self, store: Datastore, needed: int) -> int:
        return needed - self.available_bytes(store)


def free_bytes(client: Client, store: Datastore) -> int:
    """What is free now: the server's own figure is minutes old, unless it is told to look."""
    with suppress(vmodl.MethodFault):
        store.ref.RefreshDatastore()
    free: int = client.read_one(store.ref, "summary.freeSpace").get("summary.freeSpace", 0)
    return free


def _gib(count: int) -> str:
    """Rounded up: what is needed is never called nothing."""
    return f"{-(-count * 10 // GIB) / 10:.1f} GiB"
