"""Lab computers: a real SSH server on port 24, and a fake of the computer's own door daemon."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemons, eventually
from tests.site import Site
from tests.ssh_guests import Bench, account
from tests.ssh_hosts import Host, Login, Network, wait_for_port
from tests.ssh_site import press_connect, until_reserved, use_linux
from vcld.errors import RemoteError, UnsupportedOperationError
from vcld.guest.linux import lab
from vcld.guest.linux.lab import LabGuest

#: Fake of the door daemon: reads clientdata when the flag is there, starts or stops sshd on 22.
DOOR = """
useradd -m -u 990 vclstaff
mkdir -m 700 /home/vclstaff/.ssh
cp /root/.ssh/authorized_keys /home/vclstaff/.ssh/
chown -R vclstaff /home/vclstaff/.ssh
echo 'Port 24' >> /etc/ssh/sshd_config
cat > /usr/sbin/door <<'END'
#!/bin/sh
cd /home/vclstaff
while :; do
    if [ -f flag ]; then
        rm flag
        case $(head -n 1 clientdata) in
            new) /usr/sbin/sshd -o Port=22 -o PidFile=/run/door.pid -o PasswordAuthentication=yes ;;
            timeout) kill $(cat /run/door.pid); rm -f /run/door.pid ;;
        esac
    fi
    sleep 0.1
done
END
chmod 755 /usr/sbin/door
printf '#!/bin/sh\\nsed -i s/^Port/#Port/ /etc/ssh/sshd_config; sed -i "s/^#Port 24/Port 24/" \
/etc/ssh/sshd_config; mkdir -p /run/sshd; /usr/sbin/sshd; door >/dev/null 2>&1 </dev/null &\\n' \
> /etc/rc2.d/S02door
chmod 755 /etc/rc2.d/S02door
rm /etc/rc2.d/S01ssh
"""


@pytest.fixture
def host(ssh_network: Network) -> Host:
    made = ssh_network.host("lab1", prepare=DOOR, is_awaited=False)
    wait_for_port(made.private, 24)
    return made


def make_guest(host: Host, **settings: Any) -> LabGuest:
    bench = Bench(host, settings=settings)
    bench.change = lambda made: dataclasses.replace(made, remoteIP="198.51.100.201")
    return LabGuest(bench.reservation(), bench.tools())


def is_open(host: Host) -> bool:
    return bool(host.sh("ss -Htln 'sport = :22'"))


def test_door_opens_for_the_user_and_closes_after(host: Host) -> None:
    guest = make_guest(host)
    assert guest.post_load() is None
    assert guest.reserve([account()]) is None
    assert not is_open(host)

    guest.grant_access([])
    assert is_open(host)
    assert host.sh("cat /home/vclstaff/clientdata") == "new\nada\n198.51.100.201\n"

    guest.sanitize([])
    assert not is_open(host)
    assert host.sh("head -n 1 /home/vclstaff/clientdata") == "timeout\n"
    assert guest.tags().post_load


def test_daemon_that_does_not_act_is_told_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "DOOR_SECONDS", 0.5)
    eventually(lambda: host.sh("pkill -x door && echo ended", check=False))

    with pytest.raises(RemoteError, match="lab1: its daemon has not opened port 22"):
        make_guest(host).grant_access([])


def test_lab_computers_are_not_ours_to_restart_or_capture(host: Host) -> None:
    with pytest.raises(UnsupportedOperationError, match="lab1 is a lab computer"):
        make_guest(host).reboot(hard=True)


def test_scripts_of_the_site_run_on_the_node_and_fail_no_session(
    host: Host, tmp_path: Path
) -> None:
    for where in ("Linux", "ManagementNode"):
        folder = tmp_path / where / "Scripts" / "post_initial_connection"
        folder.mkdir(parents=True)
        (folder / "note").write_text(f"#!/bin/sh\ntouch '{tmp_path}/{where}.ran'\n")
        (folder / "note").chmod(0o755)

    make_guest(host, stage_scripts_dir=str(tmp_path)).post_initial_connection()

    assert [path.name for path in tmp_path.glob("*.ran")] == ["ManagementNode.ran"]


@pytest.mark.parametrize("provisioning", ["lab", "none"])
def test_lab_computer_s_door_opens_and_closes_through_the_daemon(
    site: Site, daemons: Daemons, ssh_network: Network, host: Host, provisioning: str
) -> None:
    host.sh("useradd -m ada && echo ada:own-password | chpasswd")
    home = ssh_network.client("home", 201)
    use_linux(site, ssh_network, host, kind="lab", os_module="os_unix_lab")
    site.execute(
        "UPDATE computer SET hostname = 'lab1', provisioningid ="
        f" (SELECT id FROM provisioning WHERE name = '{provisioning}') WHERE id = 1"
    )
    daemon = daemons.start()

    request = site.ask("new", 1)
    until_reserved(site, 1, daemon.describe)
    assert not is_open(host)
    press_connect(site, request, home)
    eventually(lambda: is_open(host), daemon.describe)
    session = Login(ssh_network, "home", "ada", host.public, "own-password", command="exec sh")
    assert session.says("id -un") == "ada"
    eventually(lambda: site.pair(request) == "inuse/reserved", daemon.describe)

    site.end(request)

    eventually(lambda: site.pair(request) == "gone", daemon.describe)
    eventually(lambda: site.computer(1) == "available", daemon.describe)
    assert not is_open(host)
    session.end()
