// Package wire is how the mesh's words become bytes: the signed record of each
// member, the gossip messages that carry records, and the frames that carry
// packets on a stream. It is pure, versioned and bounded: limits.go holds every
// limit, and whatever breaks one is an error instead of an allocation.
//
// # Signed record
//
//	byte 0        version, 2
//	bytes 1-32    ID of the author
//	bytes 33-40   sequence number, big endian
//	bytes 41-104  Ed25519 signature in context "record/v2" of all other bytes
//	bytes 105-    body: fields in ascending order of their tags
//
//	byte 0        tag of the field; from 128 on it is critical
//	bytes 1-2     length of the value, big endian
//	bytes 3-      value
//
// A record has one encoding only; Open refuses any other, after it verified the
// signature. Head reads ID and sequence without trusting them.
//
// A later version says more by adding fields. One that does not know a field passes it
// on as it came, since records travel as their author signed them, and keeps it in
// Record.Unknown; a critical one makes it refuse the record. Thus a field is critical
// only if whoever passes over it would do harm. A tag is never used again for something
// else, and no field that every version reads changes its form.
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
