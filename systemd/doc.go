// Package systemd holds what systemd needs to run kairos mesh: units, preset,
// users, directories and kernel settings, embedded for the image; and the other
// direction, what our daemons tell systemd: readiness, a status line and signs
// of life.
//
// The directory root/ is the install tree: root/usr/lib/... becomes
// /usr/lib/... . Which units are on is said once, in the preset; Links derives
// the symlinks of an image from it.
//
// It is the only package that imports go-systemd.
package systemd
