"""Secrets that the web site encrypted for a management node (provisioning specification §1.4)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vcld.schema.models import CryptKey, CryptSecret, ManagementNode


def find_for(connection: Connection, secretid: int, fqdn: str) -> str | None:
    """The secret's AES key, encrypted for the node's own RSA key, in base64."""
    return connection.scalar(
        sa.select(CryptSecret.cryptsecret)
        .join(CryptKey, CryptKey.id == CryptSecret.cryptkeyid)
        .join(ManagementNode, ManagementNode.id == CryptKey.hostid)
        .where(
            CryptSecret.secretid == secretid,
            CryptKey.hosttype == "managementnode",
            ManagementNode.hostname == fqdn,
        )
    )
