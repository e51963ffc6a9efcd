package wire

import "errors"

// What a decoder finds wrong; returned wrapped. All of them mean that the bytes
// are to be dropped; none means that something is wrong with this node.
var (
	// ErrVersion is for bytes of another version of the encoding.
	ErrVersion = errors.New("unknown version")
	// ErrSignature is for a record that its author did not sign.
	ErrSignature = errors.New("signature does not verify")
	// ErrLimit is for whatever is larger or more than limits.go allows.
	ErrLimit = errors.New("over the limit")
	// ErrMalformed is for bytes that are not the one encoding of anything.
	ErrMalformed = errors.New("malformed")
	// ErrKey is for sealing a record with a key that is not its author's.
	ErrKey = errors.New("not the author's key")
)
