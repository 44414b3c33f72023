# The firewall: the rules of a stage, in one transaction, kept for the next boot.

FOLDER=/etc/vcld

has_nft() { have nft && nft list tables > /dev/null 2>&1; }
firewall_kind() {
    if have firewall-cmd && firewall-cmd --state > /dev/null 2>&1; then
        echo firewalld
    elif has_nft; then
        echo nftables
    elif have iptables-restore; then
        echo iptables
    else
        fail 'there is no firewall: nftables, iptables or firewalld must be installed'
    fi
}
# The management node's address as this host sees it, in either family; else a harmless one.
name_node() {
    case $node in
        *:*) sed -e "s/@NODE6@/$node/g" -e 's/@NODE4@/127.0.0.1/g' ;;
        *) sed -e "s/@NODE4@/$node/g" -e 's/@NODE6@/::1/g' ;;
    esac
}
# firewall NFT V4 V6 ZONE: one stage, as each of the tools wants to be told. What an earlier stage
# said by a tool that is not used any more goes. firewalld lets in what zones of the image's let in,
# and whoever is connected; where there is nft, the table stands beside our zone and does not.
firewall() {
    kind=$(firewall_kind) || { printf '%s\n' "$kind"; exit 1; }
    mkdir -p $FOLDER
    # Rules count before they are written down, so that a full disk keeps no door open.
    if has_nft; then
        said=$(printf '%s\n' "$1" | name_node | nft -f /dev/stdin 2>&1) || fail "nftables: $said"
        printf '%s\n' "$1" | name_node | put $FOLDER/firewall.nft 600 || :
    else
        rm -f $FOLDER/firewall.nft
    fi
    case $kind in
        iptables) by_iptables "$2" "$3" ;;
        firewalld) no_iptables; by_zone "$4" ;;
        *) no_iptables ;;
    esac
    install_boot
    fact firewall "$kind"
}
by_iptables() {
    restore iptables "$1"
    printf '%s\n' "$1" | name_node | put $FOLDER/firewall.v4 600 || :
    [ -e /proc/net/if_inet6 ] || return 0
    if have ip6tables-restore; then
        restore ip6tables "$2"
        printf '%s\n' "$2" | name_node | put $FOLDER/firewall.v6 600 || :
    else
        warn 'ip6tables is missing: nobody is kept out by IPv6'
    fi
}
no_iptables() {
    for rules in v4:iptables v6:ip6tables; do
        tool=${rules#*:}
        [ -e "$FOLDER/firewall.${rules%:*}" ] || continue
        rm -f "$FOLDER/firewall.${rules%:*}"
        have "$tool" || continue
        while "$tool" -D INPUT -j vcld-input 2> /dev/null; do :; done
        "$tool" -F vcld-input 2> /dev/null
        "$tool" -X vcld-input 2> /dev/null
    done
}
by_zone() {
    if printf '%s\n' "$1" | name_node | put /etc/firewalld/zones/vcld.xml 644; then
        try firewalld timeout 60 firewall-cmd --reload
    fi
}
# restore TOOL RULES: load them; wait for others who are changing them. Old tools can't wait.
restore() {
    wait='-w 30'
    "$1-restore" --help 2>&1 | grep -q -e '--wait' || wait=''
    n=1
    until said=$(printf '%s\n' "$2" | name_node | "$1-restore" $wait --noflush 2>&1); do
        case $said in *lock*) ;; *) fail "$1: $said" ;; esac
        [ $n -le 15 ] || fail "$1: others hold its lock: $said"
        sleep 2
        n=$((n + 1))
    done
    "$1" $wait -C INPUT -j vcld-input 2> /dev/null ||
        try "$1" "$1" $wait -I INPUT 1 -j vcld-input
}
# At every boot the rules come back before the network does, and after an image's own, which begin
# by removing all that there are.
install_boot() {
    put $FOLDER/boot 755 << 'END' || :
#!/bin/sh
# Made by vcld: the firewall of the last stage, and host keys where an image has none.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /etc/vcld || exit 0
if [ -f firewall.nft ]; then nft -f firewall.nft; fi
for tool in iptables ip6tables; do
    case $tool in iptables) rules=firewall.v4 ;; *) rules=firewall.v6 ;; esac
    [ -f $rules ] || continue
    $tool-restore --noflush $rules
    $tool -C INPUT -j vcld-input 2> /dev/null || $tool -I INPUT 1 -j vcld-input
done
for rules in nat/*.nft; do [ ! -f "$rules" ] || nft -f "$rules"; done
for rules in nat/*.v4; do
    [ -f "$rules" ] || continue
    iptables-restore --noflush "$rules"
    name=$(basename "$rules" .v4)
    for place in 'nat PREROUTING in' 'nat POSTROUTING out' 'filter FORWARD fwd'; do
        set -- $place
        iptables -t "$1" -C "$2" -j "$name-$3" 2> /dev/null ||
            iptables -t "$1" -I "$2" 1 -j "$name-$3"
    done
done
if [ -f /etc/sysctl.d/90-vcld-nat.conf ]; then sysctl -q -w net.ipv4.ip_forward=1; fi
ls /etc/ssh/ssh_host_*_key > /dev/null 2>&1 || ssh-keygen -A
exit 0
END
    if has_systemd; then
        put /etc/systemd/system/vcld-boot.service 644 << 'END' && enable_service vcld-boot
[Unit]
Description=Firewall and host keys of a VCL computer
DefaultDependencies=no
After=local-fs.target nftables.service netfilter-persistent.service ufw.service
After=iptables.service ip6tables.service
Before=network-pre.target sshd.service ssh.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/etc/vcld/boot

[Install]
WantedBy=sysinit.target
END
        return 0
    fi
    put /etc/init.d/vcld-boot 755 << 'END' && enable_service vcld-boot
#!/bin/sh
### BEGIN INIT INFO
# Provides:          vcld-boot
# Required-Start:    $local_fs
# Required-Stop:
# Default-Start:     S
# Default-Stop:
# Short-Description: Firewall and host keys of a VCL computer
### END INIT INFO
# chkconfig: 2345 08 92
case $1 in start) exec /etc/vcld/boot ;; esac
END
    return 0
}
