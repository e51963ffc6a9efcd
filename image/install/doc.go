// Package install puts the running system on another disk of this machine:
//
//	1 systemd-repart   makes all partitions anew, by the image's definitions
//	2 ESP              gets the boot loader of the running system's own ESP
//	3 kairos-data      gets the configuration, where one was given
//	4 slot a           gets root, hash tree and UKI (package image/slots)
//
// The last write of the last step makes the disk bootable: what was cut short
// boots nothing, and is started over. Everything is checked before the first
// step: see Disk.Refused; and the disk is compared with what a person chose right
// before it is written to, by what its maker gave it.
package install
