# What the computer says about itself, in currentimage.txt.

TAGS=/root/currentimage.txt

show_tags() {
    [ -f $TAGS ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do fact tag "$line"; done < $TAGS
}
# set_tag NAME VALUE: with a time, as VCL's own tools write it; an empty VALUE removes it.
set_tag() {
    {
        [ ! -f $TAGS ] || grep -v -i "^$1=" $TAGS
        [ -z "$2" ] || printf '%s=%s (%s)\n' "$1" "$2" "$(date '+%Y-%m-%d %H:%M:%S')"
    } | put $TAGS 644 || :
}
# add_taint REASON: one line holds all reasons.
add_taint() {
    before=$(sed -n 's/^vcld_tainted=\(.*\) ([^()]*)$/\1/p' $TAGS 2> /dev/null)
    case ", $before," in *", $1,"*) return 0 ;; esac
    set_tag vcld_tainted "${before:+$before, }$1"
}
# clear_taint: every trace was searched for and is gone.
clear_taint() {
    rm -f $GRANTED
    ! is_tainted || set_tag vcld_tainted ''
}
is_tainted() { grep -q -i '^vcld_tainted=' $TAGS 2> /dev/null; }
# write_tags TEXT: the whole file anew.
write_tags() { printf '%s\n' "$1" | put $TAGS 644 || :; }
ensure_tags() { [ -s $TAGS ] || write_tags "$1"; }
