"""One reservation's VM host, opened at first use: session, inventory and what works on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from vcld import clock
from vcld.errors import Blame, FatalProvisioningError, ReservationDataError
from vcld.guest.interface import Tools
from vcld.provisioning.esxi import naming
from vcld.provisioning.esxi.client import Client
from vcld.provisioning.esxi.endpoint import make_endpoint
from vcld.provisioning.esxi.files import Files
from vcld.provisioning.esxi.images import ImageFolder, StoredImage
from vcld.provisioning.esxi.inventory import Datastore, Inventory
from vcld.provisioning.esxi.local import LocalFolder
from vcld.provisioning.esxi.machines import Machines
from vcld.provisioning.esxi.paths import DatastorePath, parse
from vcld.provisioning.esxi.placing import read_inventory
from vcld.provisioning.esxi.session import Session
from vcld.provisioning.esxi.space import Space
from vcld.provisioning.leasing import Leases, Renewing
from vcld.snapshot import Reservation, VMHost
from vcld.store import secrets

#: Of the column vcld_lease.name.
LONGEST_LEASE = 190
#: A look at the inventory is good for so long.
FRESH_SECONDS = 5.0
#: How long another host may be away that is only asked what it uses; others wait meanwhile.
NEIGHBOUR_SECONDS = 5.0


class Host:
    """The VM host of a reservation's computer."""

    def __init__(
        self,
        reservation: Reservation,
        tools: Tools,
        on_step: Callable[[str], None] = lambda name: None,
        *,
        patience_seconds: float | None = None,
    ) -> None:
        self.reservation = reservation
        self.leases = Leases(reservation, tools)
        # Whatever waits, for the host's answer too, renews the leases that are held meanwhile.
        renewing = Renewing(tools.cancellation, self.leases.tick)
        self.tools = dataclasses.replace(tools, cancellation=renewing)
        self._on_step = on_step
        usual = tools.settings.vsphere_patience_seconds
        self._read_at = 0.0
        self._patience_seconds = usual if patience_seconds is None else patience_seconds

    def step(self, name: str) -> None:
        """Enter a named step: a point at which a worker may stop, or die, and be done over.

        Raises:
            WorkerStopped: the request was changed or the daemon ends.
        """
        self.tools.cancellation.check()
        self.tools.log.debug("step reached", step=name)
        self._on_step(name)

    @cached_property
    def vmhost(self) -> VMHost:
        """The VM host's row.

        Raises:
            ReservationDataError: the computer is on none.
        """
        vmhost = self.reservation.computer.vmhost
        if vmhost is None:
            raise ReservationDataError(
                f"{self.reservation.computer.shortname} is on no VM host: assign one to it"
            )
        return vmhost

    @cached_property
    def session(self) -> Session:
        return Session(
            make_endpoint(
                self.vmhost, self.tools.settings, partial(self.tools.run, secrets.find_for)
            ),
            self.tools.cancellation,
            self.tools.log,
            patience_seconds=self._patience_seconds,
        )

    @cached_property
    def client(self) -> Client:
        return Client(self.session)

    @cached_property
    def inventory(self) -> Inventory:
        """The inventory as it was when it was first asked for, or after ``refresh``."""
        self._read_at = clock.monotonic()
        return read_inventory(self.client, self.vmhost)

    @cached_property
    def files(self) -> Files:
        limit = self.tools.settings.vsphere_copy_timeout_seconds
        return Files(self.client, self.inventory, copy_seconds=limit)

    @cached_property
    def machines(self) -> Machines:
        limit = self.tools.settings.vsphere_task_timeout_seconds
        return Machines(
            self.client, self.inventory, self.files, self.reservation, task_seconds=limit
        )

    @cached_property
    def masters(self) -> ImageFolder:
        return ImageFolder(self.files, self._resolve(self.vmhost.profile.datastorepath))

    @cached_property
    def repository(self) -> ImageFolder | None:
        """The repository as the host sees it; None when the profile names none there."""
        path = (self.vmhost.profile.repositorypath or "").strip()
        if not path or not self.inventory.has_datastore(path):
            return None
        return ImageFolder(self.files, self._resolve(path))

    @cached_property
    def local_repository(self) -> LocalFolder | None:
        """The repository on the management node; None when it is on the host, or nowhere."""
        path = (self.vmhost.profile.repositorypath or "").strip()
        if not path or self.inventory.has_datastore(path):
            return None
        return LocalFolder(self.files, Path(path))

    def find_stored(self, imagename: str) -> StoredImage | None:
        """The image in whichever repository there is."""
        place = self.repository or self.local_repository
        return place.find(imagename) if place is not None else None

    @property
    def space(self) -> Space:
        return Space(self.client, self.leases, self.tools)

    @property
    def vm_base(self) -> DatastorePath:
        profile = self.vmhost.profile
        return self._resolve(profile.vmpath or profile.datastorepath)

    @property
    def vm_folder(self) -> DatastorePath:
        return self.vm_base / naming.vm_folder_name(self.reservation)

    def datastore_of(self, path: DatastorePath) -> Datastore:
        return self.inventory.datastore(path.datastore)

    def master_lease(self, imagename: str) -> str:
        """What a copy, a removal and a capture of one master take in turns, on whatever host."""
        base = self.masters.base
        return lease_name("master", f"{self.datastore_of(base).url}/{base.path}/{imagename}")

    def use_name(self, imagename: str) -> str:
        """Under this name loads say that they are about to use a master."""
        return lease_name("use", self.master_lease(imagename))

    def refresh(self) -> None:
        """Read the inventory anew when it is next asked for."""
        for name in ("inventory", "files", "machines", "masters", "repository", "local_repository"):
            self.__dict__.pop(name, None)

    def freshen(self) -> None:
        """After a wait for somebody else: what was read before may be no more."""
        if clock.monotonic() - self._read_at > FRESH_SECONDS:
            self.refresh()

    def close(self) -> None:
        """Log out, if anybody logged in. Never raises."""
        session = self.__dict__.pop("session", None)
        if session is not None:
            session.close()
        self.__dict__.pop("client", None)
        self.refresh()

    def neighbour(self, vmhost: VMHost) -> Host:
        """Another VM host, for the same worker; the caller closes it.

        Without it there is less room, no more: nobody waits long for one that is away.
        """
        computer = dataclasses.replace(self.reservation.computer, vmhost=vmhost)
        reservation = dataclasses.replace(self.reservation, computer=computer)
        return Host(reservation, self.tools, patience_seconds=NEIGHBOUR_SECONDS)

    def limit(self, what: str, name: str, default: int) -> int:
        """A limit of the site: variable ``vmware|WHAT|NAME``, or ``vmware|WHAT`` for all."""
        for key in (f"vmware|{what}|{name}", f"vmware|{what}"):
            value = self.tools.variables(key)
            if value and value.strip().isdigit() and int(value) > 0:
                return int(value)
            if value and value.strip():
                self.tools.log.warning(
                    "a limit is no number, it does not count", variable=key, value=value
                )
        return default

    def _resolve(self, text: str) -> DatastorePath:
        try:
            path = parse(text)
        except ValueError as err:
            raise FatalProvisioningError(
                f"VM host profile {self.vmhost.profile.profilename!r} has the path {text!r}, which"
                " names no datastore; write [datastore] folder",
                blame=Blame.VMHOST,
            ) from err
        return DatastorePath(self.inventory.datastore(path.datastore).name, path.path)


def lease_name(kind: str, thing: str) -> str:
    """A lease's name; what is too long for its column is told apart by its digest."""
    name = f"{kind}:{thing}"
    if len(name) <= LONGEST_LEASE:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[: LONGEST_LEASE - len(digest) - 1]}~{digest}"
