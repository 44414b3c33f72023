"""The rest of what is asked of a Linux computer, on real hosts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ssh_guests import SSH, Bench, account, ready
from tests.ssh_hosts import Host, Login, Network, wait_for_port
from tests.ssh_site import TAGS
from vcld.errors import Blame, RemoteError
from vcld.guest.interface import EndState
from vcld.guest.linux import stages
from vcld.snapshot import Reservation


def with_address(address: str) -> Callable[[Reservation], Reservation]:
    """The public address that the database has for the computer."""
    return lambda made: dataclasses.replace(
        made, computer=dataclasses.replace(made.computer, IPaddress=address)
    )


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
    assert bench.told == []  # it is the address that the database has
    assert host.sh("getent shadow root") != before
    assert host.sh("ls /root/.ssh") == "authorized_keys\nid_rsa.pub\n"
    assert host.sh("ls /ran") == "/ran\n"
    assert host.users() == ["kept"]
    assert f"ListenAddress {host.private}" in host.sh("cat /etc/ssh/sshd_config")
    assert "imagerevision_id=14" in host.sh("cat /root/currentimage.txt")


def test_address_that_is_not_the_databases_is_told_of(host: Host) -> None:
    bench = Bench(host, change=with_address("198.51.100.99"))

    assert bench.guest().post_load() == host.public

    assert bench.told == [("dynamicDHCPaddress", f"vm1 has the public address {host.public}")]


@pytest.mark.parametrize(
    "lines",
    ["PasswordAuthentication yes\nKbdInteractiveAuthentication yes", "AllowGroups root staff"],
)
def test_computer_with_one_address_has_one_sshd_for_all(ssh_network: Network, lines: str) -> None:
    host = ssh_network.host("vm1", networks=("private",))
    host.sh("sed -i '/^PasswordA/d; /^Kbd/d' /etc/ssh/sshd_config;"
            f" printf '%s\\n' '{lines}' >> /etc/ssh/sshd_config;"
            " /etc/init.d/ssh restart > /dev/null 2>&1 < /dev/null")  # fmt: skip
    wait_for_port(host.private)
    other = ssh_network.host("vm2", networks=("private",))
    guest = ready(host)

    guest.grant_access([SSH])

    # Password logins are allowed for accounts of reservations, and for nobody else.
    host.sh("useradd -m -G staff other; echo other:pw-of-ada | chpasswd")
    other.sh("cat > /root/ask; chmod 700 /root/ask", check=False)
    (other.folder / "ask").write_text("#!/bin/sh\necho pw-of-ada\n")
    (other.folder / "ask").chmod(0o700)
    command = (
        "SSH_ASKPASS=/mnt/ask SSH_ASKPASS_REQUIRE=force setsid ssh -F none"
        " -o StrictHostKeyChecking=no -o LogLevel=ERROR -o NumberOfPasswordPrompts=1"
    )
    assert other.sh(f"{command} ada@{host.private} id -un") == "ada\n"
    assert other.sh(f"{command} other@{host.private} id -un", check=False) == ""


def test_image_whose_one_sshd_keeps_users_out_is_told_of(ssh_network: Network) -> None:
    host = ssh_network.host("vm1", networks=("private",))
    host.sh("echo 'AllowUsers root' >> /etc/ssh/sshd_config")

    with pytest.raises(RemoteError, match="AllowUsers") as caught:
        Bench(host).guest().post_load()

    assert caught.value.blame is Blame.NOBODY


def test_user_is_found_by_socket_and_login(host: Host) -> None:
    host.network.client("elsewhere", 202)
    guest = ready(host)
    guest.grant_access([SSH])
    assert guest.find_connection("198.51.100.201", [SSH]) is None

    # At the password is not connected.
    waiting = Login(host.network, "home", "ada", host.public, "pw-of-ada", thinks="exec sleep 60")
    deadline = time.monotonic() + 20
    while "[priv]" not in host.sh("ps axww -o args") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "ESTAB" in host.sh(f"ss -Htn src {host.public}")
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
    session = Login(
        host.network, "home", "ada", host.public, "pw-of-ada", terminal=True,
        command="tty; echo ready; cat",
    )  # fmt: skip
    assert "/dev/pts/" in session.hears("ready")

    guest.notify_console("The reservation ends in 5 minutes.\x1b[2J$(id)")

    text = session.hears("$(id)")
    assert "The reservation ends in 5 minutes." in text
    assert "\x1b[2J" not in text
    session.end()


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
            "echo root:known | chpasswd; mkdir -p /root/.ssh; touch /tmp/.hidden /root/.ssh/id_rsa")  # fmt: skip

    bench.guest().pre_capture(EndState.ON)

    assert host.users() == []
    assert host.sh("ls -A /tmp; ls /root/.ssh") == "authorized_keys\n"
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
    bench = Bench(host, node=node, change=with_address("198.51.100.77"))

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
    bench = Bench(host, node={"publicIPconfiguration": "static"}, change=with_address(other.public))

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


@pytest.mark.parametrize("mode", ["static", "manualDHCP"])
@pytest.mark.parametrize(
    "address", ["198.51.100.7; touch /trap", "$(touch /trap)", "198.51.100.7\nPermitRootLogin yes"]
)
def test_fault_30_address_of_a_row_that_is_none_reaches_no_shell(
    host: Host, mode: str, address: str
) -> None:
    bench = Bench(host, node={"publicIPconfiguration": mode}, change=with_address(address))

    with pytest.raises(RemoteError, match="public address of vm1, is no IPv4 address") as caught:
        bench.guest().post_load()

    assert caught.value.blame is Blame.MANAGEMENT_NODE
    assert "trap" not in host.sh("ls /")


def test_fixed_address_of_the_old_ones_network_stays_when_the_old_one_goes(host: Host) -> None:
    """The kernel removes, with an address, the later ones of its network."""
    node = {"publicIPconfiguration": "static", "publicDefaultGateway": "198.51.100.1"}
    bench = Bench(host, node=node, change=with_address("198.51.100.77"))

    bench.guest().post_load()

    shown = host.sh("ip -o -4 addr show dev eth1 | awk '{print $4}'; ip route show default")
    assert shown == "198.51.100.77/24\ndefault via 198.51.100.1 dev eth1 \n"
    assert bench.told == [("staticIPaddress", "vm1 has the fixed address 198.51.100.77")]


def test_fixed_address_comes_back_by_ifupdown_and_goes_from_an_image(
    ssh_network: Network,
) -> None:
    interfaces = "auto lo\niface lo inet loopback\n\nallow-hotplug eth1\niface eth1 inet manual\n"
    interfaces += "    up ip link set eth1 up\niface eth1 inet6 auto\n"
    host = ssh_network.host(
        "vm1",
        prepare=f"rm -rf /etc/network/interfaces.d/*; printf '{interfaces}' > /etc/network/interfaces\n"
        "ln -s ../init.d/networking /etc/rcS.d/S06networking",
    )
    node = {"publicIPconfiguration": "static", "publicDefaultGateway": "198.51.100.1"}
    bench = Bench(host, node=node, change=with_address("198.51.100.77"))
    for _ in range(2):
        bench.guest().post_load()

    # The real ifquery reads it; of the image's own stanza nothing but IPv6 is left.
    shown = host.sh("ifquery eth1")
    assert "address: 198.51.100.77" in shown
    assert "gateway: 198.51.100.1" in shown
    assert "up: " not in shown
    host.sh("ip addr flush dev eth1; ip link set eth1 down")
    host.restart()
    assert "198.51.100.77/24" in host.sh("ip -o -4 addr show dev eth1")
    assert "default via 198.51.100.1" in host.sh("ip route show default")

    bench.guest().pre_capture(EndState.ON)

    assert host.sh("cat /etc/network/interfaces").startswith(interfaces)
    assert host.sh("ls /etc/network/interfaces.d") == ""


def test_configuration_of_sshd_is_what_old_sshd_take(ssh_network: Network) -> None:
    """Before OpenSSH 8.5 a comment after a word was an error."""
    for name, networks in (("two", ("private", "public")), ("one", ("private",))):
        host = ssh_network.host(name, networks=networks)
        guest = ready(host)
        text = host.sh("cat /etc/ssh/sshd_config")

        assert [line for line in text.splitlines() if "#" in line and line[0] != "#"] == []
        assert "Added by vcld" in text
        guest.reserve([account()])
        assert host.sh("cat /etc/ssh/sshd_config") == text


def test_lines_of_an_older_vcld_in_the_configuration_of_sshd_go(host: Host) -> None:
    host.sh("echo 'ListenAddress 10.0.0.1 # Added by vcld' >> /etc/ssh/sshd_config")

    ready(host)

    text = host.sh("grep -i listen /etc/ssh/sshd_config")
    assert text == f"ListenAddress {host.private}\n"


def test_data_of_a_reservation_is_not_for_the_next_user(host: Host) -> None:
    bench = Bench(host, variables={"userdata|88": "token=secret"})
    guest = bench.guest()
    guest.post_load()
    guest.reserve([account()])
    guest.post_reserve()
    guest.update_cluster()
    assert "secret" in host.sh("cat /root/.vclcontrol/post_reserve_userdata")

    guest.sanitize([])

    assert host.sh("ls /root/.vclcontrol /etc/cluster_info", check=False) == "/root/.vclcontrol:\n"


def test_files_of_a_user_in_tmp_do_not_stop_or_mislead_root(host: Host) -> None:
    guest = ready(host)
    host.sh("echo precious > /root/precious; su ada -c 'ln -s /root/precious /tmp/.vcld-service;"
            " ln -s /root/precious /tmp/said'")  # fmt: skip

    guest.grant_access([SSH])

    assert host.sh("cat /root/precious") == "precious\n"


def test_step_that_fails_at_the_end_of_a_pipe_is_told_of(host: Host) -> None:
    host.sh("touch /root/.vclcontrol")
    bench = Bench(host, variables={"userdata|88": "data"})

    with pytest.raises(RemoteError, match=r"vm1: /root/\.vclcontrol/.* cannot be written"):
        bench.guest().post_reserve()


def test_script_of_the_site_that_hangs_or_floods_fails_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "SCRIPT_SECONDS", 1)
    folder = tmp_path / "Linux" / "Scripts" / "post_reserve"
    folder.mkdir(parents=True)
    for name, text in (
        ("1 flood", "yes | head -c 30000000"),
        ("2 leaves", "sleep 1000 &"),
        ("3 hangs", "trap '' TERM; sleep 1000 & wait; sleep 1000"),
        ("4 last", "touch /var/was-here"),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    assert Bench(host, settings={"stage_scripts_dir": str(tmp_path)}).guest().post_reserve()

    assert host.sh("ls /var/was-here") == "/var/was-here\n"


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("/home", True), ("/home/ada", True), ("/home/ada/", True), ("/home/ada/data", True),
        ("/home/a*", True), ("/home/adam", False), ("/home/ad", False), ("ada", False),
        ("# /home/ada", False), ("", False),
    ],
)  # fmt: skip
def test_exclude_list_names_paths(host: Host, line: str, *, stays: bool) -> None:
    guest = ready(host)
    host.sh(f"mkdir -p /root/.vclcontrol; echo '{line}' > /root/.vclcontrol/vcl_exclude_list")

    guest.sanitize([])

    assert host.sh("ls /home") == ("ada\n" if stays else "")


def test_image_without_what_vcld_needs_is_told_of_at_its_load(ssh_network: Network) -> None:
    host = ssh_network.host(
        "vm1", prepare="rm -f /usr/bin/pkill /usr/sbin/gpasswd /usr/bin/gpasswd"
    )

    with pytest.raises(
        RemoteError, match="lacks programs that vcld needs: gpasswd pkill"
    ) as caught:
        Bench(host).guest().post_load()

    assert caught.value.blame is Blame.NOBODY


def test_file_of_the_image_that_says_where_sshd_listens_is_named(ssh_network: Network) -> None:
    host = ssh_network.host(
        "vm1", prepare="echo 'ListenAddress 0.0.0.0' > /etc/ssh/sshd_config.d/50-image.conf"
    )

    with pytest.raises(RemoteError, match=r"50-image\.conf of the image names a ListenAddress"):
        Bench(host).guest().post_load()
