// Package builder makes the project's OCI images: the operating system that a
// machine boots, and the small image with nothing but the command line.
//
// The OS image is three layers, from what changes seldom to what changes often:
// Debian as mmdebstrap installs it, our files (root/ here and the systemd
// package's tree), our programs. Images that it carries for machines without a
// registry are a layer of their own, an OCI layout at /usr/lib/kairos/images. What
// an image is made of is listed in it and beside it (SBOM), and what others made is
// pinned in pins.go. Each layer is a function of its inputs: names
// sorted, times clamped to one epoch, owners numeric, nothing of the building
// machine in it. Same inputs, same digest.
//
// An image holds no identity: no machine-id, no host keys, no password, no seed.
package builder
