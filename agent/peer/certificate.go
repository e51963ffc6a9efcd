package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
)

// renewAfter is how long one leaf is used; the overlay makes them for a week.
const renewAfter = 12 * time.Hour

// credentials holds this node's leaf and its key. It is safe for concurrent use.
type credentials struct {
	overlay Overlay
	now     func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate
	made time.Time
}

// get returns the certificate, a new one when the old one is getting on in years.
func (c *credentials) get(ctx context.Context) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != nil && c.now().Sub(c.made) < renewAfter {
		return c.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	chain, err := c.overlay.Certificate(ctx, public)
	if err != nil {
		return nil, fmt.Errorf("get a certificate from the overlay: %w", err)
	}
	c.cert, c.made = &tls.Certificate{Certificate: chain, PrivateKey: key}, c.now()
	return c.cert, nil
}

// verifyChain returns the ID that a certificate chain speaks for.
//
// Dates are not looked at: a node with a wrong clock must still be able to
// vote and join, the leaf's key lives in one process' memory only, and whether
// the ID may speak at all is decided by the list of members.
func verifyChain(chain []*x509.Certificate) (identity.ID, error) {
	if len(chain) != 2 {
		return identity.ID{}, fmt.Errorf("verify the peer: %d certificates instead of leaf and identity", len(chain))
	}
	leaf, root := chain[0], chain[1]
	public, ok := root.PublicKey.(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return identity.ID{}, errors.New("verify the peer: the identity certificate holds no Ed25519 key")
	}
	if !root.IsCA || !root.BasicConstraintsValid {
		return identity.ID{}, errors.New("verify the peer: the identity certificate may not sign")
	}
	// CheckSignatureFrom also demands that the issuer is a CA allowed to sign certificates.
	if err := root.CheckSignatureFrom(root); err != nil {
		return identity.ID{}, fmt.Errorf("verify the peer: identity certificate: %w", err)
	}
	if err := leaf.CheckSignatureFrom(root); err != nil {
		return identity.ID{}, fmt.Errorf("verify the peer: leaf: %w", err)
	}
	if leaf.IsCA {
		return identity.ID{}, errors.New("verify the peer: the leaf is an authority")
	}
	return identity.ID(public), nil
}
