package builder

import (
	"slices"
	"time"

	"github.com/kairos-io/kairos/systemd"
)

// Third-party things that the images are made of, in one place.
const (
	// Suite is the Debian release of the base layer (Debian 13).
	Suite = "trixie"
	// Mirror and SecurityMirror are where Debian comes from when neither a flag,
	// nor the environment, nor this machine's own apt says otherwise.
	Mirror         = "http://deb.debian.org/debian"
	SecurityMirror = "http://deb.debian.org/debian-security"
	// K3s is what machines run when nothing else is configured. It is the agent that
	// says so, and why this one; a test holds the two together.
	K3s = "docker.io/rancher/k3s:v1.35.8-k3s1"
	// Pause is the sandbox image of pods, as containerd is told to name it.
	Pause = "registry.k8s.io/pause:3.10"
)

// k3sAddons are the images of what K3s deploys when nothing of it is disabled: the
// cluster's DNS, metrics, local volumes, load balancers and the ingress. They are those of
// that very release, so they change with K3s: its k3s-images.txt, without its pause image,
// which is containerd's own business here.
var k3sAddons = []string{
	"docker.io/rancher/klipper-helm:v0.13.3-build20260727",
	"docker.io/rancher/klipper-lb:v0.4.17",
	"docker.io/rancher/local-path-provisioner:v0.0.37",
	"docker.io/rancher/mirrored-coredns-coredns:1.14.6",
	"docker.io/rancher/mirrored-library-busybox:1.37.0",
	"docker.io/rancher/mirrored-library-traefik:3.7.8",
	"docker.io/rancher/mirrored-metrics-server:v0.9.0",
}

// baseEpoch is the release day of Debian 13. No file of the base layer is
// younger: what the installation itself writes carries this time.
var baseEpoch = time.Date(2025, time.August, 9, 0, 0, 0, 0, time.UTC)

// Packages of the base layer, for every flavour. Recommends are not installed.
var packages = []string{
	// the system
	"systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd",
	"dbus", "polkitd", "udev", "kmod", "libpam-systemd", "login", "passwd", "sudo",
	"e2fsprogs", "procps", "util-linux", "less", "nano", "netbase", "ca-certificates",
	// the network
	"iproute2", "iputils-ping", "nftables", "iptables", "ipset", "conntrack", "ethtool",
	// containers
	"runc", "containernetworking-plugins", // containerd: see Containerd
	// how a machine is told who it is, and reached
	"cloud-init", "openssh-server",
	// the disk: what the initrd is made with and of, the boot loader, the installer
	"dracut", "zstd", "systemd-boot", "systemd-boot-efi", "systemd-boot-tools", "systemd-repart", "systemd-cryptsetup", "cryptsetup-bin", "fdisk", "dosfstools",
}

// Toolbox has the packages of the Debian system in which disks are made.
var Toolbox = []string{
	"systemd", "systemd-repart", "systemd-ukify", "systemd-boot-efi", "erofs-utils", "cryptsetup-bin",
	"dosfstools", "e2fsprogs", "fdisk", "mtools", "xorriso", "zstd", "util-linux", "libtss2-esys-3.0.2-0t64",
}

// Flavour says what kind of machine an image is for.
type Flavour string

// Flavours.
const (
	Cloud   Flavour = "cloud"   // virtual machines and the lab: a small kernel with paravirtual drivers
	Generic Flavour = "generic" // hardware: every driver, with the firmware of servers and their network cards
)

// kernels has the packages that make a flavour, by architecture. Linux asks for
// some initramfs tool; dracut is it, and runs when a release is made.
var kernels = map[Flavour]map[string][]string{
	Cloud: {
		"amd64": {"linux-image-cloud-amd64"},
		"arm64": {"linux-image-cloud-arm64"},
	},
	Generic: {
		"amd64": slices.Concat([]string{"linux-image-amd64", "intel-microcode", "amd64-microcode"}, firmware),
		"arm64": slices.Concat([]string{"linux-image-arm64"}, firmware),
	},
}

// firmware is for what a machine needs to boot and to reach its network by wire;
// there is no Wi-Fi, no sound and no graphics beyond a console.
var firmware = []string{
	"firmware-misc-nonfree", "firmware-intel-misc", "firmware-realtek",
	"firmware-bnx2", "firmware-bnx2x", "firmware-qlogic", "firmware-cavium",
}

// account is a system user or group whose number is fixed, so that files on a
// machine's disk belong to the same one under every later image. Debian's
// installation scripts would number them in the order of installation.
type account struct {
	name  string
	id    int
	home  string // empty: a group only
	group bool   // has a group of its own name
}

var accounts = []account{
	{systemd.User, systemd.UserID, "/var/lib/kairos/overlay", true},
	{"messagebus", 811, "/nonexistent", true},
	{"polkitd", 812, "/", true},
	{"sshd", 813, "/run/sshd", false},
	{"systemd-network", 814, "/", true},
	{"systemd-resolve", 815, "/", true},
	{"systemd-timesync", 816, "/", true},
	{"dhcpcd", 817, "/usr/lib/dhcpcd", false},
	{"systemd-journal", 820, "", true},
	{"_ssh", 821, "", true},
	{"input", 822, "", true},
	{"sgx", 823, "", true},
	{"clock", 824, "", true},
	{"kvm", 825, "", true},
	{"render", 826, "", true},
}
