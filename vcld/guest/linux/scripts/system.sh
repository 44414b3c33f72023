# The rest of what makes a freshly loaded computer ours.

# check_tools: what an image must have, told at its first load.
check_tools() {
    lacks=''
    for tool in bash awk sed grep useradd userdel usermod groupadd gpasswd chpasswd pgrep pkill ip; do
        have $tool || lacks="$lacks $tool"
    done
    have ss || have netstat || lacks="$lacks ss"
    [ -z "$lacks" ] || refuse "the image lacks programs that vcld needs:$lacks"
}
# run_local STAGE SECONDS: the image's own script for a stage; its failure is only told of.
run_local() {
    for path in "/usr/local/vcl/$1" "/etc/init.d/$1"; do
        [ -x "$path" ] || continue
        fact ran "$path"
        timeout -k 10 "$2" "$path" > /dev/null 2>&1 < /dev/null || warn "$path failed with status $?"
    done
}
# A password that nobody knows: keys are the way in.
random_root_password() {
    word=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
    printf 'root:%s\n' "$word" | chpasswd 2> /dev/null || warn 'the password of root was not changed'
}
remove_private_keys() {
    for path in /root/.ssh/id_*; do
        case $path in *.pub | */id_\*) ;; *) rm -f "$path" ;; esac
    done
}
# name_host ADDRESS: the name that the address has in the DNS, if it has one.
name_host() {
    name=$(timeout 5 getent hosts "$1" 2> /dev/null | awk '{ print $2; exit }')
    case $name in '' | localhost* | "$1") return 0 ;; esac
    if has_systemd && have hostnamectl; then
        hostnamectl set-hostname "$name" > /dev/null 2>&1 && return 0
    fi
    hostname "$name" 2> /dev/null
    if [ -f /etc/sysconfig/network ]; then
        sed -i '/^HOSTNAME=/d' /etc/sysconfig/network
        echo "HOSTNAME=$name" >> /etc/sysconfig/network
    fi
    echo "$name" > /etc/hostname
}
name_public_host() { [ -z "${found:-}" ] || name_host "$found"; }
# set_time SERVER...: by what the image has; the first server that answers counts.
set_time() {
    [ $# -gt 0 ] || return 0
    if have chronyc && [ -d /etc/chrony ]; then
        for server in "$@"; do echo "server $server iburst"; done |
            put /etc/chrony/sources.d/vcld.sources 644 && chronyc reload sources > /dev/null 2>&1
        chronyc -a makestep > /dev/null 2>&1
    elif have chronyc && [ -f /etc/chrony.conf ]; then
        { grep -v -E '^(server|pool) ' /etc/chrony.conf
          for server in "$@"; do echo "server $server iburst"; done; } | put /etc/chrony.conf 644 &&
            service_do restart chronyd
    elif has_systemd && [ -e /lib/systemd/systemd-timesyncd ]; then
        printf '[Time]\nNTP=%s\n' "$*" | put /etc/systemd/timesyncd.conf.d/vcld.conf 644 &&
            service_do restart systemd-timesyncd
    elif have ntpd && [ -f /etc/ntp.conf ]; then
        { grep -v '^server ' /etc/ntp.conf
          for server in "$@"; do echo "server $server"; done; } | put /etc/ntp.conf 644 &&
            { service_do restart ntpd || service_do restart ntp; }
    fi
    for server in "$@"; do
        if have rdate; then timeout 5 rdate -s "$server" > /dev/null 2>&1 && return 0; fi
        if have ntpdate; then timeout 5 ntpdate -u "$server" > /dev/null 2>&1 && return 0; fi
    done
    return 0
}
# mount_share USER HOST:REMOTE LOCAL
mount_share() {
    mkdir -p "$2"
    grep -q " $2 .*Added by VCL" /etc/fstab 2> /dev/null ||
        printf '%s %s nfs rw,soft 0 0 # Added by VCL\n' "$1" "$2" >> /etc/fstab
    awk -v place="$2" '$2 == place { found = 1 } END { exit !found }' /proc/mounts ||
        timeout 60 mount "$2" > /dev/null 2>&1 || warn "$1 could not be mounted on $2"
}
boot_id() { fact boot "$(cat /proc/sys/kernel/random/boot_id)"; }
# The connection must be able to answer before the system goes.
restart_system() { (sleep 0.2; shutdown -r now) > /dev/null 2>&1 < /dev/null & }
stop_system() { (sleep 0.2; shutdown -h now) > /dev/null 2>&1 < /dev/null & }
# The user's own data for the scripts of an image, and who belongs to a cluster.
write_userdata() { printf '%s' "$1" | put /root/.vclcontrol/post_reserve_userdata 600 || :; }
write_cluster() { printf '%s\n' "$1" | put /etc/cluster_info 644 || :; }
# forget_reservation: both are of no concern to the next user.
forget_reservation() { rm -f /root/.vclcontrol/post_reserve_userdata /etc/cluster_info; }
