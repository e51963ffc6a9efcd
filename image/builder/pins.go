package builder

import "time"

// Third-party things that the images are made of, in one place.
const (
	// Suite is the Debian release of the base layer (Debian 13).
	Suite = "trixie"
	// Mirror and SecurityMirror are where Debian comes from when neither a flag,
	// nor the environment, nor this machine's own apt says otherwise.
	Mirror         = "http://deb.debian.org/debian"
	SecurityMirror = "http://deb.debian.org/debian-security"
	// Pause is the sandbox image of pods, as containerd is told to name it.
	Pause = "registry.k8s.io/pause:3.10"
)

// baseEpoch is the release day of Debian 13. No file of the base layer is
// younger: what the installation itself writes carries this time.
var baseEpoch = time.Date(2025, time.August, 9, 0, 0, 0, 0, time.UTC)

// Packages of the base layer. Recommends are not installed.
var packages = []string{
	// the system
	"systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd",
	"dbus", "polkitd", "udev", "kmod", "libpam-systemd", "login", "passwd", "sudo",
	"e2fsprogs", "procps", "util-linux", "less", "netbase", "ca-certificates",
	// the network
	"iproute2", "iputils-ping", "nftables", "iptables", "ipset", "conntrack", "ethtool",
	// containers
	"containerd", "runc", "containernetworking-plugins",
	// how a machine is told who it is, and reached
	"cloud-init", "openssh-server",
}
