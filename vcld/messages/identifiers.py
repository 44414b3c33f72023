"""Names that a message may hold in square brackets, and where their values are.

The names are those of VCL's data accessors and, beside them, every plain column of the
snapshot with the prefix of its table. Secrets have no name, so no message can show one.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from vcld import snapshot
from vcld.snapshot import Reservation

#: Prefix of the names, where the object is in a reservation, and what it is.
_TABLES: tuple[tuple[str, str, type], ...] = (
    ("reservation", "", snapshot.Reservation),
    ("request", "request", snapshot.Request),
    ("server_request", "request.server", snapshot.ServerRequest),
    ("user", "request.user", snapshot.User),
    ("user_affiliation", "request.user.affiliation", snapshot.Affiliation),
    ("image", "image", snapshot.Image),
    ("imagemeta", "image.meta", snapshot.ImageMeta),
    ("imagerevision", "imagerevision", snapshot.ImageRevision),
    ("computer", "computer", snapshot.Computer),
    ("nathost", "computer.nathost", snapshot.NATHost),
    ("vmhost", "computer.vmhost", snapshot.VMHost),
    ("management_node", "managementnode", snapshot.ManagementNode),
    ("managementnode", "managementnode", snapshot.ManagementNode),
)
_PLAIN = frozenset({"str", "int", "bool", "None", "dt.datetime"})
#: A long list of keys helps nobody in a message.
_NEVER = frozenset({"sshpublickeys"})

#: VCL's accessors whose names differ from ours. A ``perl_package`` is the module's name here.
_ACCESSORS = {
    "computer_current_image_id": "computer.currentimageid",
    "computer_eth0_mac_address": "computer.eth0macaddress",
    "computer_eth1_mac_address": "computer.eth1macaddress",
    "computer_host_name": "computer.hostname",
    "computer_imagerevision_id": "computer.imagerevisionid",
    "computer_ip_address": "computer.IPaddress",
    "computer_networking_speed": "computer.network",
    "computer_nextimage_id": "computer.nextimageid",
    "computer_node_name": "computer.node_name",
    "computer_predictive_module_name": "computer.predictive_module",
    "computer_predictive_module_perl_package": "computer.predictive_module",
    "computer_private_ip_address": "computer.privateIPaddress",
    "computer_processor_count": "computer.procnumber",
    "computer_processor_speed": "computer.procspeed",
    "computer_provisioning_module_name": "computer.provisioning_module",
    "computer_provisioning_module_perl_package": "computer.provisioning_module",
    "computer_provisioning_module_pretty_name": "computer.provisioning_module",
    "computer_provisioning_name": "computer.provisioning",
    "computer_provisioning_pretty_name": "computer.provisioning",
    "computer_public_ip_address": "computer.IPaddress",
    "computer_ram": "computer.ram_mib",
    "computer_short_name": "computer.shortname",
    "computer_state_name": "computer.state",
    "computer_vmhost_id": "computer.vmhost.id",
    "helpaddress": "request.user.affiliation.helpaddress",
    "image_minram": "image.minram_mib",
    "image_name": "imagerevision.imagename",
    "image_os_install_type": "image.os_installtype",
    "image_os_module_name": "image.os_module",
    "image_os_module_perl_package": "image.os_module",
    "image_os_module_pretty_name": "image.os_module",
    "image_os_source_path": "image.os_sourcepath",
    "image_os_type_name": "image.os_type",
    "image_reload_time": "image.reloadtime_minutes",
    "image_size": "image.size_mib",
    "image_size_old": "image.size_mib",
    "imagerevision_date_created": "imagerevision.datecreated",
    "imagetype_name": "image.imagetype",
    "is_cluster_request": "is_cluster",
    "is_parent_reservation": "is_parent",
    "is_server_request": "request.is_server",
    "management_node_image_lib_enable": "managementnode.imagelibenable",
    "management_node_image_lib_user": "managementnode.imagelibuser",
    "management_node_install_path": "managementnode.installpath",
    "management_node_public_default_gateway": "managementnode.publicDefaultGateway",
    "management_node_public_dns_server": "managementnode.publicDNSserver",
    "management_node_public_ip_configuration": "managementnode.publicIPconfiguration",
    "management_node_public_subnet_mask": "managementnode.publicSubnetMask",
    "management_node_shared_email_box": "managementnode.sharedMailBox",
    "management_node_short_name": "managementnode.shortname",
    "management_node_ssh_port": "managementnode.sshport",
    "management_node_state_name": "managementnode.state",
    "management_node_sysadmin_email": "managementnode.sysadminEmailAddress",
    "nathost_internal_ip_address": "computer.nathost.internalIPaddress",
    "nathost_public_ip_address": "computer.nathost.publicIPaddress",
    "request_duration_epoch": "request.duration_seconds",
    "request_end_time": "request.end",
    "request_laststate_name": "request.laststate",
    "request_log_id": "request.logid",
    "request_preload_only": "preload_only",
    "request_requested_time": "request.daterequested",
    "request_start_time": "request.start",
    "request_state_name": "request.state",
    "reservation_lastcheck_time": "lastcheck",
    "reservation_remote_ip": "remoteIP",
    "server_request_fixed_ip": "request.server.fixedIP",
    "server_request_fixed_mac": "request.server.fixedMAC",
    "sitewwwaddress": "request.user.affiliation.sitewwwaddress",
    "user_login_id": "request.user.unityid",
    "user_use_public_keys": "request.user.usepublickeys",
    "vmhost_computer_id": "computer.vmhost.computerid",
    "vmhost_image_id": "computer.vmhost.profile.imageid",
    "vmhost_image_name": "computer.vmhost.profile.image_name",
    "vmhost_profile_datastore_path": "computer.vmhost.profile.datastorepath",
    "vmhost_profile_folder_path": "computer.vmhost.profile.folderpath",
    "vmhost_profile_id": "computer.vmhost.profile.id",
    "vmhost_profile_image_id": "computer.vmhost.profile.imageid",
    "vmhost_profile_name": "computer.vmhost.profile.profilename",
    "vmhost_profile_repository_path": "computer.vmhost.profile.repositorypath",
    "vmhost_profile_resource_path": "computer.vmhost.profile.resourcepath",
    "vmhost_profile_vmdisk": "computer.vmhost.profile.vmdisk",
    "vmhost_profile_vmpath": "computer.vmhost.profile.vmpath",
}

#: Facts that a handler adds to those of the reservation.
GIVEN = frozenset({"acknowledge_minutes", "notice_interval"})
_SYNONYMS = {"request_notice_interval": "notice_interval"}


def canonical(name: str) -> str:
    """The one spelling of an identifier: no case, no ``get_`` (specification §11.3)."""
    name = name.lower().removeprefix("get_")
    return _SYNONYMS.get(name, name)


def is_known(name: str) -> bool:
    """Whether a message may hold this identifier."""
    return canonical(name) in KNOWN


def identifiers(reservation: Reservation) -> dict[str, str]:
    """The text of every identifier. What the reservation has not, such as a VM host, is empty."""
    facts = {name: _text(_follow(reservation, path)) for name, path in PATHS.items()}
    return facts | {name: _text(reckon(reservation)) for name, reckon in _RECKONED.items()}


def _first_name(reservation: Reservation) -> str:
    user = reservation.request.user
    return user.firstname or user.login


def _preferred_name(reservation: Reservation) -> str:
    return reservation.request.user.preferredname or _first_name(reservation)


def _host_short_name(reservation: Reservation) -> str:
    host = reservation.computer.vmhost
    return host.hostname.partition(".")[0] if host else ""


_RECKONED: dict[str, Callable[[Reservation], object]] = {
    "image_capture_type": lambda it: (
        "checkpoint" if it.request.state == "checkpoint" else "capture"
    ),
    "pid": lambda _: os.getpid(),
    "request_reservation_count": lambda it: max(1, len(it.siblings)),
    "user_firstname": _first_name,
    "user_preferred_name": _preferred_name,
    "user_preferredname": _preferred_name,
    "vmhost_short_name": _host_short_name,
}


def _column_paths() -> dict[str, str]:
    return {
        f"{prefix}_{item.name.lower()}": f"{path}.{item.name}".lstrip(".")
        for prefix, path, table in _TABLES
        for item in fields(table)
        if item.repr and item.name not in _NEVER and _is_plain(str(item.type))
    }


def _is_plain(annotation: str) -> bool:
    return set(annotation.split(" | ")) <= _PLAIN


def _follow(value: Any, path: str) -> Any:
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return value.replace(microsecond=0).isoformat(" ")
    return str(value)


#: Where the value of an identifier is in a reservation.
PATHS = MappingProxyType(_column_paths() | _ACCESSORS)
KNOWN = frozenset(PATHS) | frozenset(_RECKONED) | GIVEN
