#!/bin/sh
# booted.sh UUID DISK [ROOT]: prints root or verity when the partition with this
# UUID, on the disk with the UUID DISK, holds that part of the system that boots.
# ROOT is given when the disk is the one with the ESP of the boot loader that runs; a
# disk that identity.sh has given another UUID since is noted. A live medium may be in
# an optical drive, of which firmware tells no ESP: its command line names the medium
# instead.
set -eu

hash=
medium=
for word in $(cat "${CMDLINE:-/proc/cmdline}"); do
	case $word in
	roothash=*) hash=${word#roothash=} ;;
	kairos.medium=*) medium=${word#kairos.medium=} ;;
	esac
done

if [ -n "$medium" ]; then
	[ "$2" = "$medium" ] || exit 1
else
	booted=${3-}
	if [ -e "${DISKS:=/run/kairos/disks}" ]; then
		while read -r id; do
			[ "$id" != "$2" ] || booted=$id
		done <"$DISKS"
	fi
	[ -n "$booted" ] || exit 1
fi

# The UUIDs are the halves of the hash.
IFS=- read -r a b c d e <<END
$1
END
half=$a$b$c$d$e
[ ${#half} = 32 ] || exit 1
case $hash in
"$half"*) echo root ;;
*"$half") echo verity ;;
*) exit 1 ;;
esac
