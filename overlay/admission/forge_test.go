package admission

import (
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/kairos-io/kairos/overlay/token"
)

// What follows is what somebody with parts of a door can do by hand.

// sealRaw seals any bytes as the terms of a role.
func sealRaw(t testing.TB, s state, d token.Door, role string, plain []byte) []byte {
	t.Helper()
	key, err := s.derive(d.Find.Frame, role)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return aead.Seal(nil, make([]byte, aead.NonceSize()), plain, nil)
}

// sealWith seals terms with a join credential from elsewhere.
func sealWith(t testing.TB, s state, d token.Door, role string, join []byte) []byte {
	t.Helper()
	plain, err := Terms{Run: Run{1}}.encode(join)
	if err != nil {
		t.Fatal(err)
	}
	return sealRaw(t, s, d, role, plain)
}

// stolen is the join credential in a dialler's sealed terms.
func stolen(t testing.TB, s state, d token.Door, sealed []byte) []byte {
	t.Helper()
	key, err := s.derive(d.Find.Frame, roleDialler)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, join, err := parseTerms(plain)
	if err != nil {
		t.Fatal(err)
	}
	return join
}

// proofOf is alex's proof to bert in some version of the protocol.
func proofOf(t testing.TB, version byte, d token.Door) []byte {
	t.Helper()
	tr := transcript{version: version, dialler: alex, listener: bert, nonceD: nonce(2), nonceL: nonce(1)}
	selector := tr.selector(d.Find.Frame)
	sealed, err := tr.start(selector).seal(d, roleDialler, Terms{Run: Run{alex[0]}})
	if err != nil {
		t.Fatal(err)
	}
	return append(append(append([]byte{}, tr.nonceD[:]...), selector...), sealed...)
}
