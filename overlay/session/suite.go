package session

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Suites is a set of AEADs.
type Suites byte

// The AEADs, by their bits on the wire.
const (
	AES256GCM        Suites = 1 << iota // crypto/aes with the processor's instructions
	ChaCha20Poly1305                    // RFC 8439: fast everywhere
)

// String names the suite as the field does.
func (s Suites) String() string {
	switch s {
	case AES256GCM:
		return "AES-256-GCM"
	case ChaCha20Poly1305:
		return "ChaCha20-Poly1305"
	}
	return fmt.Sprintf("suites %#02x", byte(s))
}

// Supported are the suites of a machine whose processor has AES and carry-less
// multiplication, or has not.
func Supported(hardwareAES bool) Suites {
	if hardwareAES {
		return AES256GCM | ChaCha20Poly1305
	}
	return ChaCha20Poly1305
}

// choose returns the one suite that two machines use, 0 if they share none.
func choose(a, b Suites) Suites {
	for _, s := range []Suites{AES256GCM, ChaCha20Poly1305} {
		if a&b&s != 0 {
			return s
		}
	}
	return 0
}

const keySize = 32

// aead makes the cipher of one suite.
func (s Suites) aead(key [keySize]byte) (cipher.AEAD, error) {
	switch s {
	case AES256GCM:
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	case ChaCha20Poly1305:
		return chacha20poly1305.New(key[:])
	}
	return nil, fmt.Errorf("no such AEAD: %v", s)
}
