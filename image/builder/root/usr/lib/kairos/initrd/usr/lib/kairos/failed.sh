#!/bin/sh
# failed.sh SECONDS: tells why a start has failed and waits so long; systemd reboots
# then. No one has a password to log in with, and the boot loader may have another
# version to try.
echo "kairos: this start has failed:"
root=${ROOT-}
if [ -e "$root/etc/initrd-release" ] && [ ! -e "$root/dev/kairos/root" ]; then
	case $(cat "$root/proc/sys/kernel/osrelease") in
	*cloud*) echo "kairos: no disk with this system was found. It is the flavour cloud, which has drivers for virtual machines only: write the flavour generic" ;;
	*) echo "kairos: no disk with this system was found. It is the flavour generic, which has Debian's drivers" ;;
	esac
fi
systemctl --failed --no-legend --plain --no-pager
journalctl -b -p err -n 20 -o cat --no-pager 2>/dev/null
echo "kairos: rebooting in $1 seconds"
sleep "$1"
