package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"errors"
	"fmt"
)

// ID names a node: it is the node's Ed25519 public key (RFC 8032), so that
// whoever knows the name can verify what the node signed. IDs are comparable
// and usable as map keys. The zero ID names nobody.
type ID [ed25519.PublicKeySize]byte

// ErrInvalidID is returned, wrapped, for text that is not an ID.
var ErrInvalidID = errors.New("invalid node id")

// idEncoding is RFC 4648 base32 in lower case: it survives DNS, URLs and being read aloud.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// shortLen is how many characters of an ID tell the nodes of one mesh apart for a reader.
const shortLen = 6

// String returns the ID as 52 lower-case base32 characters.
func (id ID) String() string { return idEncoding.EncodeToString(id[:]) }

// Short returns the first six characters of String: enough for people, never for decisions.
func (id ID) Short() string { return id.String()[:shortLen] }

// IsZero reports whether the ID is unset.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes; the mesh uses it wherever it needs a
// tie-break that every node computes alike.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// ParseID reads what String wrote. Anything else is ErrInvalidID.
func ParseID(s string) (ID, error) {
	raw, err := idEncoding.DecodeString(s)
	if err != nil {
		return ID{}, fmt.Errorf("parse %q: %w", s, ErrInvalidID)
	}
	if len(raw) != len(ID{}) {
		return ID{}, fmt.Errorf("parse %q: %d bytes instead of %d: %w", s, len(raw), len(ID{}), ErrInvalidID)
	}
	id := ID(raw)
	// 52 characters carry 260 bits; only one spelling of an ID is accepted.
	if id.String() != s {
		return ID{}, fmt.Errorf("parse %q: not canonical: %w", s, ErrInvalidID)
	}
	return id, nil
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
