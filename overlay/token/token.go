package token

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

const (
	// MaxNodes is the largest declared node count.
	MaxNodes = 15
	// DefaultNodes is the declared node count when nobody says one.
	DefaultNodes = 3

	redacted = "[redacted network token]"
)

// Token is the one secret of a mesh: the seed of its network, the secrets that let
// machines in, and the number of nodes that its owner declared. It cannot be printed:
// every form of formatting, logging and marshalling yields a placeholder; Reveal is the
// only way to the text. The zero Token is no token. A Token is safe for concurrent use.
type Token struct {
	// Behind two pointers, because fmt does not call methods on unexported
	// fields of other structs: it would print the bytes. One pointer is not
	// enough: with a verb that does not fit, fmt follows it.
	secret **content
}

// Pin tells one owner key from all others; it is public. The zero Pin is none.
type Pin [16]byte

// PinOf returns the pin of an Ed25519 public key.
func PinOf(public [32]byte) Pin {
	sum := sha256.Sum256(append([]byte("kairos/token/owner"), public[:]...))
	return Pin(sum[:len(Pin{})])
}

// Generate makes a new token for a mesh of the given number of nodes, 1 to
// MaxNodes (else ErrNodes), from 48 bytes of random; nil means crypto/rand.
func Generate(random io.Reader, nodes int) (Token, error) {
	if nodes < 1 || nodes > MaxNodes {
		return Token{}, fmt.Errorf("generate a token for %d nodes: %w", nodes, ErrNodes)
	}
	if random == nil {
		random = rand.Reader
	}
	c := &content{nodes: uint8(nodes), doors: []doorSecret{{gen: 1}}}
	for _, part := range [][]byte{c.seed[:], c.doors[0].secret[:]} {
		if _, err := io.ReadFull(random, part); err != nil {
			return Token{}, fmt.Errorf("read randomness for a token: %w", err)
		}
	}
	return wrap(c), nil
}

func wrap(c *content) Token { return Token{&c} }

// WithOwner returns t with the pin of its owner's key. It panics for the zero Token.
func (t Token) WithOwner(owner Pin) Token {
	c := **t.secret
	c.owner = owner
	return wrap(&c)
}

// WithPeers returns t with addresses, host:port each, at which machines of the network
// can be found; the error wraps ErrPeers. It panics for the zero Token.
func (t Token) WithPeers(peers []string) (Token, error) {
	c := **t.secret
	c.peers = slices.Clone(peers)
	if !validPeers(peers) {
		return Token{}, ErrPeers
	}
	return wrap(&c), nil
}

// Owner returns the pin of the owner's key; ok is false when there is none.
func (t Token) Owner() (pin Pin, ok bool) {
	if t.secret == nil {
		return Pin{}, false
	}
	return (*t.secret).owner, (*t.secret).owner != Pin{}
}

// Peers returns the addresses that the token carries, host:port each.
func (t Token) Peers() []string {
	if t.secret == nil {
		return nil
	}
	return slices.Clone((*t.secret).peers)
}

// IsZero reports whether there is no token.
func (t Token) IsZero() bool { return t.secret == nil }

// Nodes returns how many nodes the owner declared; 0 for the zero Token.
func (t Token) Nodes() int {
	if t.secret == nil {
		return 0
	}
	return int((*t.secret).nodes)
}

// Quorum returns how many nodes must agree before a cluster is made: more than
// half of Nodes. It is 0 for the zero Token, which decides nothing.
func (t Token) Quorum() int {
	if t.secret == nil {
		return 0
	}
	return t.Nodes()/2 + 1
}

// String implements fmt.Stringer without revealing the token.
func (t Token) String() string { return redacted }

// GoString implements fmt.GoStringer without revealing the token.
func (t Token) GoString() string { return redacted }

// Format implements fmt.Formatter without revealing the token, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler without revealing the token.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler without revealing the token.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue implements slog.LogValuer without revealing the token.
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// UnmarshalText implements encoding.TextUnmarshaler by Parse.
func (t *Token) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}
