"""The rest of what is asked of a Linux computer, on real hosts."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from tests.ssh_guests import SSH, Bench, account, ready
from tests.ssh_hosts import Host, Login, Network
from tests.ssh_site import TAGS
from vcld.errors import RemoteError
from vcld.guest.interface import EndState


@pytest.fixture
def host(ssh_network: Network) -> Host:
    ssh_network.client("home", 201)
    return ssh_network.host("vm1")


def test_tags_are_kept_as_vcl_writes_them(ssh_network: Network) -> None:
    guest = Bench(ssh_network.host("vm1", prepare=TAGS)).guest()
    assert guest.tags().imagerevision_id == 21
    assert not guest.tags().post_load

    guest.tag_post_load()
    guest.tag_post_load()
    guest.tag_tainted("scripts ran")
    guest.tag_tainted("a user may have logged in")
    guest.tag_tainted("scripts ran")

    tags = guest.tags()
    assert (tags.imagerevision_id, tags.post_load) == (21, True)
    assert tags.tainted == "scripts ran, a user may have logged in"
    text = guest.remote.run("cat /root/currentimage.txt").output
    assert text.startswith("simulator-first-v1\nimagerevision_id=21\nvcld_post_load=success (20")
    assert text.count("vcld_") == 2


def test_computer_without_tags_says_so(host: Host) -> None:
    assert Bench(host).guest().tags().imagerevision_id is None


def test_post_load_makes_the_computer_ours(host: Host) -> None:
    host.sh("touch /root/.ssh/id_rsa /root/.ssh/id_rsa.pub; useradd -m -g users kept;"
            "mkdir -p /usr/local/vcl; printf '#!/bin/sh\\ntouch /ran\\nexit 3\\n' >"
            " /usr/local/vcl/vcl_post_load; chmod 755 /usr/local/vcl/vcl_post_load;"
            "echo root:known | chpasswd")  # fmt: skip
    before = host.sh("getent shadow root")
    bench = Bench(host)

    address = bench.guest().post_load()

    assert address == host.public
    assert bench.told == [("dynamicDHCPaddress", f"vm1 has the public address {host.public}")] or (
        not bench.told
    )
    assert host.sh("getent shadow root") != before
    assert host.sh("ls /root/.ssh") == "authorized_keys\nid_rsa.pub\n"
    assert host.sh("ls /ran") == "/ran\n"
    assert host.users() == ["kept"]
    assert f"ListenAddress {host.private}" in host.sh("cat /etc/ssh/sshd_config")
    assert "imagerevision_id=14" in host.sh("cat /root/currentimage.txt")


def test_computer_with_one_address_has_one_sshd_for_all(ssh_network: Network) -> None:
    host = ssh_network.host("vm1", networks=("private",))
    other = ssh_network.host("vm2", networks=("private",))
    guest = ready(host)

    guest.grant_access([SSH])

    # Password logins are allowed for accounts of reservations, and for nobody else.
    host.sh("useradd -m other; echo other:pw | chpasswd")
    other.sh("cat > /root/ask; chmod 700 /root/ask", check=False)
    (other.folder / "ask").write_text("#!/bin/sh\necho pw-of-ada\n")
    (other.folder / "ask").chmod(0o700)
    command = (
        "SSH_ASKPASS=/mnt/ask SSH_ASKPASS_REQUIRE=force setsid ssh -F none"
        " -o StrictHostKeyChecking=no -o LogLevel=ERROR -o NumberOfPasswordPrompts=1"
    )
    assert other.sh(f"{command} ada@{host.private} id -un") == "ada\n"
    assert other.sh(f"{command} other@{host.private} id -un", check=False) == ""


def test_user_is_found_by_socket_and_login(host: Host) -> None:
    host.network.client("elsewhere", 202)
    guest = ready(host)
    guest.grant_access([SSH])
    assert guest.find_connection("198.51.100.201", [SSH]) is None

    # At the password is not connected.
    waiting = Login(host.network, "home", "ada", host.public, "$(sleep 60)")
    time.sleep(0.5)
    assert guest.find_connection("198.51.100.201", [SSH]) is None
    waiting.end()

    session = Login(host.network, "elsewhere", "ada", host.public, "pw-of-ada")
    assert session.says("here") == "here"
    found = guest.find_connection("198.51.100.201", [SSH])
    assert found is not None
    assert (found.remote_ip, found.verified) == ("198.51.100.202", True)
    assert (
        guest.find_connection("198.51.100.201", [dataclasses.replace(SSH, disabled=True)]) is None
    )

    watched = Bench(host, variables={"ignored_remote_ip_addresses": "192.0.2.1, 198.51.100.202/31"})
    assert watched.guest().find_connection("198.51.100.201", [SSH]) is None
    session.end()


def test_console_notice_reaches_who_is_logged_in(host: Host) -> None:
    guest = ready(host)
    guest.grant_access([SSH])

    guest.notify_console("The reservation ends in 5 minutes.")


def test_soft_reboot_comes_back_on_a_new_connection(host: Host) -> None:
    bench = Bench(host)
    guest = bench.guest()
    guest.post_load()
    before = host.sh("cat /proc/sys/kernel/random/boot_id")

    guest.reboot(hard=False)

    assert host.sh("cat /proc/sys/kernel/random/boot_id") != before
    assert bench.switched == []
    assert guest.is_responding()


def test_hard_reboot_resets_a_computer_that_does_not_answer(host: Host) -> None:
    bench = Bench(host, settings={"ssh_connect_timeout_seconds": 1})
    guest = bench.guest()
    guest.post_load()
    host.sh("pkill -STOP -x sshd")

    guest.reboot(hard=True)

    assert bench.switched == ["reset"]
    assert guest.is_responding()


def test_shutdown_ends_with_the_computer_off(host: Host) -> None:
    bench = Bench(host)

    bench.guest().shutdown()

    assert not host.is_on
    assert bench.switched == []
    bench.guest().shutdown()


def test_computer_that_does_not_stop_is_switched_off(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcld.guest.by_ssh.RESTART_SECONDS", 1)
    host.sh("rm /usr/sbin/shutdown")
    bench = Bench(host)

    bench.guest().shutdown()

    assert bench.switched == ["off"]
    assert not host.is_on


def test_capture_leaves_nothing_of_computer_user_or_site(host: Host) -> None:
    bench = Bench(host)
    guest = ready(host)
    guest.grant_access([SSH])
    guest.tag_tainted("a user may have logged in")
    host.sh("echo secret > /root/.bash_history; echo line >> /var/log/syslog;"
            "echo root:known | chpasswd")  # fmt: skip

    bench.guest().pre_capture(EndState.ON)

    assert host.users() == []
    assert host.sh(
        "ls /etc/ssh; cat /etc/ssh/sshd_config; ls /root/.bash_history", check=False
    ) == (host.sh("ls /etc/ssh; cat /etc/ssh/sshd_config"))
    assert "ssh_host" not in host.sh("ls /etc/ssh")
    assert "ListenAddress" not in host.sh("cat /etc/ssh/sshd_config")
    assert host.sh("getent shadow root | cut -d: -f2") == "*\n"
    assert host.sh("cat /var/log/syslog /etc/machine-id") == ""
    assert host.sh("cat /root/.ssh/authorized_keys").startswith("ssh-ed25519 ")
    tags = guest.tags()
    assert (tags.imagerevision_id, tags.post_load, tags.tainted) == (14, False, "")
    # Another computer starts from the image: it has keys of its own and lets a node in.
    host.restart()
    bench.host_keys.clear()
    assert host.network.reaches("home", host.public)
    assert bench.guest().post_load() == host.public
    assert not host.network.reaches("home", host.public)


def test_capture_can_leave_the_computer_off(host: Host) -> None:
    Bench(host).guest().pre_capture(EndState.OFF)

    assert not host.is_on


def test_fault_48_new_host_key_is_right_after_a_load_and_wrong_without(host: Host) -> None:
    bench = Bench(host)
    bench.guest().post_load()
    host.change_key()

    guest = bench.guest()
    with pytest.raises(RemoteError, match="it is another computer"):
        guest.tags()

    guest.expect_new_system()
    guest.post_load()
    assert bench.guest().tags().imagerevision_id == 14


def test_static_address_is_set_and_kept(host: Host) -> None:
    node = {"publicIPconfiguration": "static", "publicSubnetMask": "255.255.255.128",
            "publicDefaultGateway": "198.51.100.1", "publicDNSserver": "192.0.2.53"}  # fmt: skip
    bench = Bench(host, node=node)
    bench.change = lambda made: dataclasses.replace(
        made, computer=dataclasses.replace(made.computer, IPaddress="198.51.100.77")
    )

    for _ in range(2):
        assert bench.guest().post_load() is None

    shown = host.sh("ip -o -4 addr show dev eth1; ip route show default")
    assert "198.51.100.77/25" in shown
    assert "198.51.100.11/24" not in shown
    assert "default via 198.51.100.1 dev eth1" in shown
    assert "198.51.100.77/25" in host.sh("cat /etc/network/interfaces.d/vcld")
    assert "ListenAddress 198.51.100.77" in host.sh("cat /etc/ssh/external_sshd_config")


def test_static_address_that_another_computer_has_is_refused(host: Host) -> None:
    other = host.network.host("vm2")
    bench = Bench(host, node={"publicIPconfiguration": "static"})
    bench.change = lambda made: dataclasses.replace(
        made, computer=dataclasses.replace(made.computer, IPaddress=other.public)
    )

    with pytest.raises(RemoteError, match=f"address {other.public} is used by another computer"):
        bench.guest().post_load()


def test_scripts_of_the_site_run_on_computer_and_node(host: Host, tmp_path: Path) -> None:
    root = tmp_path / "tools"
    for where, text in (
        ("Linux", "#!/bin/sh\necho ran > /var/on-computer\nexit 5\n"),
        ("ManagementNode", f"#!/bin/sh\ncp \"$1\" '{tmp_path}/facts.json'\n"),
    ):
        folder = root / where / "Scripts" / "post_reserve"
        folder.mkdir(parents=True)
        (folder / "10 script").write_text(text)
        (folder / "10 script").chmod(0o755)
    bench = Bench(host, settings={"stage_scripts_dir": str(root)})
    bench.variables["userdata|88"] = "it's $(data)\nof two lines"

    assert bench.guest().post_reserve()

    assert host.sh("cat /var/on-computer") == "ran\n"
    assert host.sh("ls /root") == ""
    assert host.sh("cat /root/.vclcontrol/post_reserve_userdata") == "it's $(data)\nof two lines"
    facts = (tmp_path / "facts.json").read_text()
    assert '"hostname": "vm1.example.edu"' in facts
    assert "s3cret-pw" not in facts
    assert not Bench(host).guest().post_reserve()


def test_reserve_takes_one_round_trip(host: Host) -> None:
    guest = Bench(host).guest()
    guest.post_load()
    before = guest.remote.commands

    guest.reserve([account()])
    reserve = guest.remote.commands - before
    guest.grant_access([SSH])
    grant = guest.remote.commands - before - reserve
    guest.sanitize([])
    sanitize = guest.remote.commands - before - reserve - grant

    assert (reserve, grant, sanitize) == (1, 1, 1)
