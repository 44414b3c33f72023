# Who is connected: raw facts; the worker decides.

# connections: a line each, with the addresses on both sides third and fourth.
connections() {
    if have ss; then
        ss -Htnp state established 2> /dev/null || ss -tnp state established | sed 1d
    else
        netstat -tnp 2> /dev/null | awk '$6 == "ESTABLISHED" { print 0, 0, $4, $5, $7 }'
    fi
}
show_connections() {
    connections | while IFS= read -r line; do fact socket "$line"; done
    who 2> /dev/null | while IFS= read -r line; do fact who "$line"; done
    ps -eo pid=,user:64= 2> /dev/null | while read -r pid user; do
        case $user in root | daemon) ;; *) fact process "$pid $user" ;; esac
    done
}
# refuse_if_in_use: fail when somebody is connected to a port of a connect method.
refuse_if_in_use() {
    [ -f $METHODS ] || return 0
    have ss || have netstat || fail 'nobody can say who is connected: ss and netstat are missing'
    for port in $(cut -d'|' -f3 $METHODS); do
        found=$(connections | awk -v node="$node" -v port=":$port" '
            substr($3, length($3) - length(port) + 1) == port {
              peer = $4; sub(/:[0-9]+$/, "", peer); gsub(/[][]/, "", peer); sub(/^::ffff:/, "", peer)
              if (peer != node) { print peer; exit } }')
        [ -z "$found" ] || fail "a user is connected from $found to port $port"
    done
}
# refuse_if_root_came: who had root rights and came and went unseen may have left anything.
refuse_if_root_came() {
    if [ -e $GRANTED ] && [ -e /etc/sudoers.d/vcld ]; then
        add_taint 'a user with root rights was let in'
        fail 'access was granted to a user with root rights; nobody knows what they left'
    fi
}
tell_users() {
    printf '%s\n' "$1" | wall 2> /dev/null && return 0
    who | awk '{ print $1, $2 }' | while read -r user line; do
        printf '%s\n' "$1" | write "$user" "$line" 2> /dev/null
    done
}
