#!/bin/bash
# The first process of a test host: its own mounts, then one boot after another. With "sysv" it
# runs the boot scripts itself; with "systemd" each boot is a real systemd, first process of a PID,
# mount and cgroup namespace within this one.
# Started in the host's network namespace with own mount, UTS, PID and IPC namespaces.
# $1: folder of the host's disk; $2: host name; $3: sysv or systemd; $4: name of its control group.
set -eu
disk=$1 init=$3 group=$4
mount --make-rprivate /
# A disk of its own: the machine's is only read, and what is large or private there is not seen.
mkdir -p "$disk/memory"
mount -t tmpfs tmpfs "$disk/memory"
mkdir "$disk/memory/upper" "$disk/memory/work" "$disk/memory/new"
new=$disk/memory/new
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/memory/upper,workdir=$disk/memory/work" "$new"
mount --rbind /dev "$new/dev"
mount --rbind /sys "$new/sys"
for path in "$new"/*; do
    case ${path##*/} in
        bin | boot | dev | etc | lib | lib32 | lib64 | libx32 | proc | sbin | sys | usr | var) ;;
        *) [ ! -d "$path" ] || [ -L "$path" ] || mount -t tmpfs -o mode=755 tmpfs "$path" ;;
    esac
done
mkdir -p "$new/mnt" "$new/old"
mount --bind "$disk" "$new/mnt"
disk=/mnt
cd "$new"
pivot_root . old
mount -t proc proc /proc
umount -l /old
rmdir /old
chmod 700 /root
rm -rf /var/mail/* /var/spool/cron/crontabs/* /var/tmp/* /etc/rc[S0-6].d/*
hostname "$2"
echo "$2" > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" > /etc/hosts
rm -f /etc/ssh/ssh_host_*
for kind in ed25519 ecdsa; do ssh-keygen -q -t $kind -N "" -f "/etc/ssh/ssh_host_${kind}_key"; done
cat > /etc/ssh/sshd_config <<END
Include /etc/ssh/sshd_config.d/*.conf
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
PrintMotd no
Subsystem sftp /usr/lib/openssh/sftp-server
END
mkdir -p -m 700 /root/.ssh
cp "$disk/authorized_keys" /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
install_sysv() {
    # A stand-in for SysV's shutdown: the same command line, told to this first process.
    rm -f /usr/sbin/shutdown /usr/sbin/reboot /usr/sbin/poweroff
    cat > /usr/sbin/shutdown <<'END'
#!/bin/sh
case "$*" in "-r now") echo reboot ;; "-h now" | "-P now") echo halt ;; *) exit 64 ;; esac > /run/initctl
END
    chmod 755 /usr/sbin/shutdown
    ln -s /etc/init.d/ssh /etc/rc2.d/S01ssh
}
# Of the machine's services only sshd is started; what touches the kernel of the machine never is.
install_systemd() {
    rm -rf /etc/systemd/system/*.wants /etc/netplan/* /var/log/journal
    : > /etc/fstab
    : > /etc/machine-id
    ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target
    for unit in systemd-sysctl systemd-modules-load systemd-binfmt systemd-remount-fs \
        systemd-networkd-wait-online NetworkManager-wait-online systemd-udevd; do
        ln -sf /dev/null "/etc/systemd/system/$unit.service"
    done
    cat > /etc/systemd/system/test-booted.service <<'END'
[Unit]
After=ssh.service sshd.service ssh.socket vcld-boot.service firewalld.service network.target NetworkManager.service systemd-networkd.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'touch /mnt/started; date +%%s.%%N > /mnt/booted'
[Install]
WantedBy=multi-user.target
END
    systemctl -q enable ssh.service test-booted.service 2> /dev/null
    mkdir -p "$disk/groups"
    mount -t cgroup2 cgroup2 "$disk/groups"
}
"install_$init"
cp /usr/sbin/nft "$disk/nft"  # the host itself may be made to have none
[ ! -x "$disk/prepare" ] || "$disk/prepare"

forget() {
    # What a kernel forgets at a restart.
    "$disk/nft" flush ruleset
    for tool in iptables-legacy ip6tables-legacy; do
        if [ -s /proc/net/ip_tables_names ]; then $tool -F; $tool -X; $tool -t nat -F; $tool -t nat -X; fi
    done 2>/dev/null
    sysctl -q -w net.ipv4.ip_forward=0
    umount /proc/sys/kernel/random/boot_id 2>/dev/null || true
    cat /proc/sys/kernel/random/uuid > "$disk/boot_id"
}
boot_sysv() {
    for place in /run /tmp /dev/shm /dev/pts; do
        umount -l "$place" 2>/dev/null || true
    done
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /dev/pts
    mount --bind /dev/pts/ptmx /dev/ptmx
    touch /run/utmp
    mkdir -p /run/lock
    mkfifo /run/initctl
    forget
    mount --bind "$disk/boot_id" /proc/sys/kernel/random/boot_id
    for script in /etc/rcS.d/S* /etc/rc2.d/S*; do
        [ ! -x "$script" ] || "$script" start > /dev/null 2>> /var/log/boot.log < /dev/null || true
    done
    for _ in $(seq 200); do  # its boot script does not wait for it
        [ ! -e "$disk/silent" ] || break
        [ -z "$(ss -Htln 'sport = :22')" ] || break
        sleep 0.01
    done
    date +%s.%N > "$disk/booted"
    read -r what < /run/initctl
    kill -KILL -1 2>/dev/null || true
}
# The namespaces' end kills whatever the system left; reboot(2) says by a signal what was asked.
boot_systemd() {
    forget
    place=$disk/groups/$group.$RANDOM$RANDOM
    mkdir "$place"
    rm -f "$disk/started"
    (
        echo "$BASHPID" > "$place/cgroup.procs"
        exec unshare --cgroup --pid --fork --mount --kill-child bash -c "
            set -eu
            umount $disk/groups
            mount -t proc proc /proc
            mount --bind $disk/boot_id /proc/sys/kernel/random/boot_id
            mount --rbind /proc/sys /proc/sys
            mount --bind /proc/sys/net /proc/sys/net
            mount -o remount,bind,ro /proc/sys
            umount -l /sys
            mount -t sysfs -o ro sysfs /sys
            mount -t cgroup2 cgroup2 /sys/fs/cgroup
            mount -t tmpfs -o mode=755 tmpfs /run
            mount -t tmpfs -o mode=1777 tmpfs /tmp
            mkdir /run/dev
            for name in null zero full random urandom tty; do
                : > /run/dev/\$name
                mount --bind /dev/\$name /run/dev/\$name
            done
            mkdir /run/new
            mount -t tmpfs -o mode=755 tmpfs /run/new
            for name in null zero full random urandom tty; do
                : > /run/new/\$name
                mount --move /run/dev/\$name /run/new/\$name
            done
            mkdir /run/new/pts /run/new/shm
            mount --move /run/new /dev
            rmdir /run/dev /run/new 2> /dev/null || rm -rf /run/dev /run/new
            mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /dev/pts
            ln -s pts/ptmx /dev/ptmx
            mount -t tmpfs -o mode=1777 tmpfs /dev/shm
            exec env -i container=vcld-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
        " < /dev/null
    ) &
    code=0
    wait $! || code=$?
    [ -e "$disk/started" ] || exit 1
    case $code in 130) what=halt ;; *) what=reboot ;; esac
    find "$place" -depth -type d -exec rmdir {} + 2> /dev/null || true
}

while :; do
    "boot_$init"
    echo "$what" > "$disk/last"
    rm -f "$disk/booted"
    [ "$what" != halt ] || exit 0
done
