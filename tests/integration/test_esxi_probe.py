"""ESXi hosts and their VMs in the accounting, by the real daemon, MariaDB and vcsim.

vcsim's statistics never change by themselves: those that the tests name are put in by hand.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests import esxi_fixtures
from tests.accounts import Accounts
from tests.daemon import Daemons, eventually
from tests.esxi_site import FIRST, EsxiSite, daemon_keys
from tests.esxi_vcsim import PASSWORD
from vcld.accounting.codes import HostState
from vcld.schema import models as m

mode, hosts, site = esxi_fixtures.mode, esxi_fixtures.hosts, esxi_fixtures.site
daemons = esxi_fixtures.daemons
GIB, KIB_OF_GIB, MIB_OF_GIB = 1 << 30, 1 << 20, 1 << 10
#: vcsim's hosts: two cores of 2294 MHz, 4,193,780 KiB.
CORE_MHZ, CORES, MEMORY_KIB = 2294, 2, 4193780
ESX1, ESX2 = 101, 102


@pytest.fixture(autouse=True)
def managed(site: EsxiSite) -> None:
    """The node keeps account of hosts that it may use."""
    site.let_every_node_manage_all()


def share(accounts: Accounts, hid: int) -> Any:
    return next((row for row in accounts.rows("host_shares") if row.hid == hid), None)


def state(accounts: Accounts, hid: int) -> int | None:
    rows = (row.state for row in accounts.rows("host_pool") if row.oid == hid)
    return next(rows, None)


@esxi_fixtures.both_modes
def test_accounting_has_what_the_host_and_its_vms_say(
    site: EsxiSite, daemons: Daemons, accounts: Accounts
) -> None:
    """Vcsim's vCenter has one cluster of two such hosts, which VCL knows as one VM host."""
    number = 2 if site.mode == "vc" else 1
    daemon = daemons.start(**daemon_keys(site))
    site.vcsim.free_space(shared=100 * GIB)
    request = site.ask("new", 1)
    (oid,) = site.reservations(request)
    eventually(lambda: site.computer(1) == "reserved", daemon.describe)
    site.vcsim.statistics("", mhz=CORE_MHZ // 2, mib=1000)
    site.vcsim.statistics("vm1_", mhz=CORE_MHZ // 4, mib=700)

    eventually(lambda: (vm := accounts.vm(oid)) and vm.memory == 700 * 1024, daemon.describe)

    assert accounts.vm(oid).cpu == 25
    assert accounts.vm(oid).deploy_id == f"vm1_{FIRST}"
    eventually(lambda: share(accounts, ESX1).used_mem == number * 1000 * 1024, daemon.describe)
    found = share(accounts, ESX1)
    assert (found.max_cpu, found.used_cpu) == (number * CORES * 100, number * 50)
    assert found.free_cpu == found.max_cpu - found.used_cpu
    assert found.max_mem == number * MEMORY_KIB
    assert found.free_mem == found.max_mem - found.used_mem
    assert found.free_disk == 100 * MIB_OF_GIB
    assert found.max_disk - found.used_disk == found.free_disk
    assert found.running_vms == 1
    assert state(accounts, ESX1) == HostState.MONITORED
    assert accounts.breaches() == []
    eventually(lambda: site.vcsim.expire_sessions() <= 1)  # none but one that measures just now


@pytest.mark.parametrize("hosts", [2], indirect=True)
@pytest.mark.parametrize(
    ("silence", "reason"),
    [
        ("delay", "no answer within 2 s"),
        ("cut", "closed connection without response"),
        ("503", "Service Unavailable"),
    ],
)
def test_host_that_does_not_answer_is_stale_within_its_limit_and_the_others_are_measured(
    site: EsxiSite, daemons: Daemons, accounts: Accounts, silence: str, reason: str
) -> None:
    daemon = daemons.start(**{**daemon_keys(site), "accounting_probe_timeout": 2})
    both = [HostState.MONITORED] * 2
    eventually(lambda: [state(accounts, hid) for hid in (ESX1, ESX2)] == both, daemon.describe)
    site.vcsim.rules({"method": "*", "action": silence, "seconds": 30})

    eventually(lambda: state(accounts, ESX1) == HostState.ERROR, daemon.describe, 15)

    (told, *_) = daemon.events("host could not be measured", computer="esx1.example.org")
    assert told["reason"].endswith(reason)
    assert state(accounts, ESX2) in {HostState.MONITORED, HostState.MONITORING}
    polled = site.scalar("SELECT last_mon_time FROM host_pool WHERE oid = 102")
    eventually(lambda: site.scalar("SELECT last_mon_time FROM host_pool WHERE oid = 102") > polled)
    site.vcsim.rules()
    eventually(lambda: state(accounts, ESX1) == HostState.MONITORED, daemon.describe)


def test_wrong_password_is_told_of_without_it(
    site: EsxiSite, daemons: Daemons, accounts: Accounts
) -> None:
    site.execute("UPDATE vmprofile SET password = 'hush-hush' WHERE profilename = 'vcsim'")
    daemon = daemons.start(**daemon_keys(site))

    eventually(lambda: state(accounts, ESX1) == HostState.ERROR, daemon.describe)

    (told, *_) = daemon.events("host could not be measured", computer="esx1.example.org")
    assert "refuses the user root" in told["reason"]
    assert "hush-hush" not in daemon.log_path.read_text()


def seal(site: EsxiSite, folder: Path) -> Path:
    """Let the web site have encrypted the host's password; the node's private key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = folder / "node.key"
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(key.private_bytes(*pem, serialization.NoEncryption()))
    path.chmod(0o600)
    aes, vector = bytes(range(32)), bytes(range(16))
    padder = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(aes), modes.CBC(vector)).encryptor()
    sealed = vector + cipher.update(padder.update(PASSWORD.encode()) + padder.finalize())
    oaep = rsa_padding.OAEP(
        mgf=rsa_padding.MGF1(algorithm=hashes.SHA1()), algorithm=hashes.SHA1(), label=None
    )
    for_node = base64.b64encode(key.public_key().encrypt(aes, oaep)).decode()
    with site.engine.begin() as c:
        keyid = c.execute(
            sa.insert(m.CryptKey).values(
                hostid=1, hosttype="managementnode", pubkey="-", algorithm="RSA",
                algorithmoption="OAEP", keylength=2048,
            )
        ).inserted_primary_key  # fmt: skip
        assert keyid is not None
        c.execute(
            sa.insert(m.CryptSecret).values(
                cryptkeyid=keyid[0], secretid=5, cryptsecret=for_node, algorithm="AES",
                algorithmoption="CBC", keylength=256,
            )
        )  # fmt: skip
        text = base64.b64encode(sealed + cipher.finalize()).decode()
        c.execute(
            sa.update(m.VMProfile)
            .where(m.VMProfile.profilename == "vcsim")
            .values(password=text, secretid=5)
        )
    return path


def test_password_that_the_web_site_encrypted_serves_loads_and_measuring(
    site: EsxiSite, daemons: Daemons, accounts: Accounts, tmp_path: Path
) -> None:
    key = seal(site, tmp_path)
    daemon = daemons.start(**daemon_keys(site), crypt_key=key)

    eventually(lambda: state(accounts, ESX1) == HostState.MONITORED, daemon.describe)
    eventually(lambda: share(accounts, ESX1).max_mem == MEMORY_KIB, daemon.describe)
    request = site.ask("reload", 1)
    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    assert site.computer(1) == "available", daemon.describe()
    assert PASSWORD not in daemon.log_path.read_text()
