package lab

import "fmt"

// cardScript makes /sys/class/net say of the machine's card that a device is behind
// it, which tells hardware from what a container has. All else is as the kernel says,
// in a view of the machine's own: its /sys is the host's. Where /sys is read-only
// systemd-networkd does not wait for udev, which does not run here. The links are
// relative ones, so that they lead to the same from outside.
const cardScript = `set -e
card=%s own=/run/kairos-lab-sys shown=/run/kairos-lab-net
mkdir $own $shown $shown/$card $shown/$card/device
mount -t sysfs sysfs $own
for f in address carrier flags ifindex operstate type; do
	ln -s ../../../..$own/class/net/$card/$f $shown/$card/$f
done
mount --bind $shown /sys/class/net
mount -o remount,bind,ro /sys
`

// cardFiles are those of a machine whose card is served by systemd-networkd.
func (m *Machine) cardFiles(units string) []File {
	nic := m.state().nic()
	const script = "/usr/lib/kairos-lab/card"
	return []File{
		{Path: script, Text: fmt.Sprintf(cardScript, nic)},
		{Path: units + "kairos-lab-card.service", Text: "[Unit]\nDescription=A network card like one of hardware\nDefaultDependencies=no\n" +
			"Before=systemd-networkd.service kairos-boot-check.service network-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh " + script + "\n"},
		{Path: units + "sysinit.target.wants/kairos-lab-card.service", Link: "../kairos-lab-card.service"},
		{Path: "/etc/systemd/network/50-lab.network", Text: fmt.Sprintf("[Match]\nName=%s\n[Network]\nAddress=%s/%d\nGateway=%s\n",
			nic, m.Addr(), m.lab.state.Net.Bits(), m.lab.state.host(gateway))},
	}
}
