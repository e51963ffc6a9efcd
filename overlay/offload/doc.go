// Package offload does what network cards do for a kernel: it cuts large packets
// into segments, puts segments together again, and finishes checksums. It is pure.
//
// # What the kernel hands over
//
// A TUN device with a virtio-net header (virtio 1.2, section 5.1.6; IFF_VNET_HDR)
// gives packets as TCP and UDP leave them before the card: up to 64 KiB with one
// header, to be cut into segments of a given size, and with a transport checksum
// that covers the pseudo header only. Taken and given that way, one pass through
// the stack and one system call carry what would be 45 packets.
//
// # Shapes
//
// A Packet is an IP packet and its Shape, which is all that a receiver has to know:
//
//	Whole    as it is on a wire: nothing is left to do
//	Partial  its transport checksum is not filled in
//	n        likewise, and it stands for segments of n bytes of payload
//
// A checksum that is left out is not missing on the way: what goes between members
// is sealed, and their seal says more than 16 bits do. A Whole packet keeps the
// checksum that it came with, right or wrong, so that damage done before it came to
// us is still found by who it is for.
//
// # Cutting and merging
//
// A Cutter cuts in place: each segment's header is written over the end of the
// segment before, whose bytes have been used by then. A Merger is its inverse: runs
// of Partial packets that one Cutter may have made, and no others, become one packet
// for the kernel again, without a copy: it is written in parts. Neither allocates.
package offload
