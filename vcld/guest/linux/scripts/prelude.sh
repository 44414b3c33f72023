# The beginning of every script: plain POSIX sh, for old images too.
# Facts for the worker go out as lines "vcld:NAME=VALUE"; whatever else is printed is ignored.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C
export PATH LC_ALL
umask 022

fact() { printf 'vcld:%s=%s\n' "$1" "$2"; }
fail() {
    fact error "$(printf '%s' "$1" | tr '\n\t\r' '   ')"
    exit 1
}
# refuse TEXT: what is asked cannot be done on any computer; this one is not at fault.
refuse() {
    fact refused yes
    fail "$1"
}
warn() { fact warning "$(printf '%s' "$1" | tr '\n\t\r' '   ')"; }
have() { command -v "$1" > /dev/null 2>&1; }
# try WHAT COMMAND...: the command must succeed.
try() {
    what=$1
    shift
    said=$("$@" 2>&1) || fail "$what: $said"
}
# put PATH MODE: the standard input becomes the file, at one moment; says whether it is new.
put() {
    mkdir -p "${1%/*}"
    (umask 077 && cat > "$1.vcld-new") || fail "$1 cannot be written"
    chmod "$2" "$1.vcld-new"
    if cmp -s "$1.vcld-new" "$1" 2> /dev/null; then
        rm -f "$1.vcld-new"
        return 1
    fi
    mv -f "$1.vcld-new" "$1" || fail "$1 cannot be written"
    return 0
}
# The addresses of this connection: the management node's as seen here, and our own.
set_node() {
    node=${SSH_CONNECTION:-}
    own=${node#* * }
    own=${own%% *}
    node=${node%% *}
    node=${node#::ffff:}
    own=${own#::ffff:}
}
node='' own=''
set_node
