"""Hosts of the accounting: VM hosts, and blades, which are their own."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vcld.accounting.codes import HostState
from vcld.accounting.facts import HostFacts
from vcld.accounting.tables import Tables


def load_host_ids(connection: Connection, tables: Tables) -> set[int]:
    """Ids of the hosts that are there."""
    return set(connection.scalars(sa.select(tables.host_pool.c.oid)))


def add_host(connection: Connection, tables: Tables, host: HostFacts) -> None:
    """Add a host that is not there yet; what it is, the next probe tells."""
    # Names are unique here, but in VCL a removed computer may have had the same.
    for name in (host.hostname, f"{host.hostname}#{host.oid}"):
        row = {
            "oid": host.oid,
            "host_name": name[:256],
            "state": int(HostState.INIT),
            "im_mad": host.provisioning,
            "vm_mad": host.provisioning,
            "tm_mad": host.provisioning,
            "cluster": "",
            "template": "<TEMPLATE></TEMPLATE>",
        }
        try:
            connection.execute(sa.insert(tables.host_pool).values(row))
            connection.execute(sa.insert(tables.host_shares).values(hid=host.oid))
        except IntegrityError:  # undoes the one statement, not the transaction
            known = sa.select(tables.host_pool.c.oid).where(tables.host_pool.c.oid == host.oid)
            if connection.scalar(known) is not None:
                return
        else:
            return
