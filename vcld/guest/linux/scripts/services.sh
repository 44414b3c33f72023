# Services, by systemd or by the scripts of SysV.

has_systemd() { [ -d /run/systemd/system ]; }
has_service() {
    if has_systemd; then
        systemctl cat "$1.service" > /dev/null 2>&1
    else
        [ -x "/etc/init.d/$1" ]
    fi
}
# service_do ACTION NAME: what a service leaves running must not hold our output open. What it says
# goes where no user can lay a link or a file of their own.
service_do() {
    mkdir -p /etc/vcld
    if has_systemd; then
        timeout -k 5 90 systemctl "$1" "$2.service" > /etc/vcld/said 2>&1 < /dev/null
    else
        timeout -k 5 90 "/etc/init.d/$2" "$1" > /etc/vcld/said 2>&1 < /dev/null
    fi
    code=$?
    said=$(head -c 500 /etc/vcld/said)
    rm -f /etc/vcld/said
    return $code
}
# Make a service start at every boot.
enable_service() {
    if has_systemd; then
        systemctl daemon-reload
        systemctl enable "$1.service" > /dev/null 2>&1
    elif have chkconfig; then
        chkconfig --add "$1" && chkconfig "$1" on
    else
        # Twice: before the network, and after what else loads rules.
        for place in S08 S99; do ln -sf "../init.d/$1" "/etc/rcS.d/$place$1"; done
    fi
}
# Users may restart their computer: ext_sshd comes back with it for as long as they have access.
start_at_boot() {
    if has_systemd; then
        systemctl enable ext_sshd.service > /dev/null 2>&1
    elif have chkconfig; then
        chkconfig --add ext_sshd && chkconfig ext_sshd on
    else
        for level in 2 3 4 5; do
            [ ! -d "/etc/rc$level.d" ] || ln -sf ../init.d/ext_sshd "/etc/rc$level.d/S99ext_sshd"
        done
    fi
}
not_at_boot() {
    if has_systemd; then
        systemctl disable ext_sshd.service > /dev/null 2>&1
    elif have chkconfig; then
        chkconfig ext_sshd off > /dev/null 2>&1
    else
        rm -f /etc/rc[2345].d/S99ext_sshd
    fi
}
# start_method SERVICE STARTUP-SCRIPT: what a connect method needs, running; either may be empty.
start_method() {
    case $1 in ext_sshd) ! is_shared_sshd || return 0 ;; esac
    if [ -n "$1" ] && has_service "$1"; then
        service_do start "$1" || fail "service $1 does not start: $said"
    elif [ -n "$2" ] && [ -x "$2" ]; then
        timeout 90 "$2" start > /dev/null 2>&1 < /dev/null || fail "$2 failed"
    elif [ -n "$1$2" ]; then
        fail "there is no service ${1:-$2}"
    fi
    [ "$1" != ext_sshd ] || start_at_boot
}
# resume_methods: what the connect methods need runs again after a restart of the computer.
resume_methods() {
    [ -f $METHODS ] && [ "$(cat $STARTED 2> /dev/null)" != "$(cat $BOOT_ID)" ] || return 0
    while IFS='|' read -r service script ports; do
        resume_method "$service" "$script"
    done < $METHODS
    put $STARTED 644 < $BOOT_ID || :
}
# The session goes on without it.
resume_method() {
    case $1 in ext_sshd) ! is_shared_sshd || return 0 ;; esac
    if [ -n "$1" ] && has_service "$1"; then
        service_do start "$1" || warn "service $1 does not start: $said"
    elif [ -n "$2" ] && [ -x "$2" ]; then
        timeout 90 "$2" start > /dev/null 2>&1 < /dev/null || warn "$2 failed"
    fi
}
stop_method() {
    case $1 in sshd | ssh) return 0 ;; ext_sshd) not_at_boot ;; esac  # the first two are our own way in
    if [ -n "$1" ] && has_service "$1"; then
        service_do stop "$1" || warn "service $1 does not stop: $said"
    elif [ -n "$2" ] && [ -x "$2" ]; then
        timeout 90 "$2" stop > /dev/null 2>&1 < /dev/null || warn "$2 failed"
    fi
}
# One address for everything: then one sshd serves the management node and the users.
is_shared_sshd() { [ -e /etc/vcld/shared-sshd ]; }

# keep_methods LINE...: what stop_methods has to undo: "service|startup script|ports".
METHODS=/etc/vcld/methods
# Since this file is there somebody may have come in, whether we saw them or not.
GRANTED=/etc/vcld/granted
# The start of the system for which they were started.
STARTED=/etc/vcld/started
BOOT_ID=/proc/sys/kernel/random/boot_id
keep_methods() {
    printf '%s\n' "$@" | put $METHODS 644 || :
    put $STARTED 644 < $BOOT_ID || :
    [ -e $GRANTED ] || : > $GRANTED
}
stop_methods() {
    [ -f $METHODS ] || { stop_method ext_sshd ''; return 0; }
    while IFS='|' read -r service script ports; do
        stop_method "$service" "$script"
    done < $METHODS
    rm -f $METHODS
}
