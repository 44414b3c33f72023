# What accounts leave behind: processes, files, shared memory.

# more_uids UID NAME: further numbers that a user's containers may use: first and last, a line each.
more_uids() {
    awk -F: -v name="$2" -v uid="$1" '
        ($1 == name || $1 == uid) && $2 >= 1000 && $3 > 0 { print $2, $2 + $3 - 1 }
    ' /etc/subuid 2> /dev/null
}
# container_uids UID NAME: those of them that processes have and no account.
container_uids() {
    more_uids "$1" "$2" | while read -r first last; do
        for uid_there in $(ps -eo ruid=,euid= | tr -s ' ' '\n' | sort -nu); do
            [ "$uid_there" -ge "$first" ] && [ "$uid_there" -le "$last" ] || continue
            getent passwd "$uid_there" > /dev/null || echo "$uid_there"
        done
    done
}
# end_processes UID NAME
end_processes() {
    have pgrep && have pkill || fail 'pgrep and pkill are missing: the image needs procps'
    n=0
    for number in "$1" $(container_uids "$1" "$2"); do
        while pgrep -U "$number" > /dev/null 2>&1 || pgrep -u "$number" > /dev/null 2>&1; do
            pkill -KILL -U "$number" 2> /dev/null
            pkill -KILL -u "$number" 2> /dev/null
            n=$((n + 1))
            [ $n -lt 100 ] || fail "processes of user $1 do not end"
            sleep 0.1
        done
    done
}
# remove_mounts UID: what a user mounted goes; other shares keep a home from being removed.
remove_mounts() {
    awk -v user="user_id=$1" '$3 ~ /^fuse/ && "," $4 "," ~ "," user "," { print $2 }' /proc/mounts |
        sed 's/\\/\\0/g' | while IFS= read -r place; do
        umount -l "$(printf '%b' "$place")" 2> /dev/null
    done
}
# owned_by UID NAME: the test of find for what is a user's, or made under a number of more_uids.
owned_by() {
    printf '( -uid %s' "$1"
    more_uids "$1" "$2" | while read -r first last; do
        printf ' -o -uid +%s -uid -%s -nouser' $((first - 1)) $((last + 1))
    done
    printf ' )'
}
# remove_files UID NAME DEEP: a user's files where everybody may write; DEEP: on every local disk.
remove_files() {
    mine=$(owned_by "$1" "$2")
    remove_from "$mine" /tmp /var/tmp /dev/shm /dev/mqueue /run/lock /var/lock/. /var/crash \
        /run/user /var/spool/cron /var/spool/at /var/mail /var/spool/mail \
        /var/lib/systemd/linger /run/screen
    [ -n "$3" ] || return 0
    places=$(df -lP 2> /dev/null | awk 'NR > 1 && $6 !~ /^\/(proc|sys|boot)/ { print $6 }')
    mine="$mine$(not_excluded)"
    # An image may hold files with the number of one who comes later: what is older than the first
    # way in is not the user's.
    if [ -e $GRANTED ]; then
        search "$mine -depth -cnewer $GRANTED ( ! -type d -o -empty ) -delete" $places
    else
        remove_from "$mine" $places
    fi
}
# not_excluded: the test of find for what the exclude list does not name.
not_excluded() {
    [ -f $EXCLUDE ] || return 0
    grep '^/[^[:space:]]*$' $EXCLUDE | while IFS= read -r kept; do
        printf ' ! -path %s ! -path %s/*' "${kept%/}" "${kept%/}"
    done
}
# remove_from TEST PLACE...: what passes the test there, with all below it.
remove_from() {
    chosen=$1
    shift
    search "$chosen -prune -exec rm -rf {} +" "$@"
}
# search WORDS PLACE...: find by these words in each place, but for the home.
search() {
    words=$1
    shift
    set -f  # they are words, not names of files
    for place in "$@"; do
        [ -d "$place" ] || continue
        timeout -k 5 300 find "$place" -xdev ! -path "$home" ! -path "$home/*" $words 2> /dev/null
        case $? in 124 | 137) fail "$place could not be searched for a user's files in time" ;; esac
    done
    set +f
}
# remove_ipc UID NAME: what a user owns or made, by numbers: ipcs cuts names short.
remove_ipc() {
    have ipcrm || return 0
    numbers="$1 $1 $(more_uids "$1" "$2" | tr '\n' ' ')"
    for kind in m:shm s:sem q:msg; do
        for id in $(awk -v numbers="$numbers" '
            NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; pairs = split(numbers, part); next }
            { for (i = 1; i < pairs; i += 2)
                  if (is_in($column["uid"], i) || is_in($column["cuid"], i)) { print $2; next } }
            function is_in(number, i) { return number >= part[i] + 0 && number <= part[i + 1] + 0 }
        ' "/proc/sysvipc/${kind#*:}" 2> /dev/null); do
            ipcrm "-${kind%:*}" "$id" 2> /dev/null
        done
    done
}
