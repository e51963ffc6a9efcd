package overlay

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

func pkixOf(t *testing.T, public any) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCertify checks the chain the way an agent does: the root's key is the ID.
func TestCertify(t *testing.T) {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.200.7.9")
	now := time.Unix(1_700_000_000, 0)
	chain, err := certify(key, subject{publicKey: pkixOf(t, leafKey.Public()), name: "alpha-aebag", addrs: []netip.Addr{addr}}, now)
	if err != nil || len(chain) != 2 {
		t.Fatal(len(chain), err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(chain[1])
	if err != nil {
		t.Fatal(err)
	}
	public, ok := root.PublicKey.(ed25519.PublicKey)
	if !ok || identity.ID(public) != key.ID() {
		t.Errorf("the root's key is not the member's")
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	opts := x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: addr.String(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := leaf.Verify(opts); err != nil {
		t.Error(err)
	}
	opts.CurrentTime = now.Add(2 * leafAfter)
	if _, err := leaf.Verify(opts); err == nil {
		t.Error("the leaf never expires")
	}
	if leaf.IsCA {
		t.Error("the leaf may sign others")
	}
}

func TestCertifyRefusals(t *testing.T) {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, public := range map[string][]byte{
		"nothing":          nil,
		"not a key":        {1, 2, 3},
		"rsa":              pkixOf(t, rsaKey.Public()),
		"the identity key": pkixOf(t, key.Private().Public()),
	} {
		if _, err := certify(key, subject{publicKey: public, name: "x"}, time.Now()); err == nil {
			t.Errorf("%s: certified", name)
		}
	}
}
