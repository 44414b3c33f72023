# Fixed public addresses: set now, and kept for the next boot by whatever manages the network.

# The network card for the public: not the one of the private address.
public_device() {
    mine=$(ip -o -4 addr show | awk -v own="$own" '{ split($4, p, "/"); if (p[1] == own) print $2 }')
    for path in /sys/class/net/*; do
        device=${path##*/}
        case $device in lo | docker* | virbr* | br-* | cni* | podman* | lxc* | ifb* | dummy*) continue ;; esac
        [ "$device" = "$mine" ] || { echo "$device"; return 0; }
    done
    return 1
}
# set_static ADDRESS PREFIX ROUTER DNS: ROUTER and DNS (separated by spaces) may be empty.
set_static() {
    [ "$1" != "$own" ] || return 0
    device=$(public_device) || fail "no network card for the public address $1"
    if ! ip -o -4 addr show dev "$device" | grep -q -F " $1/" && answers "$1"; then
        fail "the address $1 is used by another computer"
    fi
    ip link set "$device" up
    try 'the public address' ip addr replace "$1/$2" dev "$device"
    for other in $(ip -o -4 addr show dev "$device" scope global | awk '{ print $4 }'); do
        [ "$other" = "$1/$2" ] || ip addr del "$other" dev "$device" 2> /dev/null
    done
    [ -z "$3" ] || try 'the default route' ip route replace default via "$3" dev "$device"
    keep_static "$device" "$1" "$2" "$3" "$4"
    fact public "$1"
}
# Somebody answers to an address: to ping, or at least to the question whose it is (ARP).
answers() {
    ! ping -c 1 -W 1 "$1" > /dev/null 2>&1 || return 0
    timeout 1 bash -c "echo > /dev/tcp/$1/9" > /dev/null 2>&1
    ip -o neigh show "$1" 2> /dev/null | grep -q lladdr
}
keep_static() {
    if have_networkmanager; then
        nmcli -t con delete vcld-public > /dev/null 2>&1
        nmcli con add type ethernet con-name vcld-public ifname "$1" ipv4.method manual \
            ipv4.addresses "$2/$3" ${4:+ipv4.gateway "$4"} ${5:+ipv4.dns "$5"} > /dev/null 2>&1 ||
            warn "NetworkManager did not take the address $2"
    elif [ -d /etc/sysconfig/network-scripts ]; then
        put "/etc/sysconfig/network-scripts/ifcfg-$1" 644 << END || :
DEVICE=$1
BOOTPROTO=none
ONBOOT=yes
IPADDR=$2
PREFIX=$3
${4:+GATEWAY=$4}
END
    elif [ -d /etc/netplan ]; then
        put /etc/netplan/90-vcld.yaml 600 << END || :
network:
  version: 2
  ethernets:
    $1:
      dhcp4: false
      addresses: [$2/$3]
      ${4:+routes: [{to: default, via: $4\}]}
      ${5:+nameservers: {addresses: [$(echo "$5" | sed 's/ /, /g')]\}}
END
    elif has_systemd && systemctl is-enabled systemd-networkd > /dev/null 2>&1; then
        printf '[Match]\nName=%s\n\n[Network]\nAddress=%s/%s\n%s\n' "$1" "$2" "$3" \
            "${4:+Gateway=$4}" | put /etc/systemd/network/05-vcld.network 644 || :
    else
        put /etc/network/interfaces.d/vcld 644 << END || :
auto $1
iface $1 inet static
    address $2/$3
    ${4:+gateway $4}
END
    fi
    [ -z "$5" ] || have_networkmanager || [ -L /etc/resolv.conf ] ||
        { for server in $5; do echo "nameserver $server"; done; } | put /etc/resolv.conf 644 || :
}
have_networkmanager() { have nmcli && nmcli -t general status > /dev/null 2>&1; }
# forget_static: the next computer that this image runs on asks DHCP.
forget_static() {
    ! have_networkmanager || nmcli -t con delete vcld-public > /dev/null 2>&1
    rm -f /etc/netplan/90-vcld.yaml /etc/systemd/network/05-vcld.network /etc/network/interfaces.d/vcld
    for path in /etc/sysconfig/network-scripts/ifcfg-*; do
        case $path in */ifcfg-lo | */ifcfg-\*) continue ;; esac
        printf 'DEVICE=%s\nBOOTPROTO=dhcp\nONBOOT=yes\n' "${path##*/ifcfg-}" | put "$path" 644 || :
    done
    rm -f /etc/sysconfig/network-scripts/route-*
    [ ! -f /etc/sysconfig/network ] ||
        sed -i -e '/^HOSTNAME=/d' -e '/^GATEWAY=/d' /etc/sysconfig/network
}
