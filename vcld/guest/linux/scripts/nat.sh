# Ports of a NAT host forwarded to the computers behind it: a table, or chains, per computer.

NAT=/etc/vcld/nat

# nat_set NAME COMPUTER PORTS NFT V4: the forwards of a computer, instead of any it had.
# A public port belongs to one computer: what was left of another by a failure goes.
nat_set() {
    mkdir -p $NAT
    for port in $3; do
        for path in $(grep -l -e "dport $port .*dnat to " -e "dport $port -j DNAT " \
            $NAT/*.nft $NAT/*.v4 2> /dev/null); do
            other=${path##*/}
            [ "${other%.*}" = "$1" ] || nat_remove "${other%.*}"
        done
    done
    device=$(ip -o route get "$2" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
    [ -n "$device" ] || fail "the NAT host has no way to $2"
    echo 'net.ipv4.ip_forward = 1' | put /etc/sysctl.d/90-vcld-nat.conf 644 || :
    try 'forwarding' sysctl -q -w net.ipv4.ip_forward=1
    if have nft && nft list tables > /dev/null 2>&1; then
        printf '%s\n' "$4" | sed "s/@DEVICE@/$device/g" > "$NAT/$1.nft.new" ||
            fail "$NAT cannot be written"
        try nftables nft -f "$NAT/$1.nft.new"
        mv -f "$NAT/$1.nft.new" "$NAT/$1.nft"
    elif have iptables-restore; then
        printf '%s\n' "$5" | sed "s/@DEVICE@/$device/g" > "$NAT/$1.v4.new" ||
            fail "$NAT cannot be written"
        nat_restore "$NAT/$1.v4.new"
        mv -f "$NAT/$1.v4.new" "$NAT/$1.v4"
        nat_jumps "$1"
    else
        fail 'the NAT host has no nftables or iptables'
    fi
    install_boot
}
nat_restore() {
    n=1
    until said=$(iptables-restore --noflush "$1" 2>&1); do
        case $said in *lock*) ;; *) fail "iptables: $said" ;; esac
        [ $n -le 15 ] || fail "iptables: others hold its lock: $said"
        sleep 2
        n=$((n + 1))
    done
}
nat_jumps() {
    for place in 'nat PREROUTING in' 'nat POSTROUTING out' 'filter FORWARD fwd'; do
        set -- "$1" $place
        iptables -w 30 -t "$2" -C "$3" -j "$1-$4" 2> /dev/null ||
            try iptables iptables -w 30 -t "$2" -I "$3" 1 -j "$1-$4"
    done
}
# nat_remove NAME: nothing is left of a computer's forwards; none is no trouble.
nat_remove() {
    if [ -f "$NAT/$1.v4" ] && have iptables; then
        for place in 'nat PREROUTING in' 'nat POSTROUTING out' 'filter FORWARD fwd'; do
            set -- "$1" $place
            while iptables -w 30 -t "$2" -D "$3" -j "$1-$4" 2> /dev/null; do :; done
            iptables -w 30 -t "$2" -F "$1-$4" 2> /dev/null
            iptables -w 30 -t "$2" -X "$1-$4" 2> /dev/null
        done
    fi
    if have nft && nft list table ip "$1" > /dev/null 2>&1; then
        try nftables nft delete table ip "$1"
    fi
    rm -f "$NAT/$1.nft" "$NAT/$1.v4"
}
