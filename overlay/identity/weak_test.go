package identity

import (
	"crypto/ed25519"
	"fmt"
	"testing"
)

// TestNobodySignsForWeakKeys makes signatures without a key: with S = 0 and R
// the neutral point, what is checked is only that the hash times the public key
// is the neutral point, which for one of order 8 at most is so for one message in eight.
func TestNobodySignsForWeakKeys(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1
	for key := range weakKeys {
		for _, sign := range []byte{0, 0x80} {
			id := key
			id[len(id)-1] |= sign
			for i := range 200 {
				msg := []byte(fmt.Sprint(i))
				if Verify(id, "test", msg, forged) {
					t.Errorf("%x: a forged signature holds", id[:])
					break
				}
			}
		}
	}
	key, err := Generate(nil)
	if err != nil || key.ID().weak() {
		t.Errorf("an honest key is weak: %v", err)
	}
}
