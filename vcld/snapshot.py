"""What a worker may know about its reservation: one read-only picture of the rows.

Field names are the database's column names. A snapshot is loaded by ``vcld.store`` and
handed to handlers, provisioners and guests; it never changes and holds no connection.
Datetimes are naive, in the time zone of the database session; lengths of time that
matter come from the database as seconds, so that nobody subtracts across clocks.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Affiliation:
    id: int
    name: str
    helpaddress: str | None = None
    sitewwwaddress: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: int
    unityid: str
    affiliation: Affiliation
    firstname: str = ""
    lastname: str = ""
    preferredname: str | None = None
    email: str = ""
    emailnotices: bool = False
    #: The numeric user id on Linux; user.id + 500 where the site sets none (specification §2.5).
    uid: int = 0
    #: True when the site's own directory knows the account (managementnode.NOT_STANDALONE).
    federated: bool = False
    usepublickeys: bool = False
    sshpublickeys: str | None = None

    @property
    def login(self) -> str:
        """The account name: the unityid up to an ``@``."""
        return self.unityid.partition("@")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One person's account on the reserved computer."""

    user: User
    root_access: bool
    #: None when the person logs in with a directory's or a key's credentials only.
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeta:
    checkuser: bool = True
    subimages: bool = False
    sysprep: bool = True
    rootaccess: bool = True
    sethostname: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    id: int
    name: str
    prettyname: str
    ownerid: int | None
    imagetype: str
    os_name: str
    os_type: str
    os_installtype: str
    os_sourcepath: str | None
    #: module.name of the guest plugin, such as ``os_linux``; None when the OS row has none.
    os_module: str | None
    architecture: str
    project: str
    minram_mib: int
    minprocnumber: int
    minprocspeed: int
    minnetwork: int
    reloadtime_minutes: int
    size_mib: int
    meta: ImageMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRevision:
    id: int
    imageid: int
    revision: int
    imagename: str
    production: bool
    deleted: bool
    datecreated: dt.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VMProfile:
    id: int
    profilename: str
    imageid: int
    #: imagename and guest module of the image that stands for the host's own system.
    image_name: str | None
    os_module: str | None
    resourcepath: str | None
    folderpath: str | None
    repositorypath: str | None
    repositoryimagetype: str | None
    datastorepath: str
    datastoreimagetype: str | None
    vmpath: str | None
    virtualswitches: tuple[str | None, str | None, str | None, str | None]
    vmdisk: str
    username: str | None
    password: str | None = field(default=None, repr=False)
    secretid: int | None = None
    rsapub: str | None = field(default=None, repr=False)
    rsakey: str | None = field(default=None, repr=False)
    encryptedpasswd: str | None = field(default=None, repr=False)
    eth0generated: bool = False
    eth1generated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VMHost:
    id: int
    computerid: int
    hostname: str
    IPaddress: str
    privateIPaddress: str | None
    state: str
    profile: VMProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class NATHost:
    id: int
    publicIPaddress: str
    internalIPaddress: str | None
    #: The computer that is the NAT host; None when it is a management node.
    computerid: int | None = None
    hostname: str | None = None
    privateIPaddress: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Computer:
    id: int
    hostname: str
    state: str
    type: str
    IPaddress: str
    privateIPaddress: str | None
    eth0macaddress: str | None
    eth1macaddress: str | None
    ram_mib: int
    procnumber: int
    procspeed: int
    network: int
    currentimageid: int
    imagerevisionid: int
    nextimageid: int
    provisioning: str
    #: module.name of the provisioner, such as ``provisioning_vmware``.
    provisioning_module: str
    predictive_module: str
    vmhost: VMHost | None = None
    nathost: NATHost | None = None

    @property
    def shortname(self) -> str:
        return self.hostname.partition(".")[0]

    @property
    def node_name(self) -> str:
        """The name VCL uses: the full host name for lab computers, else the short one."""
        return self.hostname if self.type == "lab" else self.shortname


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementNode:
    id: int
    hostname: str
    IPaddress: str
    state: str
    checkininterval_seconds: int
    installpath: str
    imagelibenable: bool
    imagelibgroupid: int | None
    imagelibuser: str | None
    imagelibkey: str | None
    #: Paths of the private keys that open the computers, in the order to try.
    keys: tuple[str, ...]
    sshport: int
    publicIPconfiguration: str
    publicSubnetMask: str | None
    publicDefaultGateway: str | None
    publicDNSserver: str | None
    sysadminEmailAddress: str | None
    sharedMailBox: str | None
    #: Names of the affiliations whose accounts live in a directory.
    not_standalone: tuple[str, ...] = ()

    @property
    def shortname(self) -> str:
        return self.hostname.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    id: int
    name: str
    fixedIP: str | None
    fixedMAC: str | None
    admingroupid: int | None
    logingroupid: int | None
    monitored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    id: int
    #: The pair as it was when the reservation was claimed (never ``pending``).
    state: str
    laststate: str
    logid: int | None
    user: User
    forimaging: bool
    test: bool
    preload: bool
    #: False when the user's presence is not to be checked: by the row, for servers, or for
    #: reservations of 24 hours and more (specification §2.5).
    checkuser: bool
    start: dt.datetime | None
    end: dt.datetime | None
    daterequested: dt.datetime | None
    #: end - start.
    duration_seconds: int
    server: ServerRequest | None = None

    @property
    def is_server(self) -> bool:
        return self.server is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """A reservation of the same request, this one included."""

    id: int
    computerid: int
    managementnodeid: int
    hostname: str
    privateIPaddress: str | None
    IPaddress: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A reservation with all that hangs on it."""

    id: int
    request: Request
    computer: Computer
    image: Image
    imagerevision: ImageRevision
    managementnode: ManagementNode
    remoteIP: str | None = None
    pw: str | None = field(default=None, repr=False)
    lastcheck: dt.datetime | None = None
    #: True when the load is only to prepare the computer for a later start.
    preload_only: bool = False
    #: Every reservation of the request by ascending id, this one included.
    siblings: tuple[Sibling, ...] = ()

    @property
    def is_cluster(self) -> bool:
        return len(self.siblings) > 1

    @property
    def is_parent(self) -> bool:
        """True for the lowest reservation id, which alone writes the request's state."""
        return not self.siblings or self.id == self.siblings[0].id


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectMethod:
    id: int
    name: str
    description: str
    connecttext: str
    servicename: str | None
    startupscript: str | None
    disabled: bool
    #: (port, "TCP" or "UDP") pairs.
    ports: tuple[tuple[int, str], ...]
    #: For a computer behind a NAT host: (public port there, the computer's port, protocol).
    nat_ports: tuple[tuple[int, int, str], ...] = ()
