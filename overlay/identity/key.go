package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// redacted stands wherever a Key is printed by mistake.
const redacted = "[redacted identity key]"

// maxContext bounds the context of a signature, in bytes.
const maxContext = 64

// errNoKey is what encoding the zero Key reports.
var errNoKey = errors.New("no identity key")

// Key is a node's Ed25519 private key (RFC 8032). It cannot be printed: every
// form of formatting, logging and marshalling yields a placeholder. The zero
// Key has no ID and signs nothing. A Key is safe for concurrent use.
type Key struct {
	// Behind two pointers, because fmt does not call methods on unexported
	// fields of other structs: it would print the bytes. One pointer is not
	// enough: with a verb that does not fit, fmt follows it.
	secret **private
}

type private struct{ key ed25519.PrivateKey }

// Generate makes a new key from 32 bytes of random; nil means crypto/rand.
func Generate(random io.Reader) (Key, error) {
	if random == nil {
		random = rand.Reader
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return Key{}, fmt.Errorf("read randomness for an identity key: %w", err)
	}
	return wrap(ed25519.NewKeyFromSeed(seed)), nil
}

func wrap(key ed25519.PrivateKey) Key {
	s := &private{key}
	return Key{&s}
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.secret == nil }

// ID returns the public half; the zero ID for the zero Key.
func (k Key) ID() ID {
	if k.secret == nil {
		return ID{}
	}
	return ID((*k.secret).key[ed25519.SeedSize:])
}

// Sign signs "kairos/" + context + NUL + msg, so that a signature made for one
// purpose proves nothing for another. It returns nil, which never verifies,
// for the zero Key and for a context that ValidContext refuses.
func (k Key) Sign(context string, msg []byte) []byte {
	if k.secret == nil || !ValidContext(context) {
		return nil
	}
	return ed25519.Sign((*k.secret).key, signedMessage(context, msg))
}

// Private returns a copy of the raw key, for the TLS and libp2p stacks only.
// It is nil for the zero Key.
func (k Key) Private() ed25519.PrivateKey {
	if k.secret == nil {
		return nil
	}
	return append(ed25519.PrivateKey(nil), (*k.secret).key...)
}

// Verify reports whether sig is id's signature of msg in this context. The
// zero ID, other weak keys and invalid contexts verify nothing.
func Verify(id ID, context string, msg, sig []byte) bool {
	// For points of small order, the zero ID among them, anybody can make signatures.
	if id.weak() || !ValidContext(context) || len(sig) != ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(id[:], signedMessage(context, msg), sig)
}

// ValidContext reports whether s may be the context of a signature: 1 to 64
// lower-case letters, digits, dots, dashes and slashes.
func ValidContext(s string) bool {
	if len(s) == 0 || len(s) > maxContext {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '-', c == '/':
		default:
			return false
		}
	}
	return true
}

func signedMessage(context string, msg []byte) []byte {
	const prefix = "kairos/"
	out := make([]byte, 0, len(prefix)+len(context)+1+len(msg))
	out = append(out, prefix...)
	out = append(out, context...)
	out = append(out, 0)
	return append(out, msg...)
}

// String implements fmt.Stringer without revealing the key.
func (k Key) String() string { return redacted }

// GoString implements fmt.GoStringer without revealing the key.
func (k Key) GoString() string { return redacted }

// Format implements fmt.Formatter without revealing the key, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler without revealing the key.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler without revealing the key.
func (k Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue implements slog.LogValuer without revealing the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }
