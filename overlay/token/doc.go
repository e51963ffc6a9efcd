// Package token is the network token: the one line that admits a machine to a
// mesh. It generates, parses and derives sub-keys, and does nothing else.
//
// # Text
//
//	KAIROS1-<64 characters>
//
// The digits after KAIROS are the version. The 64 characters are 40 bytes in
// Crockford's base32: the declared node count, 32 random bytes and 7 bytes of
// checksum over all that precedes it, version included. All of it is in the
// alphanumeric set of QR codes (ISO/IEC 18004), in URLs and in a shell word.
// Reading is forgiving where it is unambiguous: lower case is upper case, O is
// 0, I and L are 1, and white space around is dropped. A text parses to one
// token or to one of the errors of this package, which never quote it.
package token
