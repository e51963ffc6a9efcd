// Package disk makes what machines boot from an OS image:
//
//	OCI image ──Release──> release: root (erofs), hash tree (dm-verity), UKI
//	release   ──Raw──────> a disk to be flashed, or to start a virtual machine from
//	release   ──ISO──────> a medium that boots from USB sticks and optical drives, to install from
//
// The work is done by the tools of systemd, dracut, erofs-utils and xorriso, out
// of a Debian system that is made for it once (Toolbox): what the building machine
// runs does not matter, and the same image gives the same bytes. The initrd and
// the EFI programs are the OS image's own. All of it needs root.
//
// References: systemd-repart(8), ukify(1), systemd-stub(7), systemd-boot(7),
// systemd-veritysetup-generator(8), and the Discoverable Partitions Specification.
package disk
