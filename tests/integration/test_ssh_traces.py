"""What a user leaves on a real Linux host in odd places, and what is the image's own."""

from __future__ import annotations

import pytest

from tests.ssh_guests import SSH, Bench, account, ready
from tests.ssh_hosts import Host, Login, Network
from vcld.errors import Blame, RemoteError


@pytest.fixture
def host(ssh_network: Network) -> Host:
    ssh_network.client("home", 201)
    return ssh_network.host("vm1")


def sanitize(host: Host) -> None:
    Bench(host).guest(laststate="reserved").sanitize([])


def test_shared_memory_of_a_user_with_a_long_name_goes(host: Host) -> None:
    ready(host, account("ada.lovelace-byron"))
    host.sh("su ada.lovelace-byron -s /bin/sh -c 'ipcmk -M 100; ipcmk -S 1; ipcmk -Q';"
            " ipcmk -M 200")  # fmt: skip

    sanitize(host)

    assert host.sh("for k in shm sem msg; do sed 1d /proc/sysvipc/$k; done").split()[3] == "200"
    assert host.sh("cat /proc/sysvipc/* | grep -c -v key") == "1\n"


def test_containers_of_a_user_go_with_processes_and_files(host: Host) -> None:
    guest = ready(host)
    host.sh("useradd -M -u 101001 -s /bin/bash other")
    for name in ("subuid", "subgid"):
        host.sh(f"printf 'ada:100000:65536\\nother:200000:65536\\n' >> /etc/{name}")
    guest.grant_access([SSH])
    for uid in (100999, 101001, 200001):
        host.sh(f"setpriv --reuid {uid} --regid {uid} --clear-groups sh -c 'touch /tmp/{uid};"
                f" exec sleep 10{uid}' > /dev/null 2>&1 < /dev/null &")  # fmt: skip

    sanitize(host)

    assert host.sh("ls /tmp").split() == ["101001", "200001"]
    assert host.sh("pgrep -f -a '^sleep 10' | cut -d' ' -f3").split() == ["10101001", "10200001"]


def test_files_of_the_image_that_have_the_users_number_stay(host: Host) -> None:
    host.sh("mkdir -p /opt/app /srv/kept; echo app > /opt/app/run; chown -R 601 /opt/app;"
            " mkdir -p /root/.vclcontrol; echo /srv/kept > /root/.vclcontrol/vcl_exclude_list;"
            " chmod 1777 /srv/kept")  # fmt: skip
    guest = ready(host)
    guest.grant_access([SSH])
    guest.grant_access([SSH])
    host.sh("su ada -s /bin/sh -c 'echo mine > /opt/app/mine; echo mine > /srv/kept/mine'")

    sanitize(host)

    assert host.sh("cd /; find opt/app srv/kept -type f").split() == [
        "opt/app/run",
        "srv/kept/mine",
    ]


def test_search_that_does_not_end_in_time_does_not_count_as_clean(host: Host) -> None:
    ready(host).grant_access([SSH])
    host.sh("mv /usr/bin/timeout /usr/bin/timeout.real")
    host.sh("printf '#!/bin/sh\\ncase \"$*\" in *find*) exit 124 ;; esac\\n"
            "exec /usr/bin/timeout.real \"$@\"\\n' > /usr/bin/timeout; chmod 755 /usr/bin/timeout")  # fmt: skip

    with pytest.raises(RemoteError, match="/tmp could not be searched"):
        sanitize(host)


@pytest.mark.parametrize("uid", [0, 33, 499, 65535, 4294967295])
def test_number_that_is_no_users_gives_way_to_one_of_the_computers(host: Host, uid: int) -> None:
    ready(host, account(uid=uid))
    assert int(host.sh("id -u ada")) >= 1000

    sanitize(host)

    assert host.users() == []


@pytest.mark.parametrize(
    ("owner", "becomes"), [("root", "ada\nroot\n"), ("777", "ada\nada\n"), ("bob", None)]
)
def test_home_that_the_image_has_already(host: Host, owner: str, becomes: str | None) -> None:
    host.sh(f"useradd -m bob; mkdir /home/ada; touch /home/ada/file; chown -R {owner} /home/ada")
    keys = account(usepublickeys=True, sshpublickeys="ssh-ed25519 AAAAnew new")
    if becomes is None:
        with pytest.raises(RemoteError, match="/home/ada of the image belongs") as caught:
            ready(host, keys)
        assert caught.value.blame is Blame.NOBODY
        return

    ready(host, keys)

    assert host.sh("stat -c %U /home/ada /home/ada/file") == becomes


@pytest.mark.parametrize(
    ("prepare", "is_given"),
    [
        ("echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/90-image", False),
        ("echo '%drivers ALL=(root) /bin/true, ALL' > /etc/sudoers.d/90-image", False),
        ("groupadd -f docker; gpasswd -a ada docker", False),
        ("echo 'ALL ALL=(ALL) NOPASSWD: /bin/true' > /etc/sudoers.d/90-image", True),
    ],
)
def test_account_of_the_image_that_a_rule_lets_become_root(
    host: Host, prepare: str, *, is_given: bool
) -> None:
    host.sh(f"groupadd drivers; useradd -m -s /bin/bash -G drivers ada; {prepare}")
    guest = Bench(host).guest()
    guest.post_load()

    if is_given:
        guest.reserve([account()])
        return
    with pytest.raises(RemoteError, match="account ada of the image may become root"):
        guest.reserve([account()])


def test_session_is_not_ended_where_only_netstat_tells_of_it(host: Host) -> None:
    guest = ready(host)
    guest.grant_access([SSH])
    host.sh("mv $(command -v ss) /root/ss; printf '#!/bin/sh\\n/root/ss -Htn state established |"
            " awk \"{ print \\\\\"tcp\\\\\", 0, 0, \\\\$3, \\\\$4, \\\\\"ESTABLISHED\\\\\","
            " \\\\\"-\\\\\" }\"\\n' > /usr/bin/netstat; chmod 755 /usr/bin/netstat")  # fmt: skip
    session = Login(host.network, "home", "ada", host.public, "pw-of-ada")
    assert session.says("there") == "there"

    with pytest.raises(RemoteError, match=r"a user is connected from 198\.51\.100\.201"):
        sanitize(host)

    assert session.says("still") == "still"
    session.end()
