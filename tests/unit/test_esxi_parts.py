"""Parts of the ESXi provisioner that need no host: paths, passwords, configurations, names."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pyVmomi import vim, vmodl

from tests.samples import make_reservation, make_vmhost
from vcld.config import Settings
from vcld.errors import (
    BackendUnavailableError,
    Blame,
    ConfigError,
    FatalProvisioningError,
    ProvisioningError,
)
from vcld.provisioning.esxi import (
    credentials,
    descriptor,
    faults,
    marker,
    naming,
    placing,
    rights,
    space,
    spec,
    usage,
    vmx,
)
from vcld.provisioning.esxi.endpoint import make_endpoint
from vcld.provisioning.esxi.files import FileFacts
from vcld.provisioning.esxi.host import lease_name
from vcld.provisioning.esxi.images import StoredImage
from vcld.provisioning.esxi.inventory import Datastore, Inventory
from vcld.provisioning.esxi.marker import Hardware, Marker
from vcld.provisioning.esxi.paths import DatastorePath, parse
from vcld.snapshot import VMProfile

SECRET = "the host's pässword"
OAEP = rsa_padding.OAEP(
    mgf=rsa_padding.MGF1(algorithm=hashes.SHA1()), algorithm=hashes.SHA1(), label=None
)


def nothing(_secretid: int, _fqdn: str) -> None:
    """A database without secrets."""


def password_of(profile: VMProfile, stored: str | None = None, **keys: Any) -> str:
    settings = Settings(fqdn="mn1.example.edu", **keys)
    return credentials.password_of(profile, settings, lambda _secretid, _fqdn: stored)


@pytest.mark.parametrize(
    "text",
    ["/vmfs/volumes/store1/a/b", "[store1] a/b", "[store1]a/b/", "store1/a/b", "store1//a/b"],
)
def test_path_is_read_in_every_way_that_sites_write_it(text: str) -> None:
    assert parse(text) == DatastorePath("store1", "a/b")
    assert str(parse(text)) == "[store1] a/b"


@pytest.mark.parametrize("text", ["", "  ", "store1/../x", "[store1] a/../../b", "/"])
def test_path_that_names_no_datastore_or_leads_out_of_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        parse(text)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_path(key: rsa.RSAPrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "mn.key"
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    path.write_bytes(pem)
    return path


def test_plain_password_is_taken_as_it_is() -> None:
    assert password_of(make_vmhost().profile) == "host-pw"


def test_password_encrypted_for_an_rsa_key_is_read(key: rsa.RSAPrivateKey, key_path: Path) -> None:
    sealed = key.public_key().encrypt(SECRET.encode(), OAEP).hex()
    profile = dataclasses.replace(
        make_vmhost().profile, password=None, encryptedpasswd=sealed, rsakey=str(key_path)
    )

    assert password_of(profile) == SECRET


def test_password_with_a_secretid_is_read(key: rsa.RSAPrivateKey, key_path: Path) -> None:
    aes, vector = bytes(range(32)), bytes(range(16))
    padder = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(aes), modes.CBC(vector)).encryptor()
    padded = padder.update(SECRET.encode()) + padder.finalize()
    sealed = base64.b64encode(vector + cipher.update(padded) + cipher.finalize()).decode()
    stored = base64.b64encode(key.public_key().encrypt(aes, OAEP)).decode()
    profile = dataclasses.replace(make_vmhost().profile, password=sealed, secretid=4)

    assert password_of(profile, stored, crypt_key=str(key_path)) == SECRET

    with pytest.raises(FatalProvisioningError, match="has not encrypted it for mn1") as caught:
        password_of(profile, None, crypt_key=str(key_path))
    assert caught.value.blame is Blame.MANAGEMENT_NODE
    assert sealed not in str(caught.value)


def test_password_for_another_key_is_told_of_without_it(key_path: Path) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    sealed = other.public_key().encrypt(SECRET.encode(), OAEP).hex()
    profile = dataclasses.replace(
        make_vmhost().profile, password=None, encryptedpasswd=sealed, rsakey=str(key_path)
    )

    with pytest.raises(FatalProvisioningError, match="does not fit the key"):
        password_of(profile)


def test_password_shows_in_no_text_of_an_endpoint() -> None:
    endpoint = make_endpoint(make_vmhost(), Settings(), nothing)

    assert endpoint.password == "host-pw"
    assert "host-pw" not in repr(endpoint)
    assert (endpoint.address, endpoint.port) == ("192.0.2.11", 443)
    assert endpoint.certificate_name == "esx1.example.edu"


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({"hosts": {"esx1": {"thumbprint": "abc"}}}, "64 hex digits"),
        ({"hosts": {"esx1": {"insecure": True}}}, "unknown key 'insecure'"),
        ([], "must hold 'hosts:'"),
        ({"hosts": {"esx1": "192.0.2.1"}}, "'esx1.example.edu' must hold keys and values"),
        ({"all": ["x"]}, "'all' must hold keys and values"),
        ({"hosts": {"esx1": {"port": "https"}}}, "port of esx1.example.edu is 'https'"),
    ],
)
def test_file_of_hosts_that_cannot_be_meant_is_refused(
    data: Any, wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "vsphere.yaml"
    path.write_text(json.dumps(data) if data else "- a\n")

    with pytest.raises(ConfigError, match=wrong):
        make_endpoint(make_vmhost(), Settings(vsphere_config=str(path)), nothing)


@pytest.mark.parametrize("data", [b"hosts: [a, b\n", b"hosts: \xff\n"])
def test_file_of_hosts_that_is_not_yaml_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vsphere.yaml"
    path.write_bytes(data)

    with pytest.raises(ConfigError, match=r"vsphere.yaml is not YAML: .") as raised:
        make_endpoint(make_vmhost(), Settings(vsphere_config=str(path)), nothing)

    assert "\n" not in str(raised.value)


def test_key_of_the_file_of_hosts_without_a_value_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vsphere.yaml"
    path.write_text("hosts:\n  esx1:\n    ca_file:\n    thumbprint:\n    port: 8443\n")

    endpoint = make_endpoint(make_vmhost(), Settings(vsphere_config=str(path)), nothing)

    assert (endpoint.ca_file, endpoint.thumbprint, endpoint.port) == ("", "", 8443)


def test_reference_file_of_the_perl_daemon_is_read() -> None:
    text = (
        '#!/usr/bin/vmware\nguestOS = "rhel7-64"\nscsi0.virtualDev = "pvscsi"\n'
        'ethernet0.virtualDev="vmxnet3"\nvirtualHW.version = "9"\nfirmware = "efi"\n'
    )

    assert vmx.hardware_of(text) == Hardware(
        guest_id="rhel7_64Guest",
        controller="ParaVirtualSCSIController",
        card="VirtualVmxnet3",
        firmware="efi",
        version="vmx-09",
    )
    assert vmx.guest_id_of("windows9srv-64") == "windows9Server64Guest"
    assert vmx.hardware_of("") == Hardware()


@pytest.mark.parametrize(
    "hardware",
    [
        Hardware(
            guest_id="rhel7_64Guest",
            controller="ParaVirtualSCSIController",
            card="VirtualVmxnet3",
            firmware="efi",
            version="vmx-13",
        ),
        Hardware(guest_id="windows9Server64Guest", controller="VirtualIDEController"),
        Hardware(guest_id="otherGuest64", card="VirtualPCNet32", version="vmx-07"),
        Hardware(),
    ],
)
def test_reference_file_that_is_made_up_says_what_is_known(hardware: Hardware) -> None:
    assert vmx.hardware_of(vmx.text_of("rhel7-base9-v3", hardware)) == hardware


def test_names_of_leases_fit_their_column_and_stay_apart() -> None:
    short, long, other = "ds:///a", "ds:///" + "x" * 300, "ds:///" + "x" * 299 + "y"

    assert lease_name("master", short) == "master:ds:///a"
    names = {lease_name("master", long), lease_name("use", long), lease_name("master", other)}
    assert len(names) == 3
    assert {len(name) for name in names} == {190}


@pytest.mark.parametrize(
    ("facts", "shared"),
    [
        ({"summary.multipleHostAccess": True}, True),
        # A vCenter speaks for its own hosts only.
        ({"summary.multipleHostAccess": False}, True),
        ({"summary.multipleHostAccess": False, "info": vim.host.LocalDatastoreInfo()}, False),
        ({}, True),
        ({"info": vim.host.NasDatastoreInfo()}, True),
        ({"info": vim.host.VmfsDatastoreInfo(vmfs=vim.host.VmfsVolume())}, True),
        ({"info": vim.host.VmfsDatastoreInfo(vmfs=vim.host.VmfsVolume(local=True))}, False),
        ({"info": vim.host.LocalDatastoreInfo()}, False),
    ],
)
def test_datastore_of_which_nobody_says_that_it_is_private_counts_as_shared(
    facts: dict[str, Any], shared: bool
) -> None:
    """Made by hand: vcsim tells of every datastore who sees it, stand-alone hosts do not."""
    assert placing.is_shared(facts) is shared


def test_desktop_windows_gets_two_sockets_at_most() -> None:
    image = dataclasses.replace(make_reservation().image, minprocnumber=8)

    assert spec.processors(image, "windows9_64Guest", 16) == (8, 4)
    assert spec.processors(image, "rhel7_64Guest", 16) == (8, 1)
    assert spec.processors(image, "rhel7_64Guest", 4) == (4, 1)


def test_guest_comes_from_the_image_or_else_from_its_os() -> None:
    image = make_reservation().image

    assert spec.guest_id(image, Hardware(guest_id="sles12_64Guest")) == "sles12_64Guest"
    assert spec.guest_id(image, Hardware()) == "otherLinux64Guest"
    centos = dataclasses.replace(image, os_name="vmwarecentos7")
    assert spec.guest_id(centos, Hardware()) == "centos64Guest"


@pytest.mark.parametrize(("wanted", "given"), [(1023, 1020), (2, 4), (0, 512)])
def test_memory_is_a_multiple_of_four(wanted: int, given: int) -> None:
    image = dataclasses.replace(make_reservation().image, minram_mib=wanted)

    assert spec.memory_mib(image) == given


def test_folders_belong_to_the_computer_of_their_name_only() -> None:
    computer = make_reservation().computer

    assert naming.is_folder_of(computer, "vm1_9-v3")
    assert naming.is_folder_of(computer, "vm1_9-v3_old")
    for other in ("vm10_9-v3", "vm1", "vm1_base", "rhel7-base9-v3", "myvm1_9-v3"):
        assert not naming.is_folder_of(computer, other), other


def test_marker_tells_a_damaged_image() -> None:
    made = Marker(image="a", files={"a.vmdk": 10})
    read = marker.from_text(made.to_text(), "[x] a")
    assert read == made
    read.check("[x] a", {"a.vmdk": FileFacts(size_bytes=10)})

    with pytest.raises(FatalProvisioningError, match="has 9 bytes instead of 10") as caught:
        read.check("[x] a", {"a.vmdk": FileFacts(size_bytes=9)})
    assert caught.value.blame is Blame.IMAGE
    with pytest.raises(FatalProvisioningError, match="has no bytes instead of 10"):
        read.check("[x] a", {})
    # Written by a host, which lists a disk as one; here are its descriptor and its data.
    apart = {"a.vmdk": FileFacts(size_bytes=1), "a-flat.vmdk": FileFacts(size_bytes=10)}
    read.check("[x] a", apart)
    for text in ("", "[]", '{"image": 1}'):
        with pytest.raises(FatalProvisioningError, match="cannot be read"):
            marker.from_text(text, "[x] a")


@pytest.mark.parametrize(
    ("fault", "kind", "blame"),
    [
        (vmodl.fault.HostNotConnected(), BackendUnavailableError, Blame.VMHOST),
        (vim.fault.NoDiskSpace(), ProvisioningError, Blame.VMHOST),
        (vim.fault.NoPermission(), FatalProvisioningError, Blame.VMHOST),
        (vim.fault.GenericVmConfigFault(), ProvisioningError, Blame.COMPUTER),
        (vim.fault.InsufficientCpuResourcesFault(), ProvisioningError, Blame.VMHOST),
        (vim.fault.InvalidState(), ProvisioningError, Blame.VMHOST),  # in maintenance mode
        (vim.fault.InaccessibleDatastore(), ProvisioningError, Blame.VMHOST),
        (vim.fault.CannotAccessNetwork(), ProvisioningError, Blame.VMHOST),
        (vim.fault.CannotAccessFile(), ProvisioningError, Blame.VMHOST),
        (
            # How an ESXi host tells of a start whose swap file does not fit.
            vim.fault.GenericVmConfigFault(
                faultMessage=[
                    vmodl.LocalizableMessage(
                        key="msg.vmk.status.VMK_NO_SPACE", message="No space left on device"
                    )
                ]
            ),
            ProvisioningError,
            Blame.VMHOST,
        ),
    ],
)
def test_only_faults_of_the_vm_blame_the_computer(fault: Any, kind: type, blame: Blame) -> None:
    made = faults.translate(fault, "vm1 cannot be started", Blame.COMPUTER)

    assert type(made) is kind
    assert made.blame is blame
    assert str(made).startswith("vm1 cannot be started: ")


def test_host_says_below_the_fault_why_a_vm_does_not_start() -> None:
    """Hand-made after what ESXi hosts answer; vcsim has no such messages."""
    fault = vim.fault.GenericVmConfigFault(
        faultMessage=[vmodl.LocalizableMessage(message="Module 'DevicePowerOn' power on failed.")]
    )
    fault.msg = "An error occurred while powering on the VM."

    text = str(faults.translate(fault, "vm1 cannot be started", Blame.COMPUTER))

    assert text.endswith("powering on the VM. Module 'DevicePowerOn' power on failed.")


@pytest.mark.parametrize(
    ("guestos", "guest_id"),
    [
        ("fedora-64", "fedora64Guest"),
        ("other3xlinux-64", "other3xLinux64Guest"),
        ("windows2019srvnext-64", "windows2019srvNext_64Guest"),
        ("winvista", "winVistaGuest"),
        ("oraclelinux7-64", "oracleLinux7_64Guest"),
        ("rhel7-64", "rhel7_64Guest"),
        ("windows9srv-64", "windows9Server64Guest"),
        ("noidea", ""),
    ],
)
def test_guest_of_a_reference_file_is_one_that_the_api_knows(guestos: str, guest_id: str) -> None:
    assert vmx.guest_id_of(guestos) == guest_id


def test_hardware_of_a_reference_file_is_never_older_than_its_devices() -> None:
    assert vmx.hardware_of('virtualHW.version = "4"\n').version == "vmx-07"
    assert vmx.hardware_of('virtualHW.version = "13"\n').version == "vmx-13"


def test_datastore_has_one_url_whoever_is_asked() -> None:
    """As stand-alone hosts and vCenters write it."""
    assert placing.common_url("/vmfs/volumes/54343bd3-39a8") == "ds:///vmfs/volumes/54343bd3-39a8/"
    assert (
        placing.common_url("ds:///vmfs/volumes/54343bd3-39a8/")
        == "ds:///vmfs/volumes/54343bd3-39a8/"
    )
    assert placing.common_url("/tmp/store") == "/tmp/store"


def test_host_whose_profile_names_a_datastore_by_its_id_may_share_it() -> None:
    store = Datastore(
        ref=None, name="nfs", url="ds:///vmfs/volumes/2da3986c-a152ca17/", capacity_bytes=0,
        free_bytes=0, accessible=True, shared=True, browser=None,
    )  # fmt: skip
    profile = make_vmhost().profile

    assert not usage.may_share(profile, store)
    for path in ("/vmfs/volumes/2da3986c-a152ca17/masters", "[nfs] masters", "/"):
        assert usage.may_share(dataclasses.replace(profile, vmpath=path), store)


def cluster(*, drs: bool, memory_mib: Sequence[int]) -> tuple[placing.Place, dict[Any, Any]]:
    """A cluster's properties, made by hand: that of vcsim always has DRS."""
    hosts = tuple(vim.HostSystem(f"host-{number}") for number, _ in enumerate(memory_mib))
    store, compute = vim.Datastore("ds-1"), vim.ClusterComputeResource("c-1")
    nets = [vim.Network("n-1"), vim.Network("n-2")]
    found: dict[Any, Any] = {
        store: {"name": "data"},
        nets[0]: {"name": "Private"},
        nets[1]: {"name": "Public"},
        compute: {
            "configurationEx": vim.cluster.ConfigInfoEx(
                drsConfig=vim.cluster.DrsConfigInfo(enabled=drs)
            )
        },
    }
    for host, mib in zip(hosts, memory_mib, strict=True):
        memory = {"summary.hardware.memorySize": mib << 20}
        found[host] = {"datastore": [store], "network": nets, **memory}
    place = placing.Place(pool=None, compute=compute, center=None, hosts=hosts, alive=hosts)
    return place, found


