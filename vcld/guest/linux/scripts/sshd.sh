# Two sshd: the system's own on the private address for the management node, and ext_sshd on
# the public one for the users. Where there is one address only, one serves both.

# Before each line of ours there is a line with the mark: old sshd take no comment after a word.
MARK='# Added by vcld'

# configure_sshd PUBLIC-ADDRESS
configure_sshd() {
    public=$1
    have sshd || { warn 'there is no sshd'; return 0; }
    if [ "$public" = "$own" ] || [ -z "$public" ]; then
        mkdir -p /etc/vcld && : > /etc/vcld/shared-sshd
        share_sshd
        return 0
    fi
    refuse_other_addresses
    rm -f /etc/vcld/shared-sshd
    external_config "$public" | put /etc/ssh/external_sshd_config 600
    sshd -t -f /etc/ssh/external_sshd_config || fail 'the configuration of ext_sshd is wrong'
    install_ext_sshd
    {
        printf '%s\nListenAddress %s\n' "$MARK" "$own"
        plain_config | grep -v -i -E '^[[:space:]]*ListenAddress[[:space:]=]'
    } | restrict_sshd
}
# The system's configuration without our lines.
plain_config() {
    awk -v mark="$MARK" '
        $0 == mark { skip = 1; next }
        skip { skip = 0; next }
        index($0, mark) { next }
        { print }' /etc/ssh/sshd_config
}
# The group of the reservations' users may use passwords whatever else the image says, and nobody
# else may. Of several lines for one thing the first counts, but names of groups are added up.
share_sshd() {
    allows=$(timeout 10 sshd -T 2> /dev/null | grep -i -o -E '^allow(users|groups) ' | sort -u)
    case $allows in
        *users*) refuse "sshd of the image names AllowUsers: nobody with a reservation would get in" ;;
    esac
    {
        for line in PasswordAuthentication ChallengeResponseAuthentication; do
            printf '%s\n%s no\n' "$MARK" "$line"
        done
        [ -z "$allows" ] || printf '%s\nAllowGroups %s\n' "$MARK" "$GROUP"
        plain_config
        printf '%s\nMatch Group %s\n' "$MARK" "$GROUP"
        printf '%s\n    PasswordAuthentication yes\n' "$MARK"
    } | restrict_sshd
}
# Of a file that sshd_config includes the addresses would count too, and ext_sshd would get none.
refuse_other_addresses() {
    for path in /etc/ssh/sshd_config.d/*.conf; do
        ! grep -q -i -s -E '^[[:space:]]*ListenAddress[[:space:]=]' "$path" ||
            refuse "$path of the image names a ListenAddress: vcld says where sshd listens"
    done
}
restrict_sshd() {
    if put /etc/ssh/sshd_config.vcld 600; then :; fi
    if cmp -s /etc/ssh/sshd_config.vcld /etc/ssh/sshd_config; then
        rm -f /etc/ssh/sshd_config.vcld
        ! has_socket || end_socket
        return 0
    fi
    try 'the configuration of sshd would be wrong' sshd -t -f /etc/ssh/sshd_config.vcld
    mv -f /etc/ssh/sshd_config.vcld /etc/ssh/sshd_config
    if has_socket; then
        end_socket
    else
        service_do restart "$(own_sshd)" || fail "sshd does not restart: $said"
    fi
}
own_sshd() {
    for name in sshd ssh; do
        ! has_service "$name" || { echo "$name"; return 0; }
    done
    fail 'there is no service sshd or ssh'
}
# Where systemd listens for sshd it does so on every address, whatever sshd's configuration says,
# and ext_sshd would get none.
has_socket() { has_systemd && systemctl -q is-active ssh.socket; }
# Both stop in one transaction, and only then is systemd told anything new: version 252 was seen to
# lose track of the service, or to fail itself, otherwise. Sessions go on.
end_socket() {
    name=$(own_sshd)
    try 'ssh.socket does not stop' timeout -k 5 90 systemctl stop ssh.socket "$name.service"
    service_do start "$name" || fail "sshd does not start: $said"
    systemctl disable ssh.socket > /dev/null 2>&1
    enable_service "$name"
}
# external_config ADDRESS: sshd asks for a user's groups at each login, so that accounts may come
# and go without a restart, during which nobody would get in.
external_config() {
    cat << END
# Made by vcld for the users of reservations; changes are lost.
Port 22
ListenAddress $1
PidFile /var/run/ext_sshd.pid
PermitRootLogin no
PasswordAuthentication yes
X11Forwarding yes
UsePAM yes
PrintMotd no
Subsystem sftp internal-sftp
AllowGroups $GROUP
END
}
# A start is over when it listens: sshd writes its number then. At a boot its address may come late.
install_ext_sshd() {
    if has_systemd; then
        put /etc/systemd/system/ext_sshd.service 644 << 'END' && systemctl daemon-reload
[Unit]
Description=SSH for the users of reservations
After=network-online.target

[Service]
ExecStartPre=/bin/mkdir -p -m 755 /run/sshd
ExecStartPre=/bin/rm -f /run/ext_sshd.pid
ExecStart=/usr/sbin/sshd -D -f /etc/ssh/external_sshd_config
ExecStartPost=/bin/sh -c 'until [ -s /run/ext_sshd.pid ]; do sleep 0.05; done'
TimeoutStartSec=30
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
Restart=on-failure
RestartSec=2
StartLimitInterval=0

[Install]
WantedBy=multi-user.target
END
        return 0
    fi
    put /etc/init.d/ext_sshd 755 << 'END' || :
#!/bin/sh
### BEGIN INIT INFO
# Provides:          ext_sshd
# Required-Start:    $network
# Required-Stop:     $network
# Default-Start:
# Default-Stop:      0 1 6
# Short-Description: SSH for the users of reservations
### END INIT INFO
# chkconfig: - 56 24
pidfile=/var/run/ext_sshd.pid
running() { [ -s $pidfile ] && kill -0 "$(cat $pidfile)" 2> /dev/null; }
case $1 in
    start)
        running && exit 0
        rm -f $pidfile
        mkdir -p /run/sshd
        /usr/sbin/sshd -f /etc/ssh/external_sshd_config || exit 1
        n=0
        while [ $n -lt 100 ]; do  # it listens once the file is there
            running && exit 0
            sleep 0.1 2> /dev/null || sleep 1
            n=$((n + 1))
        done
        exit 1 ;;
    stop) ! running || kill "$(cat $pidfile)" ;;
    restart) "$0" stop; sleep 1; "$0" start ;;
    status) running ;;
    *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
END
    return 0
}
# find_public KNOWN: the computer's public address, as far as it can be seen here.
find_public() {
    ip -o -4 addr show scope global 2> /dev/null | awk -v own="$own" -v route="$(
        ip -o -4 route show default 2> /dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)" '
        { device = $2; split($4, part, "/"); address = part[1] }
        device ~ /^(docker|virbr|br-|veth|cni|podman|lxc)/ { next }
        { of[address] = device; if (address == own) mine = device; order[++n] = address }
        END {
            for (i = 1; i <= n; i++) {
                address = order[i]
                if (of[address] == mine) continue
                rank = 1
                if (of[address] == route) rank = 2
                if (address !~ /^(10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.|169\.254\.)/) rank = 3
                if (rank > best) { best = rank; found = address }
            }
            print found ? found : own
        }'
}
# A second network card that is up but has no address yet: DHCP is still at work.
awaits_address() {
    for device in $(cards); do
        [ "$(cat "/sys/class/net/$device/operstate" 2> /dev/null)" = up ] || continue
        [ -n "$(ip -o -4 addr show dev "$device" scope global)" ] || return 0
    done
    return 1
}
# public_address MODE KNOWN: prints what the computer's public address is.
public_address() {
    if [ "$1" != dynamicDHCP ]; then
        echo "$2"
        return 0
    fi
    n=0
    while [ "$(find_public)" = "$own" ] && awaits_address && [ $n -lt 120 ]; do
        sleep 0.5
        n=$((n + 1))
    done
    find_public
}
# use_public MODE KNOWN: find the public address and part the two sshd by it.
use_public() {
    found=$(public_address "$1" "$2")
    fact public "$found"
    configure_sshd "$found"
}
