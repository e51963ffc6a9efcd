#!/bin/sh
# Turns the read-only root at /sysroot into a machine's root: /var is the data
# partition of the disk that was booted from, /etc the image's with the machine's
# changes over it, /oem and the like are directories of /var. Where this fails the
# machine reboots: an image that cannot come this far loses one of its tries.
set -eu

here=/usr/lib/kairos
data=/run/kairos/data

say() { echo "kairos: $*"; }

# property DIR NAME prints one value of a device's uevent file in sysfs.
property() {
	while IFS='=' read -r name value; do
		[ "$name" != "$2" ] || echo "$value"
	done <"$1/uevent"
}

# root_disk prints the directory in sysfs of the disk that holds the root: it is found
# from the root itself, so that no other disk with the same labels can be meant.
root_disk() {
	dm=$(readlink -f /dev/mapper/root)
	for slave in "/sys/class/block/${dm##*/}/slaves/"*; do
		part=$(readlink -f "$slave")
		echo "${part%/*}"
		return
	done
}

# udev DEVICE NAME prints a property that udev has found out.
udev() { udevadm info --query=property --property="$2" --value "$1"; }

# partition DISK LABEL prints the device of a partition. The kernel itself does not
# know the labels of partitions that were added while it runs, udev does.
partition() {
	for part in "$1"/*; do
		[ -e "$part/partition" ] || continue
		label=$(udev "$part" ID_PART_ENTRY_NAME)
		[ "$label" != "$2" ] || echo "/dev/$(property "$part" DEVNAME)"
	done
}

# check repairs what a file system's journal does not. Nobody sits at the
# console to be asked.
check() {
	status=0
	e2fsck -p "$1" || status=$?
	if [ "$status" -ge 4 ]; then
		say "the data partition is damaged, repairing it"
		e2fsck -f -y "$1" || say "e2fsck ended with status $?"
	fi
}

# twins DISK UUID prints the other disks with an ESP of this UUID: the firmware's choice
# among them cannot be told, and each may be what somebody meant to start.
twins() {
	for part in /sys/class/block/*; do
		[ -e "$part/partition" ] || continue
		part=$(readlink -f "$part")
		[ "${part%/*}" != "$1" ] || continue
		[ "$(udev "$part" ID_PART_ENTRY_UUID)" != "$2" ] || echo "/dev/$(property "${part%/*}" DEVNAME)"
	done
}

# mount_esp DEVICE has the ESP of this disk mounted where it is used. By itself systemd
# would look for the UUID that the boot loader saw, which may have changed since.
mount_esp() {
	units=/run/systemd/system
	check=systemd-fsck@dev-${1#/dev/}.service
	mkdir -p "$units/local-fs.target.wants"
	cat >"$units/efi.mount" <<END
[Unit]
Description=EFI system partition of the disk that was booted from
ConditionPathExists=!/etc/initrd-release
Requires=$check
After=$check

[Mount]
What=$1
Where=/efi
Type=vfat
Options=umask=0077,nodev,nosuid,noexec
END
	cat >"$units/efi.automount" <<END
[Unit]
Description=EFI system partition, when it is used
ConditionPathExists=!/etc/initrd-release

[Automount]
Where=/efi
TimeoutIdleSec=120
END
	ln -sf ../efi.automount "$units/local-fs.target.wants/efi.automount"
}

mount_disk() {
	dir=$(root_disk)
	disk=/dev/$(property "$dir" DEVNAME)
	mkdir -p /run/kairos/notes
	esp=$(partition "$dir" kairos-esp)
	if [ -z "$esp" ]; then
		say "$disk has no partition kairos-esp"
		exit 1
	fi
	for twin in $(twins "$dir" "$(udev "/sys/class/block/${esp##*/}" ID_PART_ENTRY_UUID)"); do
		say "$twin was written from the same file as $disk and has not started yet; this start uses $disk"
		echo "$twin was written from the same file as $disk: unplug the one that you do not mean" >>/run/kairos/notes/kairos-twins.note
	done
	if [ -z "$(partition "$dir" kairos-data)" ]; then
		sh "$here/identity.sh" "$disk" "$(udev "$dir" ID_PART_TABLE_UUID)" "$(cat "/sys/class/block/${esp##*/}/partition")" /run/kairos/disks ||
			say "cannot give $disk UUIDs of its own"
	fi
	mount_esp "$esp"
	# The first boot makes what the disk lacks; a disk that has grown since gets used.
	systemd-repart --dry-run=no --no-pager --pretty=no --seed=random \
		--definitions=/sysroot/usr/lib/kairos/repart.d "$disk" ||
		say "cannot complete the partitions of $disk: it must have at least 8 GiB"
	udevadm settle --timeout=30 || say "devices are slow to settle"
	data_part=$(partition "$dir" kairos-data)
	if [ -z "$data_part" ]; then
		say "$disk has no partition kairos-data"
		exit 1
	fi
	check "$data_part"
	mount -t ext4 -o noatime "$data_part" "$data"
	/usr/lib/systemd/systemd-growfs "$data" || say "cannot grow the data file system"
	# Above the login on the console, and in status.
	sh "$here/room.sh" "$(cat "/sys/class/block/${data_part##*/}/size")" >/run/kairos/notes/kairos-state.note
}

hash=
live=
for word in $(cat /proc/cmdline); do
	case $word in
	roothash=*) hash=${word#roothash=} ;;
	kairos.live) live=yes ;;
	esac
done

mkdir -p "$data"
if [ -n "$live" ]; then
	mount -t tmpfs -o mode=0755,size=50% tmpfs "$data"
	: >/run/kairos/live
else
	mount_disk
fi
sh "$here/state.sh" /sysroot "$data" "$hash"

mount --bind "$data" /sysroot/var
umount "$data"
etc=/sysroot/var/lib/kairos/etc
# The image below may be another one at the next boot, which rules out the
# features that remember the lower layer.
mount -t overlay -o "lowerdir=/sysroot/etc,upperdir=$etc,workdir=$etc.work,index=off,metacopy=off,redirect_dir=off" overlay /sysroot/etc
while read -r word path target _; do
	[ "$word" = bind ] || continue
	mount --bind "/sysroot$target" "/sysroot$path"
done </sysroot/usr/lib/kairos/persist.conf
