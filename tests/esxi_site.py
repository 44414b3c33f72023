"""A site whose computers are VMs on vcsim; their guests are simulated ones.

A disk's content is the simulated guest's own document, so that what a computer holds after a
load is what really came from the master's disk.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from tests.esxi_vcsim import PASSWORD, USER, Machine, Vcsim
from tests.site import IMAGE, NEW_REVISION, OTHER_IMAGE, OTHER_REVISION, REVISION, Site
from vcld.schema import models as m

FIRST, SECOND = "simulator-first-v1", "simulator-second-v1"
CAPTURED = "simulator-first-v2"
MODES = ("esx", "vc")
GIB = 1 << 30


@dataclass
class EsxiSite(Site):
    """A site with VM hosts; ``esx``: stand-alone hosts, ``vc``: a vCenter with one cluster."""

    mode: str = "esx"
    hosts: int = 1
    servers: list[Vcsim] = field(default_factory=list)

    def build(self) -> EsxiSite:
        super().build()
        for path in (self.masters, self.repository, self.folder / "hardware"):
            path.mkdir(parents=True, exist_ok=True)
        for number in range(self.hosts):
            self.servers.append(self._start(number))
        self.write_vsphere()
        self._add_rows()
        for image in (FIRST, SECOND):
            self.store(self.repository, image)
        return self

    def _start(self, number: int) -> Vcsim:
        stores = {"local": self.folder / f"local{number}", "shared": self.folder / "shared"}
        return Vcsim(
            self.mode, stores, shared=["shared"], world=str(self.folder / "hardware")
        ).start()

    @property
    def masters(self) -> Path:
        return self.folder / "shared" / "masters"

    @property
    def repository(self) -> Path:
        return self.folder / "shared" / "repository"

    @property
    def vms(self) -> Path:
        return self.folder / "shared" / "vms"

    @property
    def vsphere_path(self) -> Path:
        return self.folder / "vsphere.yaml"

    @property
    def vcsim(self) -> Vcsim:
        return self.servers[0]

    def write_vsphere(self, **facts: Any) -> None:
        """Say where the VM hosts are, and what certificates they have."""
        hosts = {
            f"esx{number}.example.org": {
                "address": "127.0.0.1",
                "port": server.port,
                "thumbprint": server.facts["thumbprint"],
                **facts,
            }
            for number, server in enumerate(self.servers, start=1)
        }
        self.vsphere_path.write_text(json.dumps({"hosts": hosts}))

    def store(self, folder: Path, image: str, **facts: Any) -> Path:
        """Put an image where the Perl daemon, or an administrator, would have put it."""
        revisions = {FIRST: REVISION, CAPTURED: NEW_REVISION, SECOND: OTHER_REVISION}
        place = folder / image
        place.mkdir(parents=True)
        (place / f"{image}.vmdk").write_text("# Disk DescriptorFile\n")
        document = {"imagerevision_id": revisions.get(image), "disk": image, **facts}
        flat = place / f"{image}-flat.vmdk"
        flat.write_text(json.dumps(document))
        return flat

    def _add_rows(self) -> None:
        vmware = self.scalar("SELECT id FROM provisioning WHERE name = 'vmware'")
        vmdk = self.scalar("SELECT id FROM imagetype WHERE name = 'vmdk'")
        system = self.scalar("SELECT id FROM OS WHERE name = 'simulator'")
        with self.engine.begin() as c:
            profile = c.execute(
                sa.insert(m.VMProfile).values(
                    profilename="vcsim",
                    imageid=IMAGE,
                    datastorepath="[shared] masters",
                    vmpath="/vmfs/volumes/shared/vms",
                    repositorypath="shared/repository",
                    repositoryimagetypeid=vmdk,
                    datastoreimagetypeid=vmdk,
                    virtualswitch0="Private",
                    virtualswitch1="DC0_DVPG0" if self.mode == "vc" else "Public",
                    vmdisk="shared",
                    username=USER,
                    password=PASSWORD,
                    eth1generated=1,
                )
            ).inserted_primary_key
            assert profile is not None
            for number in range(1, self.hosts + 1):
                computer = 100 + number
                columns = {
                    "id": computer,
                    "hostname": f"esx{number}.example.org",
                    "stateid": self.catalog.state_id("vmhostinuse"),
                    "IPaddress": "192.0.2.200",
                    "type": "blade",
                    "RAM": 65536,
                    "provisioningid": vmware,
                    "datedeleted": "2000-01-01 00:00:00",
                }
                table = sa.table("computer", *(sa.column(name) for name in columns))
                c.execute(sa.insert(table).values(**columns))
                c.execute(
                    sa.insert(m.VMHost).values(
                        id=number, computerid=computer, vmprofileid=profile[0]
                    )
                )
            for number in range(1, self.computers + 1):
                c.execute(
                    sa.update(m.Computer)
                    .where(m.Computer.id == number)
                    .values(
                        provisioningid=vmware,
                        vmhostid=1 + (number - 1) % self.hosts,
                        eth0macaddress=f"00:50:56:00:00:{number:02x}",
                    )
                )
            c.execute(
                sa.update(m.Image)
                .where(m.Image.id.in_([IMAGE, OTHER_IMAGE]))
                .values(OSid=system, minram=1024, minprocnumber=2, size=100, imagetypeid=vmdk)
            )

    def use_local_repository(self) -> Path:
        """The profile's repository is a folder of the management node; FIRST is in it."""
        local = self.folder / "archive"
        local.mkdir()
        self.store(local, FIRST)
        self.execute(f"UPDATE vmprofile SET repositorypath = '{local}' WHERE profilename = 'vcsim'")
        return local

    def make_server(self, computer: int) -> int:
        """A server request for a computer, due now."""
        request = self.ask("new", computer, start=60)
        self.execute(f"INSERT INTO serverrequest (name, requestid) VALUES ('server', {request})")
        self.execute(f"UPDATE request SET start = NOW() WHERE id = {request}")
        return request

    def machines(self) -> dict[str, Machine]:
        """The VMs of all hosts by name."""
        found: dict[str, Machine] = {}
        for server in self.servers:
            found.update(server.machines())
        return found

    def leftovers(self) -> list[str]:
        """Names below the folders of masters and images that are no complete image."""
        return [
            path.name
            for folder in (self.masters, self.repository)
            for path in folder.iterdir()
            if ".vcld-" in path.name
        ]

    def content(self, folder: Path, image: str) -> Any:
        """What is on an image's disk."""
        return json.loads((folder / image / f"{image}-flat.vmdk").read_text())

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


def daemon_keys(site: EsxiSite) -> dict[str, Any]:
    """What the daemon of the site needs besides."""
    return {"vsphere_config": site.vsphere_path, "vsphere_patience": 20}


def make_site(engine: Engine, folder: Path, mode: str, **facts: Any) -> EsxiSite:
    """A site with vcsim running; the caller stops it."""
    site = EsxiSite(engine, folder, mode=mode, **facts)
    try:
        return site.build()
    except BaseException:
        site.stop()
        raise


__all__: Sequence[str] = ("MODES", "EsxiSite", "daemon_keys", "make_site")
