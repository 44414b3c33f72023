"""A site whose computers are real hosts: rows of the database for hosts of tests/ssh_hosts.py."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from tests.daemon import eventually
from tests.site import IMAGE, OTHER_REVISION, REVISION, Site
from tests.ssh_hosts import Host, Network
from vcld.schema import models as m

#: What an image says about itself: the revision that the tests ask for.
TAGS = f"echo 'simulator-first-v1\nimagerevision_id={REVISION}' > /root/currentimage.txt"
OTHER_TAGS = (
    f"echo 'simulator-second-v1\nimagerevision_id={OTHER_REVISION}' > /root/currentimage.txt"
)


def use_linux(
    site: Site,
    network: Network,
    *hosts: Host,
    kind: str = "virtualmachine",
    os_module: str = "os_linux",
) -> None:
    """Let the site's first computers be these hosts, with Linux on them."""
    with site.engine.begin() as c:
        module = c.scalar(sa.select(m.Module.id).where(m.Module.name == os_module))
        c.execute(sa.update(m.OS).where(m.OS.name == "simulator").values(moduleid=module))
        c.execute(
            sa.update(m.ManagementNode).values({
                "keys": str(network.node_key), "IPaddress": network.node_address,
            })
        )  # fmt: skip
        for number, host in enumerate(hosts, start=1):
            c.execute(
                sa.update(m.Computer)
                .where(m.Computer.id == number)
                .values(
                    hostname=f"{host.name}.example.org",
                    privateIPaddress=host.private,
                    IPaddress=host.public or host.inside,
                    type=kind,
                    currentimageid=IMAGE,
                    imagerevisionid=REVISION,
                )
            )


def password_of(site: Site, requestid: int) -> str:
    """What the web site shows the user."""
    return str(site.scalar(f"SELECT pw FROM reservation WHERE requestid = {requestid}"))


def press_connect(site: Site, requestid: int, address: str) -> None:
    """The user presses Connect in a browser at this address."""
    site.execute(f"UPDATE reservation SET remoteIP = '{address}' WHERE requestid = {requestid}")


def until_reserved(site: Site, computerid: int, describe: Callable[[], str]) -> None:
    eventually(lambda: site.computer(computerid) == "reserved", describe, 60)


__all__ = ["IMAGE", "OTHER_TAGS", "TAGS", "password_of", "press_connect", "until_reserved",
           "use_linux"]  # fmt: skip
