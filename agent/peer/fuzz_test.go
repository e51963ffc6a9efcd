package peer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/kairos-io/kairos/overlay/identity"
)

// FuzzVerifyChain feeds what a stranger may present. Nobody gets the ID of a
// key that did not sign both certificates.
func FuzzVerifyChain(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(leafKey.Public())
	if err != nil {
		f.Fatal(err)
	}
	chain, err := certify(key, key, public)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(chain[0], chain[1])
	f.Add(chain[1], chain[1])
	f.Add([]byte{}, []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, leaf, root []byte) {
		l, err := x509.ParseCertificate(leaf)
		if err != nil {
			return
		}
		r, err := x509.ParseCertificate(root)
		if err != nil {
			return
		}
		id, err := verifyChain([]*x509.Certificate{l, r})
		if err != nil {
			return
		}
		own := ed25519.PublicKey(id[:])
		if id == (identity.ID{}) || !ed25519.Verify(own, l.RawTBSCertificate, l.Signature) || !ed25519.Verify(own, r.RawTBSCertificate, r.Signature) {
			t.Errorf("accepted for %s", id)
		}
	})
}
