# Accounts of reservations: those whose first group is vcl. Others are never removed: a user whose
# account a directory keeps is a member of the group for as long as the reservation lasts.

GROUP=vcl
EXCLUDE=/root/.vclcontrol/vcl_exclude_list

ensure_group() { getent group $GROUP > /dev/null || try "group $GROUP" groupadd $GROUP; }
own_accounts() {
    number=$(getent group $GROUP | cut -d: -f3)
    [ -z "$number" ] || getent passwd | awk -F: -v group="$number" '$4 == group { print $1 }'
}
guests() { getent group $GROUP | cut -d: -f4 | tr ',' ' '; }
# account NAME UID PASSWORD KEYS: an account as wanted; empty PASSWORD: none, empty KEYS: none.
account() {
    entry=$(getent passwd "$1")
    if [ -z "$entry" ]; then
        add_account "$1" "$2"
    else
        kept=$(printf '%s' "$entry" | cut -d: -f3)
        [ "$kept" -ge 500 ] || fail "account $1 belongs to the system; no user can have it"
        id -Gn "$1" | tr ' ' '\n' | grep -qx $GROUP ||
            try "account $1 gets no group" gpasswd -a "$1" $GROUP
    fi
    if [ -n "$3" ]; then
        said=$(printf '%s:%s\n' "$1" "$3" | chpasswd 2>&1) || fail "no password for $1: chpasswd failed"
    fi
    [ -z "$4" ] || add_keys "$1" "$4"
}
add_account() {
    uid=$2
    ! getent passwd "$uid" > /dev/null || uid=''
    # '*' is no password, but does not lock the account: a directory or a key may open it.
    set -- -s /bin/bash -m -d "/home/$1" -g $GROUP -p '*' "$1"
    [ -z "$uid" ] || set -- -u "$uid" "$@"
    try 'no account' useradd "$@"
}
# Written as the user: what root writes into a user's folder may follow the user's links.
add_keys() {
    printf '%s\n' "$2" | timeout 30 su -s /bin/sh "$1" -c '
        umask 077
        cd && mkdir -p .ssh && touch .ssh/authorized_keys || exit 1
        while IFS= read -r key; do
            [ -z "$key" ] || grep -qxF -e "$key" .ssh/authorized_keys ||
                printf "%s\n" "$key" >> .ssh/authorized_keys || exit 1
        done' || fail "no ssh keys for $1"
}
# set_roots NAME...: exactly these may become root.
set_roots() {
    if ! have sudo && ! have visudo; then
        [ $# -eq 0 ] || warn 'there is no sudo: nobody gets root access'
        return 0
    fi
    if [ -e /etc/sudoers ] && grep -q 'Added by VCL' /etc/sudoers; then
        sed -i '/Added by VCL/d' /etc/sudoers  # the Perl daemon's
    fi
    if [ $# -eq 0 ]; then
        rm -f /etc/sudoers.d/vcld
        return 0
    fi
    # In quotes, since the bare word ALL is everybody.
    for name in "$@"; do printf '"%s" ALL=(ALL:ALL) NOPASSWD: ALL\n' "$name"; done |
        (umask 077 && cat > /etc/vcld-sudoers)
    try 'sudoers' visudo -cf /etc/vcld-sudoers
    chmod 440 /etc/vcld-sudoers
    mkdir -p /etc/sudoers.d
    mv -f /etc/vcld-sudoers /etc/sudoers.d/vcld
    grep -q -E '^[@#]includedir /etc/sudoers.d' /etc/sudoers ||
        echo '#includedir /etc/sudoers.d' >> /etc/sudoers
}
# remove_others NAME...: no account of a reservation but these stays.
remove_others() {
    for present in $(own_accounts); do
        stays=''
        for name in "$@"; do [ "$name" != "$present" ] || stays=yes; done
        [ -n "$stays" ] || remove_account "$present" ''
    done
    for present in $(guests); do
        stays=''
        for name in "$@"; do [ "$name" != "$present" ] || stays=yes; done
        [ -n "$stays" ] || dismiss "$present"
    done
}
# dismiss NAME: an account that is not ours loses what the reservation gave.
dismiss() {
    gpasswd -d "$1" $GROUP > /dev/null 2>&1
    end_processes "$(id -u "$1")"
}
end_processes() {
    n=0
    while pgrep -U "$1" > /dev/null 2>&1 || pgrep -u "$1" > /dev/null 2>&1; do
        pkill -KILL -U "$1" 2> /dev/null
        pkill -KILL -u "$1" 2> /dev/null
        n=$((n + 1))
        [ $n -lt 100 ] || fail "processes of user $1 do not end"
        sleep 0.1
    done
}
# A path stays if a line of the list, a shell's pattern, names it, a folder above it, or something
# within it.
is_excluded() {
    [ -f $EXCLUDE ] || return 1
    while IFS= read -r kept || [ -n "$kept" ]; do
        kept=${kept%/}
        case $kept in /*) ;; *) continue ;; esac
        case $1 in $kept | $kept/*) return 0 ;; esac
        case $kept in "$1"/*) return 0 ;; esac
    done < $EXCLUDE
    return 1
}
has_remote_mount() {
    awk -v home="$1" 'index($2, home) == 1 && $3 ~ /^(nfs|nfs4|cifs|afs|fuse)/ { found = 1 }
                      END { exit !found }' /proc/mounts
}
is_local_folder() {
    case $(df -PT "$1" 2> /dev/null | awk 'NR == 2 { print $2 }') in
        nfs* | afs | cifs | '') return 1 ;;
    esac
}
# remove_account NAME DEEP: the account, its processes and files. DEEP looks everywhere.
remove_account() {
    name=$1
    entry=$(getent passwd "$name") || return 0
    uid=$(printf '%s' "$entry" | cut -d: -f3)
    home=$(printf '%s' "$entry" | cut -d: -f6)
    [ "$uid" -ge 500 ] || return 0
    usermod -L -e 1 "$name" 2> /dev/null  # nobody comes in again while we clear up
    if has_systemd; then
        loginctl disable-linger "$name" > /dev/null 2>&1
        loginctl terminate-user "$name" > /dev/null 2>&1
    fi
    crontab -r -u "$name" 2> /dev/null
    end_processes "$uid"
    remove_files "$uid" "$2"
    remove_ipc "$name"
    set -- "$name"
    if is_local_folder "$home" && ! is_excluded "$home" && ! has_remote_mount "$home"; then
        set -- -r "$name"
    fi
    said=$(userdel -f "$@" 2>&1)
    ! getent passwd "$name" > /dev/null || fail "account $name cannot be removed: $said"
    if [ $# -eq 2 ] && [ -d "$home" ]; then
        case $home in /home/?*) rm -rf "$home" ;; esac
    fi
    groupdel "$name" 2> /dev/null
    fact removed "$name"
}
# remove_files UID DEEP: a user's files where everybody may write; DEEP: on every local disk.
remove_files() {
    if [ -n "$2" ]; then
        set -- "$1" /dev/mqueue $(df -lP 2> /dev/null |
            awk 'NR > 1 && $6 !~ /^\/(proc|sys|boot)/ { print $6 }')
    else
        set -- "$1" /tmp /var/tmp /dev/shm /dev/mqueue /run/lock /var/lock/. /var/crash /run/user \
            /var/spool/cron /var/spool/at /var/mail /var/spool/mail /var/lib/systemd/linger /run/screen
    fi
    user=$1
    shift
    for place in "$@"; do
        [ -d "$place" ] || continue
        timeout 300 find "$place" -xdev ! -path "$home" ! -path "$home/*" -uid "$user" \
            -prune -exec rm -rf {} + 2> /dev/null
    done
}
remove_ipc() {
    have ipcs || return 0
    for kind in m s q; do
        for id in $(ipcs -$kind 2> /dev/null | awk -v user="$1" '$3 == user { print $2 }'); do
            ipcrm -$kind "$id" 2> /dev/null
        done
    done
}
# remove_all: every account of a reservation; everywhere, if somebody may have logged in.
remove_all() {
    deep=''
    if is_tainted || [ -e $GRANTED ]; then deep=yes; fi
    for present in $(own_accounts); do remove_account "$present" "$deep"; done
    for present in $(guests); do dismiss "$present"; done
}
# prove_clean: what could still be there of a user is not.
prove_clean() {
    left=$(own_accounts)$(guests)
    [ -z "$left" ] || fail "accounts are left: $left"
}
unmount_shares() {
    [ -f /etc/fstab ] || return 0
    for place in $(awk '/Added by VCL/ { print $2 }' /etc/fstab); do
        umount "$place" 2> /dev/null || umount -l "$place" 2> /dev/null
    done
    ! grep -q 'Added by VCL' /etc/fstab || sed -i '/Added by VCL/d' /etc/fstab
}