def test_cluster_with_drs_chooses_the_host_itself() -> None:
    profile = make_vmhost().profile
    place, found = cluster(drs=True, memory_mib=[1024, 1024])

    assert placing.choose_host(found, place, profile) is None


def test_cluster_without_drs_is_told_a_host_that_sees_datastores_and_networks() -> None:
    profile = make_vmhost().profile
    place, found = cluster(drs=False, memory_mib=[1024, 1024, 1024, 1024])
    first, second, third, fourth = place.hosts
    found[first]["datastore"] = []
    found[fourth]["network"] = found[fourth]["network"][:1]
    found[third]["summary.quickStats.overallMemoryUsage"] = 1024

    chosen = [placing.choose_host(found, place, profile) for _ in range(200)]

    assert not {first, fourth} & set(chosen)
    assert chosen.count(second) > chosen.count(third)


def test_disk_of_the_node_s_repository_is_known_by_its_descriptor() -> None:
    text = '# Disk DescriptorFile\nRW 4192256 SPARSE "a-s001.vmdk"\nRW 2048 SPARSE "a-s002.vmdk"\n'

    assert descriptor.capacity_kib(text) == (4192256 + 2048) // 2
    assert [one.file_bytes for one in descriptor.extents_of(text)] == [None, None]
    assert descriptor.extents_of('RW 8 VMFS "a-flat.vmdk"\n')[0].file_bytes == 4096
    assert descriptor.capacity_kib("# Disk DescriptorFile\n") is None


