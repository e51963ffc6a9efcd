// Package secret is for keys that pass through many hands and must not show in any of
// their logs.
package secret

import (
	"fmt"
	"log/slog"
)

// Key is a symmetric key. The zero Key is none.
type Key struct {
	// Behind two pointers, because fmt does not call methods of unexported fields and
	// would print the bytes. With a verb that does not fit it follows one of them.
	key **[32]byte
}

// NewKey keeps a key.
func NewKey(key [32]byte) Key {
	kept := &key
	return Key{&kept}
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.key == nil }

// Bytes is the key itself: for ciphers and MACs, and not to be kept. It panics for none.
func (k Key) Bytes() []byte { return (**k.key)[:] }

const redacted = "[redacted key]"

// String implements fmt.Stringer without showing the key.
func (Key) String() string { return redacted }

// GoString implements fmt.GoStringer without showing the key.
func (Key) GoString() string { return redacted }

// Format implements fmt.Formatter without showing the key.
func (Key) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, redacted) }

// MarshalText implements encoding.TextMarshaler, and JSON's with it, without showing
// the key.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer without showing the key.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }
