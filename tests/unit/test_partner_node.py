"""Why a partner's ssh does not let us in: said as an operator can mend it. A real sshd answers."""

from __future__ import annotations

import dataclasses
import getpass
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import eventually
from tests.fake_xcat import FakeXcat
from tests.samples import make_node
from tests.xcat_alone import Bench
from vcld.errors import AuthenticationError, FatalProvisioningError
from vcld.provisioning.partner import PartnerNode
from vcld.store.partners import Partner

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
Make = Callable[[Path], PartnerNode]


def keygen(path: Path, passphrase: str = "") -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    if SSHD is None:
        pytest.fail("NOT TESTED: sshd is missing: apt-get install openssh-server")
    keygen(tmp_path / "host")
    keygen(tmp_path / "key")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path}/key.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with open(tmp_path / "log", "wb") as log:
        command = [SSHD, "-D", "-e", "-f", str(tmp_path / "config")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: b"listening" in (tmp_path / "log").read_bytes())
        with FakeXcat(tmp_path / "xcat") as xcat:
            tools = Bench(xcat, tmp_path).tools()
            partner = Partner(
                hostname="mn2", address="127.0.0.1", user=getpass.getuser(), port=port,
                installpath="/install",
            )  # fmt: skip

            def made(key: Path) -> PartnerNode:
                node = dataclasses.replace(make_node(), imagelibkey=str(key))
                return PartnerNode(tools, node, partner)

            yield made
    finally:
        process.terminate()
        process.wait(10)


def test_messages_of_the_partner_are_in_one_language(make: Make, tmp_path: Path) -> None:
    assert make(tmp_path / "key").ask(["printenv", "LC_ALL"], 20).out == "C\n"


@pytest.mark.parametrize("folder", ["two words", "100%", "%h", '"', "it's"])
def test_a_key_may_lie_in_a_folder_of_any_name(make: Make, tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir()
    shutil.copy(tmp_path / "key", place / "key")
    for _ in range(2):
        assert make(place / "key").ask(["echo", "a b"], 20).out == "a b\n"
    assert {path.name for path in place.iterdir()} == {"key", "key.known_hosts"}


def test_a_key_that_is_not_there_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        AuthenticationError, match=r"nokey cannot be used as a key \(.*No such file"
    ):
        make(tmp_path / "nokey").ask(["true"], 20)


def test_a_key_that_others_can_read_is_named_with_the_mode_it_needs(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(AuthenticationError, match=r"\(.*bad permissions\): .* mode 0600"):
        make(tmp_path / "key").ask(["true"], 20)


def test_a_key_with_a_passphrase_is_never_asked_for(make: Make, tmp_path: Path) -> None:
    keygen(tmp_path / "locked", "secret")
    with pytest.raises(AuthenticationError, match=r"refuses the key .*/locked: .* no passphrase"):
        make(tmp_path / "locked").ask(["true"], 20)


def test_a_host_key_that_cannot_be_kept_is_not_trusted(make: Make, tmp_path: Path) -> None:
    """Else each connection would be the first, and anybody could be the partner."""
    (tmp_path / "key.known_hosts").mkdir()
    with pytest.raises(FatalProvisioningError, match=r"of mn2 cannot be kept in .*known_hosts"):
        make(tmp_path / "key").ask(["true"], 20)
