#!/bin/bash
# The first process of a test host: its own mounts, then one boot after another, as SysV init does.
# Started in the host's network namespace with own mount, UTS, PID and IPC namespaces.
# $1: folder of the host's disk; $2: host name.
set -eu
disk=$1
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
# A stand-in for SysV's shutdown: the same command line, told to this first process.
rm -f /usr/sbin/shutdown /usr/sbin/reboot /usr/sbin/poweroff
cat > /usr/sbin/shutdown <<'END'
#!/bin/sh
case "$*" in "-r now") echo reboot ;; "-h now" | "-P now") echo halt ;; *) exit 64 ;; esac > /run/initctl
END
chmod 755 /usr/sbin/shutdown
ln -s /etc/init.d/ssh /etc/rc2.d/S01ssh
cp /usr/sbin/nft "$disk/nft"  # the host itself may be made to have none
[ ! -x "$disk/prepare" ] || "$disk/prepare"

boot() {
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
    umount /proc/sys/kernel/random/boot_id 2>/dev/null || true
    cat /proc/sys/kernel/random/uuid > /run/boot_id
    mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
    # What a kernel forgets at a restart.
    "$disk/nft" flush ruleset
    for tool in iptables-legacy ip6tables-legacy; do
        if [ -s /proc/net/ip_tables_names ]; then $tool -F; $tool -X; $tool -t nat -F; $tool -t nat -X; fi
    done 2>/dev/null
    sysctl -q -w net.ipv4.ip_forward=0
    for script in /etc/rcS.d/S* /etc/rc2.d/S*; do
        [ ! -x "$script" ] || "$script" start > /dev/null 2>> /var/log/boot.log < /dev/null || true
    done
    for _ in $(seq 200); do  # its boot script does not wait for it
        [ ! -e "$disk/silent" ] || break
        [ -z "$(ss -Htln 'sport = :22')" ] || break
        sleep 0.01
    done
    date +%s.%N > "$disk/booted"
}

while :; do
    boot
    read -r what < /run/initctl
    echo "$what" > "$disk/last"
    kill -KILL -1 2>/dev/null || true
    rm -f "$disk/booted"
    [ "$what" != halt ] || exit 0
done
