# Accounts of reservations: those whose first group is vcl. Others are never removed: a user whose
# account a directory keeps is a member of the group for as long as the reservation lasts.

GROUP=vcl
EXCLUDE=/root/.vclcontrol/vcl_exclude_list
LENT=/etc/vcld/lent

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
        refuse_system "$1" "$entry"
        if [ "$(id -gn "$1")" = $GROUP ]; then
            try "account $1 stays closed" usermod -e '' "$1"  # its removal was broken off
        else
            lend "$1"
        fi
    fi
    if [ -n "$3" ]; then
        said=$(printf '%s:%s\n' "$1" "$3" | chpasswd 2>&1) || fail "no password for $1: chpasswd failed"
    fi
    [ -z "$4" ] || add_keys "$1" "$4"
}
add_account() {
    name=$1 uid=$2
    # A number below 500 is no user's here, and some above are nobody's.
    case $uid in *[!0-9]*) uid=0 ;; esac
    if [ "$uid" -lt 500 ] || [ "$uid" -gt 2147483646 ] || [ "$uid" -eq 65534 ] ||
        [ "$uid" -eq 65535 ] || getent passwd "$uid" > /dev/null; then
        uid=''
    fi
    # '*' is no password, but does not lock the account: a directory or a key may open it.
    # The image's rules for new accounts may let them end on a day.
    set -- -s /bin/bash -m -d "/home/$1" -g $GROUP -e '' -p '*' "$1"
    [ -z "$uid" ] || set -- -u "$uid" "$@"
    said=$(useradd "$@" 2>&1) || case $? in
        3) refuse "user $name can have no account here: $said" ;;
        *) fail "no account: $said" ;;
    esac
    take_home "$name"
}
# take_home NAME: what the image has in its place is nobody's, or must be left to whom it belongs.
take_home() {
    [ -d "/home/$1" ] && [ ! -L "/home/$1" ] && is_local_folder "/home/$1" || return 0
    case $(stat -c %U "/home/$1") in
        "$1") return 0 ;;
        root | UNKNOWN) ;;
        *) refuse "/home/$1 of the image belongs to another account" ;;
    esac
    find "/home/$1" -xdev '(' -nouser -o -path "/home/$1" ')' -exec chown -h "$1:$GROUP" {} +
}
# refuse_system NAME ENTRY: an account that nobody is meant to log in to.
refuse_system() {
    number=$(printf '%s' "$2" | cut -d: -f3)
    shell=$(printf '%s' "$2" | cut -d: -f7)
    case $number:$shell in
        *:*/nologin | *:*/false | 65534:*) number=0 ;;
    esac
    [ "$number" -ge 500 ] || refuse "account $1 belongs to the system; no user can have it"
}
# refuse_roots NAME...: an account of the image's own may give root access whatever we say.
refuse_roots() {
    for present in $(guests); do
        case " $* " in *" $present "*) continue ;; esac
        ! may_become_root "$present" ||
            refuse "account $present of the image may become root, and its user may not"
    done
}
# may_become_root NAME: by a group, or by a rule that names it and any command.
may_become_root() {
    ! id -Gn "$1" | tr ' ' '\n' | grep -qxE 'root|wheel|sudo|admin|docker|lxd|incus|libvirt|disk|shadow' ||
        return 0
    have sudo && timeout 10 sudo -n -l -U "$1" 2> /dev/null < /dev/null |
        grep -qE '^ *\([^)]*(root|ALL)[^)]*\).* ALL$'
}
# lend NAME: what the account is like without us is kept for give_back.
lend() {
    mkdir -p -m 700 $LENT
    if [ ! -e "$LENT/$1" ]; then
        getent shadow "$1" | cut -d: -f2 | put "$LENT/$1" 600 || :
        ! crontab -l -u "$1" > /dev/null 2>&1 || : > "$LENT/$1:cron"
        [ ! -e "/var/lib/systemd/linger/$1" ] || : > "$LENT/$1:linger"
    fi
    id -Gn "$1" | tr ' ' '\n' | grep -qx $GROUP ||
        try "account $1 gets no group" gpasswd -a "$1" $GROUP
}
# give_back NAME: no password, key, process or file of a reservation stays with a lent account.
give_back() {
    gpasswd -d "$1" $GROUP > /dev/null 2>&1
    [ -e "$LENT/$1:linger" ] || ! has_systemd || loginctl disable-linger "$1" > /dev/null 2>&1
    if ! uid=$(id -u "$1" 2> /dev/null); then
        [ ! -e "$LENT/$1" ] || fail "account $1 is not known any more: nobody can say what is left of it"
        return 0
    fi
    end_processes "$uid" "$1"
    [ -e "$LENT/$1" ] || return 0
    [ -e "$LENT/$1:cron" ] || crontab -r -u "$1" 2> /dev/null
    home=$(getent passwd "$1" | cut -d: -f6)
    remove_from "$(owned_by "$uid" "$1")" /tmp /var/tmp /dev/shm /dev/mqueue /run/lock \
        /var/lock/. /var/crash /var/spool/at /var/spool/cron/atjobs
    remove_ipc "$uid" "$1"
    if [ -s "$LENT/$1:keys" ]; then
        timeout 30 su -s /bin/sh "$1" -c 'umask 077
            cd && [ -f .ssh/authorized_keys ] || exit 0
            grep -v -x -F -f - .ssh/authorized_keys > .ssh/authorized_keys.vcld
            cat .ssh/authorized_keys.vcld > .ssh/authorized_keys
            rm -f .ssh/authorized_keys.vcld' < "$LENT/$1:keys" || warn "keys of $1 may be left"
    fi
    if [ -s "$LENT/$1" ]; then
        printf '%s:%s\n' "$1" "$(cat "$LENT/$1")" | chpasswd -e > /dev/null 2>&1 ||
            fail "account $1 does not get back its password"
    fi
    rm -f "$LENT/$1" "$LENT/$1":*
}
# tell_late: what one user can bring about keeps no other from having an account.
late=''
tell_late() { [ -z "$late" ] || fail "$late"; }
# Written as the user: what root writes into a user's folder may follow the user's links.
add_keys() {
    added=$(printf '%s\n' "$2" | timeout 30 su -s /bin/sh "$1" -c '
        umask 077
        cd && mkdir -p .ssh && touch .ssh/authorized_keys || exit 1
        while IFS= read -r key; do
            [ -z "$key" ] || grep -qxF -e "$key" .ssh/authorized_keys ||
                { printf "%s\n" "$key" >> .ssh/authorized_keys && printf "%s\n" "$key"; } || exit 1
        done') || late="${late:+$late, }no ssh keys for $1"
    [ ! -e "$LENT/$1" ] || [ -z "$added" ] || printf '%s\n' "$added" >> "$LENT/$1:keys"
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
# drop_roots NAME...: nobody but these keeps root access; nobody gets it.
drop_roots() {
    [ -f /etc/sudoers.d/vcld ] || return 0
    for name in "$@"; do grep -F "\"$name\" ALL=" /etc/sudoers.d/vcld; done |
        (umask 077 && cat > /etc/vcld-sudoers)
    chmod 440 /etc/vcld-sudoers
    mv -f /etc/vcld-sudoers /etc/sudoers.d/vcld || fail 'root access cannot be taken away'
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
        [ -n "$stays" ] || give_back "$present"
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
    awk -v home="$1" '($2 == home || index($2, home "/") == 1) && $3 ~ /^(nfs|nfs4|cifs|afs|fuse)/ { found = 1 }
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
    end_processes "$uid" "$name"
    remove_mounts "$uid"
    remove_files "$uid" "$name" "$2"
    remove_ipc "$uid" "$name"
    set -- "$name"
    if is_local_folder "$home" && ! is_excluded "$home" && ! has_remote_mount "$home"; then
        set -- -r "$name"
    fi
    group=$(getent group "$name")
    said=$(userdel -f "$@" 2>&1)
    restore_group "$group"
    ! getent passwd "$name" > /dev/null || fail "account $name cannot be removed: $said"
    if [ $# -eq 2 ] && [ -d "$home" ]; then
        case $home in /home/?*) rm -rf "$home" ;; esac
    fi
    fact removed "$name"
}
# restore_group ENTRY: a group that an account is named like goes with it by force.
restore_group() {
    [ -n "$1" ] && ! getent group "${1%%:*}" > /dev/null || return 0
    number=$(printf '%s' "$1" | cut -d: -f3)
    try "group ${1%%:*}" groupadd -g "$number" "${1%%:*}"
    [ -z "${1##*:}" ] || gpasswd -M "${1##*:}" "${1%%:*}"
}
# remove_all: every account of a reservation; everywhere, if somebody may have logged in.
remove_all() {
    deep=''
    if is_tainted || [ -e $GRANTED ]; then deep=yes; fi
    for present in $(own_accounts); do remove_account "$present" "$deep"; done
    for present in $(guests); do give_back "$present"; done
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
