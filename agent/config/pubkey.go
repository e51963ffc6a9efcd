package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// minRSA is the smallest RSA modulus that is taken, in bits (NIST SP 800-131A).
const minRSA = 2048

// PublicKey is a configured key that signatures are checked with: ECDSA on
// P-256, Ed25519 or RSA. The zero value is no key.
type PublicKey struct {
	key  crypto.PublicKey
	text string // PEM
}

// ParsePublicKey reads one PEM block "PUBLIC KEY" (RFC 7468, section 13), as
// `cosign generate-key-pair` and `openssl pkey -pubout` write it. Its errors
// never quote the text: a private key may have been put there by mistake.
func ParsePublicKey(s string) (PublicKey, error) {
	block, rest := pem.Decode([]byte(s))
	switch {
	case block == nil:
		return PublicKey{}, errors.New("is not a public key in PEM: want a block that begins with -----BEGIN PUBLIC KEY-----")
	case strings.Contains(block.Type, "PRIVATE"):
		return PublicKey{}, errors.New("is a private key: keep it away from the machines, and put its public key here")
	case block.Type != "PUBLIC KEY":
		return PublicKey{}, fmt.Errorf("is a PEM block of type %q: want PUBLIC KEY", shorten(block.Type))
	case strings.TrimSpace(string(rest)) != "":
		return PublicKey{}, errors.New("has something behind the first PEM block: want one key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return PublicKey{}, errors.New("is a damaged public key")
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return PublicKey{}, fmt.Errorf("is an ECDSA key on %s: want P-256, Ed25519 or RSA", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return PublicKey{}, fmt.Errorf("is an RSA key of %d bits: want %d or more", k.N.BitLen(), minRSA)
		}
	case ed25519.PublicKey:
	default:
		return PublicKey{}, errors.New("is a key of a kind that is not supported: want ECDSA P-256, Ed25519 or RSA")
	}
	return PublicKey{key, string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))}, nil
}

// IsZero reports whether there is no key.
func (k PublicKey) IsZero() bool { return k.key == nil }

// Key returns *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey; nil for no key.
func (k PublicKey) Key() crypto.PublicKey { return k.key }

// MarshalText implements encoding.TextMarshaler: PEM.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.text), nil }