def configured(version: str, *, nests: bool = True) -> Any:
    """The configuration of a VM whose image was captured with hardware of that version."""
    inventory = Inventory(
        datacenter=None, datacenter_path="", folder=None, pool=None, host=None, cores=8, browser=None,
        nests=nests, datastores={}, networks={}, machines=(),
    )  # fmt: skip
    master = StoredImage(
        name="a", folder=DatastorePath("ds", "a"), files={}, hardware=Hardware(version=version)
    )
    folder = DatastorePath("ds", "vm1_2-v1")
    disk = spec.own_disk(folder, 1024)
    return spec.make_config(make_reservation(), inventory, folder, master, disk, [])


def test_vm_may_run_hypervisors_where_host_and_hardware_can() -> None:
    """As the Perl daemon's could; vcsim's hosts cannot."""
    assert configured("vmx-13").nestedHVEnabled
    assert configured("").nestedHVEnabled
    assert not configured("vmx-07").nestedHVEnabled
    assert not configured("vmx-13", nests=False).nestedHVEnabled


def test_rights_are_asked_for_where_the_server_wants_them() -> None:
    """Made by hand: vcsim grants whatever it is asked for."""
    folder, store = vim.Folder("f-1"), vim.Datastore("ds-1")
    given = {folder: set(rights.OF_VMS), store: {"Datastore.Browse"}}

    class Manager:
        def HasPrivilegeOnEntity(self, ref: Any, _key: str, names: list[str]) -> list[bool]:  # noqa: N802
            return [name in given.get(ref, set(rights.OF_POOL)) for name in names]

    client: Any = SimpleNamespace(
        content=SimpleNamespace(authorizationManager=Manager(), sessionManager=None),
        read_one=lambda _ref, _path: {"currentSession": SimpleNamespace(key="k")},
    )
    data = Datastore(
        ref=store, name="data", url="", capacity_bytes=0, free_bytes=0, accessible=True,
        shared=False, browser=None,
    )  # fmt: skip
    inventory = Inventory(
        datacenter=None, datacenter_path="", folder=folder, pool=vim.ResourcePool("p-1"),
        host=None, browser=None, cores=8, datastores={"data": data}, networks={}, machines=(),
    )  # fmt: skip

    text, ok = rights.check(client, inventory, make_vmhost(), clones=False)

    assert not ok
    assert text == "lacks Datastore.AllocateSpace, Datastore.FileManagement on datastore data"


def test_mac_address_is_read_however_it_is_written() -> None:
    computer = dataclasses.replace(
        make_reservation().computer, vmhost=make_vmhost(), eth1macaddress=None
    )

    for text in ("00:50:56:00:00:0A", "00-50-56-00-00-0a", "0050.5600.000a"):
        one = dataclasses.replace(computer, eth0macaddress=text)
        assert naming.mac_addresses(one) == ("00:50:56:00:00:0a", None)
    wrong = dataclasses.replace(computer, eth0macaddress="00:50:56")
    with pytest.raises(FatalProvisioningError, match=r"eth0macaddress of computer .* no MAC"):
        naming.mac_addresses(wrong)


def test_space_that_is_needed_is_never_called_nothing() -> None:
    assert space._gib(1) == "0.1 GiB"
    assert space._gib(2 << 30) == "2.0 GiB"
