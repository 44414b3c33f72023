"""The paths of the Red Hat family, on a STAND-IN: no Red Hat system was at hand.

The host is a Debian with SysV's init whose /etc says otherwise: release files, sshd's service
name, ``/etc/sysconfig``, ``chkconfig`` and ``ifup`` (small programs of ours with the effect that
their manual pages tell), the sudoers and cron folders of the family. What writes the files is
real; that a real ``ifup`` or ``chkconfig`` reads them so was not run.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.ssh_guests import SSH, Bench, account, ready
from tests.ssh_hosts import Host, Login, Network
from vcld.guest.interface import EndState

RED_HAT = r"""
rm -rf /etc/debian_version /etc/network /etc/netplan /usr/sbin/ifup /sbin/ifup /usr/bin/nmcli
echo 'Red Hat Enterprise Linux release 8.9 (Ootpa)' > /etc/redhat-release
rm -f /etc/os-release; printf 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.9"\n' > /etc/os-release
mv /etc/init.d/ssh /etc/init.d/sshd; rm /etc/rc2.d/S01ssh; ln -s ../init.d/sshd /etc/rc2.d/S55sshd
mkdir -p /etc/sysconfig/network-scripts /var/spool/cron /var/log/audit
printf 'NETWORKING=yes\nHOSTNAME=old\nGATEWAY=10.9.9.9\n' > /etc/sysconfig/network
printf 'DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n' > /etc/sysconfig/network-scripts/ifcfg-eth0
printf 'root ALL=(ALL) ALL\n%%wheel ALL=(ALL) ALL\n' > /etc/sudoers
printf 'pool 2.rhel.pool.ntp.org iburst\ndriftfile /var/lib/chrony/drift\n' > /etc/chrony.conf
rm -rf /etc/chrony
printf '#!/bin/sh\nexit 0\n' > /usr/bin/chronyc
printf '#!/bin/sh\necho "$@" >> /var/log/chronyd\n' > /etc/init.d/chronyd
cat > /usr/sbin/chkconfig <<'END'
#!/bin/sh
[ "$1" != --add ] || exit 0
what=$2
set -- "$1" $(sed -n 's/^# chkconfig: *//p' "/etc/init.d/$1")
for level in 2 3 4 5; do
    if [ "$what" = off ]; then rm -f "/etc/rc$level.d/S$3$1"; continue; fi
    case $2 in - | *$level*) mkdir -p /etc/rc$level.d; ln -sf "../init.d/$1" "/etc/rc$level.d/S$3$1" ;; esac
done
END
cat > /usr/sbin/ifup <<'END'
#!/bin/sh
. "/etc/sysconfig/network-scripts/ifcfg-$1"
ip link set "$DEVICE" up
[ "$BOOTPROTO" != dhcp ] || ip addr replace 198.51.100.150/24 dev "$DEVICE"
END
chmod 755 /usr/sbin/ifup /usr/sbin/chkconfig /usr/bin/chronyc /etc/init.d/chronyd
"""


@pytest.fixture
def host(ssh_network: Network) -> Host:
    ssh_network.client("home", 201)
    ssh_network.client("elsewhere", 202)
    return ssh_network.host("vm1", prepare=RED_HAT)


def test_user_comes_and_goes(host: Host) -> None:
    network = host.network
    guest = ready(host, account(root=True), variables={"timesource|global": "192.0.2.7"})
    guest.grant_access([SSH])
    login = Login(network, "home", "ada", host.public, "pw-of-ada", command="sudo -n id -un")
    assert login.result() == (0, "root\n")
    assert host.sh("cat /etc/chrony.conf") == (
        "driftfile /var/lib/chrony/drift\nserver 192.0.2.7 iburst\n"
    )
    assert host.sh("cat /var/log/chronyd") == "restart\n"
    # The rules come back by chkconfig's links.
    guest.restrict_access("198.51.100.201", [SSH])
    assert host.sh("ls /etc/rc2.d | grep vcld") == "S08vcld-boot\n"
    host.restart()
    assert network.reaches("home", host.public)
    assert not network.reaches("elsewhere", host.public)
    # crond keeps a user's table under the user's name.
    host.sh("echo '* * * * * true' > /var/spool/cron/ada; chown ada /var/spool/cron/ada")

    guest.sanitize([])

    assert host.users() == []
    assert (
        host.sh("ls /var/spool/cron | grep ada; ls /etc/sudoers.d | grep vcld", check=False) == ""
    )
    assert not network.reaches("home", host.public)


def test_fixed_address_is_kept_in_the_scripts_folder_and_forgotten_in_an_image(host: Host) -> None:
    bench = Bench(host, node={"publicIPconfiguration": "static", "publicDefaultGateway":
                              "198.51.100.1", "publicDNSserver": "192.0.2.53 192.0.2.54"})  # fmt: skip
    bench.change = lambda made: dataclasses.replace(
        made, computer=dataclasses.replace(made.computer, IPaddress="198.51.100.77")
    )
    host.sh("echo '198.51.100.77 vm1.example.edu' >> /etc/hosts")
    bench.guest().post_load()
    folder = "/etc/sysconfig/network-scripts"

    assert host.sh(f"cat {folder}/ifcfg-eth1") == (
        "DEVICE=eth1\nBOOTPROTO=none\nONBOOT=yes\nIPADDR=198.51.100.77\nPREFIX=24\n"
        "GATEWAY=198.51.100.1\nDEFROUTE=yes\nDNS1=192.0.2.53\nDNS2=192.0.2.54\n"
    )
    assert host.sh(f"cat {folder}/ifcfg-eth0").endswith("ONBOOT=yes\nDEFROUTE=no\n")
    # The shell reads what the family's own scripts would source.
    assert host.sh(f". {folder}/ifcfg-eth1; echo $IPADDR/$PREFIX") == "198.51.100.77/24\n"
    assert "198.51.100.77/24" in host.sh("ip -o -4 addr show dev eth1")
    assert "HOSTNAME=vm1.example.edu" in host.sh("cat /etc/sysconfig/network")

    bench.guest().pre_capture(EndState.ON)

    for device in ("eth0", "eth1"):
        text = f"DEVICE={device}\nBOOTPROTO=dhcp\nONBOOT=yes\n"
        assert host.sh(f"cat {folder}/ifcfg-{device}") == text
    assert host.sh("cat /etc/sysconfig/network") == "NETWORKING=yes\n"


def test_card_without_a_script_gets_one_and_is_started(host: Host) -> None:
    host.sh("ip addr flush dev eth1; ip link set eth1 down")

    assert Bench(host).guest().post_load() == "198.51.100.150"

    text = host.sh("cat /etc/sysconfig/network-scripts/ifcfg-eth1")
    assert text == "DEVICE=eth1\nBOOTPROTO=dhcp\nONBOOT=yes\n"
