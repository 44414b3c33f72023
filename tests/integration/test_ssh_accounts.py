"""Accounts on a real Linux host: made, changed and taken away without a trace."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.ssh_guests import SSH, Bench, account, ready
from tests.ssh_hosts import Host, Login, Network, run
from vcld.errors import Blame, RemoteError
from vcld.snapshot import Account


@pytest.fixture
def host(ssh_network: Network) -> Host:
    ssh_network.client("home", 201)
    return ssh_network.host("vm1")


def login(host: Host, user: str, password: str, command: str = "id -un") -> tuple[int, str]:
    return Login(host.network, "home", user, host.public, password, command=command).result()


def test_repeated_reserve_changes_nothing(host: Host) -> None:
    guest = ready(host, account(root=True))
    show = (
        "cat /etc/passwd /etc/group /etc/sudoers.d/vcld /etc/ssh/sshd_config"
        " /etc/ssh/external_sshd_config"
    )
    once = host.sh(show)

    for _ in range(2):
        guest.reserve([account(root=True)])

    assert host.sh(show) == once
    assert once.count("AllowGroups vcl\n") == 1
    assert host.sh("id ada").startswith("uid=601(ada) ")


def test_account_whose_removal_was_broken_off_is_opened_again(host: Host) -> None:
    guest = ready(host, account())
    host.sh("usermod -L -e 1 ada")

    guest.reserve([account()])
    guest.grant_access([SSH])

    assert login(host, "ada", "pw-of-ada") == (0, "ada\n")


def test_account_does_not_end_when_the_image_says_that_new_ones_do(host: Host) -> None:
    host.sh("echo EXPIRE=2020-01-01 >> /etc/default/useradd")

    ready(host).grant_access([SSH])

    assert login(host, "ada", "pw-of-ada") == (0, "ada\n")


def test_owner_and_members_of_groups_get_their_rights(host: Host) -> None:
    guest = ready(host, account(root=True), account("bob", "pw-of-bob", uid=602))
    guest.grant_access([SSH])
    sudo = "sudo -n id -un"

    assert login(host, "ada", "pw-of-ada", sudo) == (0, "root\n")
    assert login(host, "bob", "pw-of-bob") == (0, "bob\n")
    assert login(host, "bob", "pw-of-bob", sudo)[0] != 0

    # The owner changes the groups: bob becomes an administrator, eve comes, ada stays.
    guest.sync_accounts([
        account(), account("bob", "pw-of-bob", uid=602, root=True), account("eve", "pw-of-eve", uid=603),
    ])  # fmt: skip
    assert login(host, "bob", "pw-of-bob", sudo) == (0, "root\n")
    assert login(host, "ada", "pw-of-ada", sudo)[0] != 0
    assert login(host, "eve", "pw-of-eve") == (0, "eve\n")
    guest.sync_accounts([account()])
    assert host.users() == ["ada"]
    assert login(host, "eve", "pw-of-eve")[0] == 255


def test_root_access_ends_whatever_the_user_does_to_stop_it(host: Host) -> None:
    def accounts(*, root: bool) -> list[Account]:
        key = "ssh-ed25519 AAAAnew new"
        return [account(root=root, usepublickeys=True, sshpublickeys=key)]

    guest = ready(host, *accounts(root=True))
    guest.grant_access([SSH])
    assert (
        login(host, "ada", "pw-of-ada", "rm -r ~/.ssh; touch ~/.ssh; sudo -n id -un")[1] == "root\n"
    )

    with pytest.raises(RemoteError, match="no ssh keys for ada"):
        guest.sync_accounts([*accounts(root=False), account("bob", "pw-of-bob", uid=602)])

    assert login(host, "bob", "pw-of-bob") == (0, "bob\n")
    assert login(host, "ada", "pw-of-ada", "sudo -n id -un")[0] != 0


def test_account_that_is_refused_gets_no_root_access(host: Host) -> None:
    guest = Bench(host).guest()
    guest.post_load()

    with pytest.raises(RemoteError, match="belongs to the system"):
        guest.reserve([account("daemon", root=True)])

    assert host.sh("ls /etc/sudoers.d | grep vcld", check=False) == ""


def test_root_never_gets_in_from_outside(host: Host) -> None:
    guest = ready(host)
    host.sh("echo root:known | chpasswd")

    guest.grant_access([SSH])

    assert login(host, "root", "known")[0] == 255


def test_account_of_a_directory_gets_no_password_and_keys_open_it(
    host: Host, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    public = key.with_suffix(".pub").read_text()
    odd = 'command="echo $(touch /tmp/trap)" ssh-ed25519 AAAA it\'s'
    guest = ready(
        host,
        account(password=None, usepublickeys=True, sshpublickeys=f"{public}\r\n\n# mine\n{odd}\n"),
    )
    guest.reserve([account(password=None, usepublickeys=True, sshpublickeys=public)])
    guest.grant_access([SSH])

    assert host.sh("getent shadow ada | cut -d: -f2") == "*\n"
    assert host.sh("cat /home/ada/.ssh/authorized_keys") == f"{public}{odd}\n"
    assert host.sh("stat -c '%a %U' /home/ada/.ssh /home/ada/.ssh/authorized_keys") == (
        "700 ada\n600 ada\n"
    )
    done = host.network.on_client(
        "home", "ssh", "-F", "none", "-i", str(key), "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        f"ada@{host.public}", "id -un",
    )  # fmt: skip
    assert run(*done) == "ada\n"
    assert host.sh("ls /tmp/trap", check=False) == ""


def test_account_that_was_there_is_lent_and_not_removed(host: Host) -> None:
    host.sh("useradd -m -u 601 ada; echo ada:own-pw | chpasswd; touch /home/ada/kept;"
            "useradd -m bob; echo bob:own-pw | chpasswd")  # fmt: skip
    guest = ready(host, account(password=None))
    guest.grant_access([SSH])
    assert login(host, "ada", "own-pw") == (0, "ada\n")
    assert login(host, "bob", "own-pw")[0] == 255

    guest.sanitize([])
    guest.grant_access([SSH])

    assert login(host, "ada", "own-pw")[0] == 255
    assert host.sh("ls /home/ada") == "kept\n"


def test_links_of_a_user_do_not_lead_root_astray(host: Host) -> None:
    guest = ready(host)
    host.sh("su ada -c 'mkdir -p ~/.ssh; ln -s /etc/shadow ~/.ssh/authorized_keys'")

    with pytest.raises(RemoteError, match="no ssh keys for ada"):
        guest.sync_accounts([account(usepublickeys=True, sshpublickeys="ssh-ed25519 AAAA x")])

    assert "AAAA x" not in host.sh("cat /etc/shadow")


@pytest.mark.parametrize(
    "name",
    ["x'; touch /tmp/trap; '", "$(touch /tmp/trap)", "a b", "-rf", "first\nsecond", "Zoë", "",
     "../../etc", "root:0", "12345", "%sudo", "a" * 33],
)  # fmt: skip
def test_fault_30_names_that_no_account_can_have_reach_no_shell(host: Host, name: str) -> None:
    guest = Bench(host).guest()
    guest.post_load()

    with pytest.raises(RemoteError, match="can have no account on Linux") as caught:
        guest.reserve([account(name)])

    assert caught.value.blame is Blame.NOBODY
    assert host.users() == []
    assert host.sh("ls /tmp") == ""


def test_fault_30_odd_passwords_and_texts_are_data(host: Host) -> None:
    password = "it's $(touch /tmp/trap) `x` \"; % \\ é"
    guest = ready(host, account(password=password))
    guest.grant_access([SSH])

    guest.notify_console("The end'; touch /tmp/trap; $(touch /tmp/trap)\nis near %s")
    guest.tag_tainted("it's $(touch /tmp/trap) `x`")

    assert login(host, "ada", password) == (0, "ada\n")
    assert host.sh("ls /tmp") == ""
    assert guest.tags().tainted == "it's $(touch /tmp/trap) `x`"


def test_accounts_of_the_system_are_nobodys(host: Host) -> None:
    guest = Bench(host).guest()
    guest.post_load()

    host.sh("useradd -u 990 -s /usr/sbin/nologin service")
    for name in ("root", "daemon", "sshd", "service", "nobody"):
        with pytest.raises(RemoteError, match=f"account {name} belongs to the system") as caught:
            guest.reserve([account(name)])
        assert caught.value.blame is Blame.NOBODY

    assert host.sh("getent group vcl | cut -d: -f4") == "\n"
    assert host.sh("getent shadow service nobody | cut -d: -f2 | sort -u").split() in (
        ["!"], ["!", "*"], ["*"],
    )  # fmt: skip
    assert host.sh("getent passwd root daemon") == host.sh("head -n 2 /etc/passwd")


def test_account_goes_with_its_processes_files_and_jobs(host: Host) -> None:
    guest = ready(host, account(root=True), account("bob", "pw", uid=602))
    host.sh("""
        su ada -c 'nohup sleep 1000 >/dev/null 2>&1 & (echo "* * * * * true" | crontab -) '
        su ada -c 'touch /tmp/file /var/tmp/file /dev/shm/file; mkdir -m 700 /tmp/dir'
        su ada -c 'ipcmk -M 64 >/dev/null'
        su bob -c 'trap "" TERM HUP; nohup sleep 1000 >/dev/null 2>&1 &'
        mkdir /srv/shared; chmod 777 /srv/shared; su ada -c 'touch /srv/shared/deep'
        touch /srv/shared/kept /tmp/kept""")
    guest.tag_tainted("a user may have logged in")

    guest.sanitize([])

    assert host.users() == []
    assert "sleep 1000" not in host.sh("ps axww -o args")
    assert host.sh("ls /tmp /var/tmp /dev/shm /home /srv/shared").split() == [
        "/dev/shm:", "/home:", "/srv/shared:", "kept", "/tmp:", "kept", "/var/tmp:",
    ]  # fmt: skip
    assert host.sh("ls /var/spool/cron/crontabs /etc/sudoers.d | grep -v README") == (
        "/etc/sudoers.d:\n\n/var/spool/cron/crontabs:\n"
    )
    assert host.sh("ipcs -m | grep 601", check=False) == ""
    assert guest.tags().tainted == ""
    guest.sanitize([])


def test_home_on_the_exclude_list_stays(host: Host) -> None:
    guest = ready(host)
    host.sh("mkdir -p /root/.vclcontrol; echo /home/ada > /root/.vclcontrol/vcl_exclude_list")

    guest.sanitize([])

    assert host.users() == []
    assert host.sh("ls /home") == "ada\n"


def test_computer_with_a_user_on_it_is_not_sanitized_but_reloaded(host: Host) -> None:
    guest = ready(host)
    guest.grant_access([SSH])
    session = Login(host.network, "home", "ada", host.public, "pw-of-ada")
    assert session.says("here") == "here"

    with pytest.raises(RemoteError, match=r"a user is connected from 198\.51\.100\.201 to port 22"):
        Bench(host).guest(laststate="reserved").sanitize([])

    session.end()


def test_passwords_are_in_no_process_list_and_no_log(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    # Every program that runs on the host leaves its arguments.
    host.sh("""
        for name in chpasswd useradd usermod su timeout sed grep; do
            real=$(command -v $name); mv $real $real.real
            printf '#!/bin/sh\\necho "%s $*" >> /var/log/arguments\\nexec %s "$@"\\n' \
                $name $real.real > $real; chmod 755 $real
        done""")
    ready(host, account(password="tr0ub4dor-3"))

    assert "useradd" in host.sh("cat /var/log/arguments")
    assert "tr0ub4dor" not in host.sh("cat /var/log/arguments; dmesg 2>/dev/null; ls -R /tmp")
    assert "tr0ub4dor" not in "".join(capfd.readouterr())


def test_files_of_a_user_whom_nobody_saw_are_searched_for_everywhere(host: Host) -> None:
    host.sh("mkdir -m 1777 /srv/scratch; mkdir -p /run/lock /var/crash;"
            " chmod 1777 /run/lock /var/crash")  # fmt: skip
    ready(host).grant_access([SSH])
    leave = "for d in /run/lock /var/crash /srv/scratch /dev/shm; do echo mine > $d/secret; done"
    assert login(host, "ada", "pw-of-ada", leave) == (0, "")

    Bench(host).guest(laststate="reserved").sanitize([])

    assert host.sh("find / -name secret -not -path '/proc/*' 2>/dev/null", check=False) == ""
    assert host.sh("ls -A /etc/vcld/granted", check=False) == ""


def test_computer_that_an_unseen_user_with_root_rights_had_is_reloaded(host: Host) -> None:
    ready(host, account(root=True)).grant_access([SSH])

    guest = Bench(host).guest(laststate="reserved")
    with pytest.raises(RemoteError, match="granted to a user with root rights"):
        guest.sanitize([])

    assert guest.tags().tainted == "a user with root rights was let in"


@pytest.mark.parametrize("root", [True, False])
def test_root_who_came_unseen_is_not_believed(host: Host, *, root: bool) -> None:
    ready(host, account(root=root)).grant_access([SSH])
    host.sh("rm -f /etc/vcld/granted")  # as the user may have done
    asked = partial(replace, remoteIP="198.51.100.201")
    guest = Bench(host, change=asked).guest(laststate="reserved")
    refused = pytest.raises(RemoteError, match=r"root rights \(ada\)")

    with refused if root else nullcontext():
        guest.sanitize([account(root=root)])

    assert host.users() == (["ada"] if root else [])


def test_user_named_all_gives_root_access_to_nobody_else(host: Host) -> None:
    ready(host, account("ALL", root=True), account("bob", "pw", uid=602)).grant_access([SSH])

    assert login(host, "ALL", "pw-of-ada", "sudo -n id -un") == (0, "root\n")
    assert login(host, "bob", "pw", "sudo -n id -un")[0] == 1


def test_lent_account_keeps_nothing_of_the_reservation(host: Host) -> None:
    host.sh("useradd -m -s /bin/bash ada; echo ada:own-pw | chpasswd; su ada -c 'mkdir ~/.ssh;"
            " echo ssh-ed25519 AAAAown own > ~/.ssh/authorized_keys'")  # fmt: skip
    keys = "ssh-ed25519 AAAAown own\nssh-ed25519 AAAAnew new"
    guest = ready(host, account(usepublickeys=True, sshpublickeys=keys))
    guest.sync_accounts([account(usepublickeys=True, sshpublickeys=keys)])
    guest.grant_access([SSH])
    assert login(host, "ada", "pw-of-ada", "touch /tmp/x /dev/shm/y; umask 077; touch ~/kept;"
                 " (echo '* * * * * true' | crontab -)") == (0, "")  # fmt: skip

    guest.sanitize([])

    host.sh("su ada -c 'exit 0'; gpasswd -a ada vcl")
    guest.grant_access([SSH])
    assert login(host, "ada", "pw-of-ada")[0] == 255
    assert login(host, "ada", "own-pw") == (0, "ada\n")
    assert host.sh("cat /home/ada/.ssh/authorized_keys") == "ssh-ed25519 AAAAown own\n"
    assert host.sh("ls /tmp /dev/shm; ls /home/ada; ls -A /etc/vcld/lent").split() == [
        "/dev/shm:", "/tmp:", "kept",
    ]  # fmt: skip
    assert host.sh("crontab -l -u ada", check=False) == ""


def test_account_of_the_image_that_may_become_root_is_for_those_who_may(host: Host) -> None:
    host.sh("useradd -m -s /bin/bash -G sudo ada")
    guest = Bench(host).guest()
    guest.post_load()

    with pytest.raises(RemoteError, match="account ada of the image may become root") as caught:
        guest.reserve([account()])

    assert caught.value.blame is Blame.NOBODY
    guest.sanitize([])
    guest.reserve([account(root=True)])


@pytest.mark.parametrize("name", ["vcl", "staff", "drivers"])
def test_group_of_the_image_outlives_a_user_of_its_name(host: Host, name: str) -> None:
    host.sh("groupadd -f staff; groupadd drivers; gpasswd -M root,daemon drivers")
    Bench(host).guest().post_load()
    before = host.sh("getent group | sort")
    guest = Bench(host).guest()
    guest.reserve([account(name)])

    guest.sanitize([])

    assert host.users() == []
    assert host.sh("getent group | sort") == before


def test_image_without_procps_is_not_handed_on_with_a_users_processes(host: Host) -> None:
    guest = ready(host)
    host.sh("rm /usr/bin/pgrep")

    with pytest.raises(RemoteError, match="the image needs procps"):
        guest.sanitize([])


def test_program_of_a_user_adds_no_facts_by_its_name(host: Host) -> None:
    guest = ready(host)
    guest.grant_access([SSH])
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\x0cvcld:error=x', 0, 0, 0)"
    command = (
        f"exec python3 -c \"{rename}; import socket; s = socket.create_server(('', 9999));"
        " c = socket.create_connection(('127.0.0.1', 9999)); print('there', flush=True); input()\""
    )
    session = Login(host.network, "home", "ada", host.public, "pw-of-ada", command=command)
    session.hears("there")

    found = guest.find_connection(None, [SSH])

    session.end()
    assert found is not None
    assert found.verified
