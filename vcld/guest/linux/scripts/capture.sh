# Before an image is made: nothing of this computer, its users or its site stays in it.

# clear_traces: each path unless the image's exclude list names it.
clear_traces() {
    for path in /root/.bash_history /root/.viminfo /root/.lesshst /root/VCL /root/.ssh/known_hosts \
        /etc/udev/rules.d/70-persistent-* /etc/udev/rules.d/75-persistent-* /var/lib/dhcp/*.leases \
        /var/lib/dhclient/*.leases /var/lib/NetworkManager/*.lease /var/lib/systemd/random-seed \
        /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /var/spool/mail/* /var/mail/* \
        /var/lib/cloud/instances /var/log/journal/* /tmp/* /tmp/.[!.]* \
        /var/tmp/* /var/tmp/.[!.]*; do
        [ -e "$path" ] && ! is_excluded "$path" && rm -rf "$path"
    done
    for path in /var/log/wtmp /var/log/btmp /var/log/lastlog /var/log/messages /var/log/secure \
        /var/log/syslog /var/log/auth.log /var/log/maillog /var/log/cron /var/log/boot.log \
        /var/log/audit/audit.log; do
        [ -f "$path" ] && ! is_excluded "$path" && : > "$path"
    done
    [ ! -s /etc/machine-id ] || is_excluded /etc/machine-id || : > /etc/machine-id
}
# An image that anybody could log in to as root would be no use to keep: there is no password.
lock_root() { usermod -p '*' root || warn 'the password of root was not removed'; }
# single_sshd: one sshd that listens everywhere; the next load parts them again.
single_sshd() {
    stop_method ext_sshd ''
    rm -f /etc/ssh/external_sshd_config /etc/vcld/shared-sshd $METHODS $GRANTED $STARTED
    plain_config | put /etc/ssh/sshd_config 600 || :
}
write_exclude_sample() {
    put /root/.vclcontrol/vcl_exclude_list.sample 644 << 'END' || :
# What a line of vcl_exclude_list names stays as it is when an image is made and when an account
# is removed: a path, with everything below it; * and ? stand for signs. Lines that do not begin
# with / are left out.
END
}
