// Package discovery finds the addresses at which other members may be: the
// peers that a person configured, the local network by multicast DNS
// (RFC 6762), and the schedule on which an address is tried again.
//
// Nothing found here is trusted. An address is a rumour until the connection
// to it has been authenticated and admitted, which is the mesh's work.
//
// # On the local network
//
// A question is a PTR query for a name of 32 random hexadecimal digits,
// _<digits>._udp.local, and an announcement is a TXT record of such a name. Each message
// has a name of its own, and an announcement is sealed as a whole:
//
//	nonce 24 bytes | XChaCha20-Poly1305 under a key of the network (token.Find.MDNS)
//
// of TLV (tag 1 byte, length 2 bytes, value; tags ascend, 0 ends them, zeros pad to 384
// bytes; unknown tags are skipped below 0x80 and refused from there on):
//
//	1  window     4 bytes, the time of the speaker in units of 6 hours
//	2  ID         32 bytes
//	3  addresses  each 16 bytes, IPv4 mapped into IPv6, and a port of 2 bytes
//
// What an observer sees is that machines of this kind are here. It cannot tell networks
// or members apart, nor the same ones on another day or in another place:
//
//   - Every question is answered, at most once a second. Whether it is a member's does
//     not count, so that asking, or saying again what was recorded elsewhere, tells nothing.
//   - An announcement is believed in its own window and the two next to it. One that is
//     older is a recording, with which a node could be made to call where it points.
//
// Clocks may be wrong. The window of a node never goes back, and it follows every member
// that is ahead (window.go): a machine that believes to be in 1970 asks, hears an answer
// of today, and is in today's window from then on.
package discovery
