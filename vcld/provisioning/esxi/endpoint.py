"""Where a VM host's API is, how its certificate is checked, and who logs in.

``vsphere_config`` names a YAML file; without an entry there the API is looked for on port 443
of the VM host's own address, and its certificate must come from an authority that the system
knows. There is no way to leave the check out: a host with a certificate of its own is pinned
by its thumbprint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vcld.config import Settings
from vcld.errors import Blame, ConfigError, FatalProvisioningError
from vcld.provisioning.esxi import credentials
from vcld.snapshot import VMHost

HTTPS_PORT = 443
KNOWN_KEYS = frozenset({"address", "port", "thumbprint", "ca_file", "certificate_name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An ESXi host or a vCenter."""

    #: Host name of the VM host's row, for messages.
    name: str
    address: str
    port: int = HTTPS_PORT
    username: str
    password: str = field(repr=False)
    #: SHA-256 of the certificate in hex digits; empty: an authority vouches for it.
    thumbprint: str = ""
    #: PEM file of that authority; empty: those that the system knows.
    ca_file: str = ""
    #: The name that the certificate must bear.
    certificate_name: str = ""


def make_endpoint(
    vmhost: VMHost, settings: Settings, find_secret: credentials.FindSecret
) -> Endpoint:
    """Put together what is known of a VM host's API.

    Raises:
        ConfigError: the file cannot be used.
        FatalProvisioningError: the profile has no user name or password that can be read.
    """
    facts = _entry(settings.vsphere_config, vmhost.hostname)
    profile = vmhost.profile
    if not profile.username:
        raise FatalProvisioningError(
            f"VM host profile {profile.profilename!r} has no user name for {vmhost.hostname}",
            blame=Blame.VMHOST,
        )
    return Endpoint(
        name=vmhost.hostname,
        address=str(facts.get("address") or "") or vmhost.privateIPaddress or vmhost.IPaddress,
        port=int(facts.get("port", HTTPS_PORT)),
        username=profile.username,
        password=credentials.password_of(profile, settings, find_secret),
        thumbprint=re.sub(r"[:\s]", "", str(facts.get("thumbprint", ""))).lower(),
        ca_file=str(facts.get("ca_file", "")),
        certificate_name=str(facts.get("certificate_name", vmhost.hostname)),
    )


def _entry(path: str, hostname: str) -> Mapping[str, Any]:
    """What the file says of the host: its own entry over the common one."""
    if not path:
        return {}
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as err:
        raise ConfigError(f"key vsphere_config: {path} cannot be read: {err.strerror}") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        why = " ".join(str(err).split())
        raise ConfigError(f"key vsphere_config: {path} is not YAML: {why}") from err
    hosts = data.get("hosts") or {} if isinstance(data, dict) else None
    if not isinstance(hosts, dict):
        raise ConfigError(f"key vsphere_config: {path} must hold 'hosts:' and a name for each")
    short = hostname.partition(".")[0]
    own = hosts.get(hostname) or hosts.get(short) or {}
    common = data.get("all") or {}
    for name, part in (("all", common), (hostname, own)):
        if not isinstance(part, dict):
            raise ConfigError(
                f"key vsphere_config: {path}: {name!r} must hold keys and values, such as"
                f" 'address: 192.0.2.1'; there are {', '.join(sorted(KNOWN_KEYS))}"
            )
    # A key without a value says nothing.
    facts = {name: value for name, value in {**common, **own}.items() if value is not None}
    unknown = sorted(set(facts) - KNOWN_KEYS)
    if unknown:
        raise ConfigError(
            f"key vsphere_config: {path}: {hostname} has the unknown key {unknown[0]!r};"
            f" there are {', '.join(sorted(KNOWN_KEYS))}"
        )
    port = str(facts.get("port", HTTPS_PORT))
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            f"key vsphere_config: {path}: the port of {hostname} is {port!r}, not a number"
        )
    thumbprint = re.sub(r"[:\s]", "", str(facts.get("thumbprint", "")))
    if thumbprint and not re.fullmatch(r"[0-9a-fA-F]{64}", thumbprint):
        raise ConfigError(
            f"key vsphere_config: {path}: the thumbprint of {hostname} is not the 64 hex digits"
            " of a SHA-256 sum ('openssl x509 -noout -fingerprint -sha256')"
        )
    return facts
