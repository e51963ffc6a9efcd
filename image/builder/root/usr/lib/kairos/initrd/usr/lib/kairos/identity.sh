#!/bin/sh
# identity.sh DISK OLD ESP MARK: gives a disk that starts for the first time UUIDs of its
# own, itself and its partition number ESP: disks that were written from one file have the
# same, by which the firmware's choice among them cannot be told. OLD is the disk's UUID.
# Both of its UUIDs stand in MARK before the table is touched: udev looks at the disk
# while it is written, and booted.sh must not lose it.
set -eu
new() { cat /proc/sys/kernel/random/uuid; }
id=$(new)
printf '%s\n%s\n' "$2" "$id" >"$4"
# The kernel need not know: it has the partitions, and names them by number.
sfdisk --quiet --no-reread --no-tell-kernel --disk-id "$1" "$id"
sfdisk --quiet --no-reread --no-tell-kernel --part-uuid "$1" "$3" "$(new)"
