package session

import (
	"fmt"
	"log/slog"
)

// PSK is the network's pre-shared key. It does not print, not even from inside
// another value: fmt passes the methods of unexported fields by, but it does not
// follow pointers.
type PSK struct{ key *[keySize]byte }

// NewPSK keeps a token's admission key.
func NewPSK(key [keySize]byte) PSK { return PSK{&key} }

const redacted = "(pre-shared key)"

// String implements fmt.Stringer without showing the key.
func (PSK) String() string { return redacted }

// GoString implements fmt.GoStringer without showing the key.
func (PSK) GoString() string { return redacted }

// Format implements fmt.Formatter without showing the key.
func (PSK) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }

// MarshalJSON implements json.Marshaler without showing the key.
func (PSK) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue implements slog.LogValuer without showing the key.
func (PSK) LogValue() slog.Value { return slog.StringValue(redacted) }
