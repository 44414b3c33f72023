# Network cards and fixed public addresses: set now, and kept for the next boot by whatever manages
# the network.

NETWORKD=/etc/systemd/network/00-vcld.network
INTERFACES=/etc/network/interfaces

# The network card of the private address.
private_device() {
    ip -o -4 addr show | awk -v own="$own" '{ split($4, p, "/"); if (p[1] == own) print $2 }'
}
# cards: the network cards but that one.
cards() {
    mine=$(private_device)
    for path in /sys/class/net/*; do
        device=${path##*/}
        case $device in lo | docker* | virbr* | br-* | veth* | cni* | podman* | lxc* | ifb* | dummy*) continue ;; esac
        [ -e "$path/device" ] || case $device in eth[0-9]*) ;; *) continue ;; esac
        [ "$device" = "$mine" ] || echo "$device"
    done
}
public_device() { cards | grep . | head -n 1; }
has_networkmanager() { have nmcli && nmcli -t general status > /dev/null 2>&1; }
# manages DEVICE: NetworkManager runs and has not been told to leave this card alone.
manages() {
    has_networkmanager && ! nmcli -t -f DEVICE,STATE device 2> /dev/null | grep -q "^$1:unmanaged"
}
has_networkd() { has_systemd && systemctl -q is-active systemd-networkd; }
has_scripts() { [ -d /etc/sysconfig/network-scripts ]; }

# activate_cards: a card that nothing of the image cares for asks DHCP, now and at each boot.
activate_cards() {
    for device in $(cards); do
        [ -z "$(ip -o -4 addr show dev "$device" scope global)" ] || continue
        if manages "$device"; then
            nmcli -t -f DEVICE,STATE device | grep -q "^$device:connect" ||
                nmcli -w 30 device connect "$device" > /dev/null 2>&1
        elif has_scripts && ! has_networkd; then
            path=/etc/sysconfig/network-scripts/ifcfg-$device
            [ -e "$path" ] ||
                printf 'DEVICE=%s\nBOOTPROTO=dhcp\nONBOOT=yes\n' "$device" | put "$path" 644
            ! have ifup || timeout -k 5 60 ifup "$device" > /dev/null 2>&1 < /dev/null
        elif has_networkd; then
            ip link set "$device" up
            networkctl status "$device" 2> /dev/null | grep -q 'Network File: n/a' || continue
            printf '[Match]\nName=%s\n\n[Network]\nDHCP=yes\n' "$device" |
                put "/etc/systemd/network/98-vcld-$device.network" 644 && networkctl reload
        elif have ifup && [ -d $INTERFACES.d ]; then
            grep -q -s "^iface $device " $INTERFACES $INTERFACES.d/* ||
                printf 'auto %s\niface %s inet dhcp\n' "$device" "$device" |
                put "$INTERFACES.d/vcld-$device" 644
            timeout -k 5 60 ifup "$device" > /dev/null 2>&1 < /dev/null
        else
            ip link set "$device" up
        fi || warn "network card $device could not be started"
    done
}
# set_static ADDRESS PREFIX ROUTER DNS: ROUTER and DNS (separated by spaces) may be empty.
set_static() {
    [ "$1" != "$own" ] || return 0
    device=$(public_device) || fail "no network card for the public address $1"
    if ! ip -o -4 addr show dev "$device" | grep -q -F " $1/" && answers "$1"; then
        fail "the address $1 is used by another computer"
    fi
    ip link set "$device" up
    keep_static "$device" "$1" "$2" "$3" "$4"
    # An address takes with it those of its network that came later.
    for other in $(ip -o -4 addr show dev "$device" scope global | awk '{ print $4 }'); do
        [ "$other" = "$1/$2" ] || ip addr del "$other" dev "$device" 2> /dev/null
    done
    # What manages the network may still be taking away what was there.
    n=0
    until said=$(ip addr replace "$1/$2" dev "$device" 2>&1 &&
        { [ -z "$3" ] || ip route replace default via "$3" dev "$device" 2>&1; }); do
        [ $n -lt 50 ] || fail "the public address $1 and its router $3: $said"
        sleep 0.1 2> /dev/null || sleep 1
        n=$((n + 1))
    done
    fact public "$1"
}
# Somebody answers to an address: to ping, or at least to the question whose it is (ARP).
answers() {
    ! ping -c 1 -W 1 "$1" > /dev/null 2>&1 || return 0
    timeout 1 bash -c 'echo > "/dev/tcp/$1/9"' sh "$1" > /dev/null 2>&1
    ip -o neigh show "$1" 2> /dev/null | grep -q lladdr
}
keep_static() {
    if manages "$1"; then
        keep_by_networkmanager "$@"
    elif has_networkd; then
        keep_by_networkd "$@"
    elif has_scripts; then
        keep_by_scripts "$@"
    else
        keep_by_interfaces "$@"
    fi
}
# What the image has for the card stays, but counts for less than ours.
keep_by_networkmanager() {
    nmcli -t connection delete vcld-public > /dev/null 2>&1
    said=$(nmcli connection add type ethernet con-name vcld-public ifname "$1" \
        connection.autoconnect-priority 900 ipv4.method manual ipv4.addresses "$2/$3" \
        ipv4.route-metric 50 ${4:+ipv4.gateway "$4"} ${5:+ipv4.dns "$5"} 2>&1 &&
        nmcli -w 30 connection up vcld-public 2>&1) ||
        fail "NetworkManager did not take the address $2: $said"
}
# The first file that matches a card counts, so that it stands before those of netplan too.
keep_by_networkd() {
    {
        printf '[Match]\nName=%s\n\n[Network]\nAddress=%s/%s\n' "$1" "$2" "$3"
        [ -z "$4" ] || printf 'Gateway=%s\n' "$4"
        for server in $5; do printf 'DNS=%s\n' "$server"; done
    } | put $NETWORKD 644 || return 0
    networkctl reload && networkctl reconfigure "$1" || fail "networkd did not take the address $2"
    n=0
    until ip -o -4 addr show dev "$1" | grep -q -F " $2/" || [ $n -ge 100 ]; do
        sleep 0.1
        n=$((n + 1))
    done
    name_servers "$5"
}
keep_by_scripts() {
    {
        printf 'DEVICE=%s\nBOOTPROTO=none\nONBOOT=yes\nIPADDR=%s\nPREFIX=%s\n' "$1" "$2" "$3"
        [ -z "$4" ] || printf 'GATEWAY=%s\nDEFROUTE=yes\n' "$4"
        n=1
        for server in $5; do
            printf 'DNS%s=%s\n' "$n" "$server"
            n=$((n + 1))
        done
    } | put "/etc/sysconfig/network-scripts/ifcfg-$1" 644 || :
    private=/etc/sysconfig/network-scripts/ifcfg-$(private_device)
    if [ -n "$4" ] && [ -f "$private" ]; then
        { grep -v '^DEFROUTE=' "$private"; echo 'DEFROUTE=no'; } | put "$private" 644 || :
    fi
    name_servers "$5"
}
# What the image says of the card is put out of force, and into force again by forget_static.
keep_by_interfaces() {
    { printf 'auto %s\niface %s inet static\n    address %s/%s\n' "$1" "$1" "$2" "$3"
      [ -z "$4" ] || printf '    gateway %s\n' "$4"; } | put $INTERFACES.d/vcld 644 || :
    {
        [ ! -f $INTERFACES ] || awk -v device="$1" '
            /^[[:space:]]*(iface|auto|allow-|mapping|source|no-)/ { ours = $1 == "iface" && $2 == device && $3 == "inet" }
            { print (ours && NF ? "#vcld# " : "") $0 }' $INTERFACES
        grep -q '^source .*/interfaces\.d/\*' $INTERFACES 2> /dev/null ||
            echo "source $INTERFACES.d/*"
    } | put $INTERFACES 644 || :
    name_servers "$5"
}
# name_servers ADDRESSES: unless a service keeps the file.
name_servers() {
    [ -n "$1" ] && [ ! -L /etc/resolv.conf ] || return 0
    for server in $1; do echo "nameserver $server"; done | put /etc/resolv.conf 644 || :
}
# forget_static: the next computer that this image runs on asks DHCP.
forget_static() {
    ! has_networkmanager || nmcli -t connection delete vcld-public > /dev/null 2>&1
    rm -f /etc/netplan/90-vcld.yaml /etc/systemd/network/05-vcld.network $NETWORKD $INTERFACES.d/vcld
    [ ! -f $INTERFACES ] || sed 's/^#vcld# //' $INTERFACES | put $INTERFACES 644 || :
    for path in /etc/sysconfig/network-scripts/ifcfg-*; do
        case $path in */ifcfg-lo | */ifcfg-\*) continue ;; esac
        printf 'DEVICE=%s\nBOOTPROTO=dhcp\nONBOOT=yes\n' "${path##*/ifcfg-}" | put "$path" 644 || :
    done
    rm -f /etc/sysconfig/network-scripts/route-*
    [ ! -f /etc/sysconfig/network ] ||
        sed -i -e '/^HOSTNAME=/d' -e '/^GATEWAY=/d' /etc/sysconfig/network
}
