#!/bin/sh
# A start that failed: tells why, and lets systemd reboot. No one has a password to
# log in with, and the boot loader may have another version to try.
echo "kairos: this start has failed:"
systemctl --failed --no-legend --plain --no-pager
journalctl -b -p err -n 20 -o cat --no-pager 2>/dev/null
echo "kairos: rebooting in 15 seconds"
sleep 15
