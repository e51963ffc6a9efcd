package trust

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

var network = [32]byte{7}

// source is a stream of bytes that is the same in each run.
func source(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func newKey(t testing.TB, seed byte) identity.Key {
	t.Helper()
	key, err := identity.Generate(source(seed))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sealed is a record with more fields, signed like all others.
func sealed(t testing.TB, key identity.Key, unknown []byte) []byte {
	t.Helper()
	raw, err := Founder{UID: [16]byte{1}, CA: [32]byte{2}, Issuer: key.ID(), unknown: unknown}.Seal(key, network)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestFounder(t *testing.T) {
	key := newKey(t, 1)
	raw := sealed(t, key, nil)
	f, err := Open(raw, network)
	if err != nil || f.UID != [16]byte{1} || f.CA != [32]byte{2} || f.Issuer != key.ID() {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := (Founder{Issuer: key.ID()}).Seal(newKey(t, 2), network); err == nil {
		t.Error("another key signs it")
	}
}

// What a later version adds is kept, and still signed.
func TestFounderOfALaterVersion(t *testing.T) {
	key := newKey(t, 1)
	later := []byte{9, 0, 2, 'a', 'b'}
	raw := sealed(t, key, later)
	f, err := Open(raw, network)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.Seal(key, network)
	if err != nil || !bytes.Equal(again, raw) {
		t.Errorf("lost on the way: %x, %v", again, err)
	}
}

func TestFounderRefused(t *testing.T) {
	key := newKey(t, 1)
	good := sealed(t, key, nil)
	resigned := func(change func(said []byte) []byte) []byte {
		said := change(bytes.Clone(good[:len(good)-signedSize]))
		return append(said, key.Sign(founderContext, signed(network, said))...)
	}
	for name, raw := range map[string][]byte{
		"nothing":         nil,
		"cut off":         good[:len(good)-1],
		"too long":        append(bytes.Clone(good), make([]byte, maxSize)...),
		"another kind":    resigned(func(s []byte) []byte { s[0]++; return s }),
		"another version": resigned(func(s []byte) []byte { s[1]++; return s }),
		"another hint":    resigned(func(s []byte) []byte { s[2]++; return s }),
		"a changed byte":  append(append(bytes.Clone(good[:headSize+fieldSize]), good[headSize+fieldSize]+1), good[headSize+fieldSize+1:]...),
		"a field missing": resigned(func(s []byte) []byte { return s[:len(s)-fieldSize-32] }),
		"a field short": resigned(func(s []byte) []byte {
			binary.BigEndian.PutUint16(s[headSize+1:], 15)
			return append(s[:headSize+fieldSize+15], s[headSize+fieldSize+16:]...)
		}),
		"a field twice":    resigned(func(s []byte) []byte { return append(s, s[headSize:headSize+fieldSize+16]...) }),
		"within a field":   resigned(func(s []byte) []byte { return append(s, 9, 0, 5, 1) }),
		"a critical field": resigned(func(s []byte) []byte { return append(s, 0x81, 0, 0) }),
	} {
		if f, err := Open(raw, network); !errors.Is(err, ErrFounder) || f.Issuer != (identity.ID{}) {
			t.Errorf("%s: got %+v, %v", name, f, err)
		}
	}
	if _, err := Open(good, [32]byte{8}); !errors.Is(err, ErrFounder) {
		t.Errorf("of another network: %v", err)
	}
}

func FuzzFounder(f *testing.F) {
	f.Add(sealed(f, newKey(f, 1), []byte{9, 0, 1, 0}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Open(raw, network)
		if err == nil && got.Issuer == (identity.ID{}) {
			t.Error("a record that names nobody")
		}
	})
}
