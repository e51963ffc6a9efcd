// Package token is the network token: the one line that admits a machine to a
// mesh. It generates, parses and derives sub-keys, and does nothing else.
//
// # Text
//
//	KAIROS2-<104 characters, or more in steps of 8>
//
// The digits after KAIROS are the version. The characters are Crockford's base32, in
// groups of 8 characters or 5 bytes:
//
//	byte 0      how many groups there are
//	bytes 1-    parts in ascending order of their tags, then zeros up to the checksum
//	last 7      checksum over all that precedes it, version included
//
// A part is a tag and a length, one byte each, and a value:
//
//	1  the declared node count, 1 byte
//	2  seed of the network, 16 bytes: addresses and names follow from it, for its life
//	3  one or two doors, the newest first: generation, 1 byte, and secret, 32 bytes
//	4  pin of the owner's public key, 16 bytes; may be absent
//	5  addresses of machines, host:port, each after its length; may be absent
//
// That makes 112 characters with one door, 144 with an owner's pin. A part that this
// version does not know is kept and comes out of Reveal as it was; one whose tag is 128
// or more must not be passed over, and makes the token one of another version.
//
// All of it is in the alphanumeric set of QR codes (ISO/IEC 18004), in URLs and in a
// shell word. Reading is forgiving where it is unambiguous: lower case is upper case, O
// is 0, I and L are 1, and white space around is dropped. A text parses to one token or
// to one of the errors of this package, which never quote it.
package token
