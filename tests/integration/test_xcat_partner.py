"""An image that only a partner management node has: fetched over a real sshd, and loaded."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon import daemons_for, eventually
from tests.site import Site
from tests.xcat_blades import Blades, blades_for

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
NAME = "simulator-first-v1"


@dataclass
class PartnerHost:
    """The sshd of a partner, on a port of its own."""

    folder: Path
    port: int
    key: Path


@pytest.fixture
def partner(tmp_path: Path) -> Iterator[PartnerHost]:
    if SSHD is None:
        pytest.fail("NOT TESTED: sshd is missing: apt-get install openssh-server")
    folder = tmp_path / "partner"
    folder.mkdir()
    for name in ("host", "imagelib"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "authorized").write_text((folder / "imagelib.pub").read_text())
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "config")], stdout=log, stderr=log
        )
    try:
        eventually(lambda: b"listening" in (folder / "log").read_bytes())
        yield PartnerHost(folder, port, folder / "imagelib")
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def blades(
    two_nodes: Site, database_url: str, tmp_path: Path, partner: PartnerHost
) -> Iterator[Blades]:
    """Blades of node 1; node 2 has the image, node 1 does not."""
    site = two_nodes
    images = partner.folder / "install/image/x86_64"
    images.mkdir(parents=True)
    (images / f"{NAME}-sda1.gz").write_bytes(b"disk" * 500_000)
    (images / f"{NAME}.sfdisk").write_bytes(b"table")
    with daemons_for(site, database_url) as daemons:
        with blades_for(site, daemons, tmp_path / "xcat") as made:
            made.xcat.osimages.clear()
            made.xcat.has_old_forms = True
            site.execute(
                "UPDATE managementnode SET imagelibenable = 1, imagelibgroupid ="
                " (SELECT id FROM resourcegroup WHERE name = 'all of type managementnode'),"
                f" imagelibkey = '{partner.key}'"
            )
            site.execute(
                f"UPDATE managementnode SET IPaddress = '127.0.0.1', sshport = {partner.port},"
                f" imagelibuser = '{getpass.getuser()}',"
                f" installpath = '{partner.folder}/install' WHERE id = 2"
            )
            yield made


def test_the_image_is_fetched_and_loaded(blades: Blades, partner: PartnerHost) -> None:
    site = blades.site
    daemon = blades.start()
    site.ask("new", 1)
    eventually(lambda: site.computer(1) in {"reserved", "failed"}, daemon.describe)
    assert site.computer(1) == "reserved", daemon.describe()
    assert blades.node().disk == NAME
    assert daemon.events("load state", loadstate="copyfrompartnerMN")
    for path in (partner.folder / "install/image/x86_64").iterdir():
        copy = blades.xcat.images / path.name
        assert copy.read_bytes() == path.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o644
    assert len(list(blades.xcat.images.iterdir())) == 2


def test_a_refused_key_fails_the_request_and_not_the_blade(
    blades: Blades, partner: PartnerHost
) -> None:
    site = blades.site
    (partner.folder / "authorized").write_text("")
    daemon = blades.start()
    request = site.ask("reload", 1)
    ends = eventually(lambda: daemon.events("work ended", request_id=request), daemon.describe)
    assert f"refuses the key {partner.key}" in ends[0]["reason"]
    assert site.computer(1) == "available"
    assert list(blades.xcat.images.iterdir()) == []
