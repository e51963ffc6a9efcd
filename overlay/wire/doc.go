// Package wire is how the mesh's words become bytes: the signed record of each
// member, the gossip messages that carry records, and the frames that carry
// packets on a stream. It is pure, versioned and bounded: limits.go holds every
// limit, and whatever breaks one is an error instead of an allocation.
//
// # Signed record
//
//	byte 0        version, 1
//	bytes 1-32    ID of the author
//	bytes 33-40   sequence number, big endian
//	bytes 41-104  Ed25519 signature in context "record/v1" of all other bytes
//	bytes 105-    body: flags, texts, addresses, prefixes, annotations
//
// A record has one encoding only; Open refuses any other, after it verified the
// signature. Head reads ID and sequence without trusting them.
//
// # Frame
//
//	bytes 0-1  length of the packet, big endian, 1 to 65535
//	bytes 2-   the packet
//
// # Message
//
//	byte 0     kind: 1 digest, 2 delta
//	byte 1     version, 1
//	bytes 2-5  length of the body, big endian
//	bytes 6-   body
package wire
