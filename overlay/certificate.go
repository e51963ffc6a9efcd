package overlay

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Validity of certificates. Clocks of nodes may be wrong by years; what makes a
// certificate good is that its issuer's key is an admitted member's ID. So the
// issuer is good for all time, and the leaf is short-lived from a day before
// the node's own clock.
const (
	leafBefore = 24 * time.Hour
	leafAfter  = 7 * 24 * time.Hour
)

// noExpiry is 99991231235959Z, "no well-defined expiration date" of RFC 5280, section 4.1.2.5.
var noExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// subject is what a leaf is made for.
type subject struct {
	publicKey []byte // PKIX, DER
	name      string // DNS name
	addrs     []netip.Addr
}

// certify signs a leaf for s with the identity key and returns it with the
// key's self-signed certificate, both DER. The self-signed one holds the ID as
// its public key, so a verifier needs no authority but the list of members.
func certify(key identity.Key, s subject, now time.Time) ([][]byte, error) {
	public, err := x509.ParsePKIXPublicKey(s.publicKey)
	if err == nil {
		err = goodLeafKey(public, key.ID())
	}
	if err != nil {
		return nil, &api.Error{Message: "certificate: the public key is no PKIX key: " + err.Error(), Status: http.StatusBadRequest}
	}
	private := key.Private()
	issuer := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: key.ID().String()},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              noExpiry,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	issuerDER, err := x509.CreateCertificate(rand.Reader, issuer, issuer, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("certify the identity key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: key.ID().String()},
		NotBefore:    now.Add(-leafBefore),
		NotAfter:     now.Add(leafAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{s.name},
	}
	for _, a := range s.addrs {
		leaf.IPAddresses = append(leaf.IPAddresses, net.IP(a.AsSlice()))
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, issuer, public, private)
	if err != nil {
		return nil, fmt.Errorf("certify a key of the agent: %w", err)
	}
	return [][]byte{leafDER, issuerDER}, nil
}

// goodLeafKey refuses key types that TLS 1.3 would not use, and the identity
// key itself, which never leaves the overlay's process.
func goodLeafKey(public any, id identity.ID) error {
	switch k := public.(type) {
	case ed25519.PublicKey:
		if len(k) == len(id) && identity.ID(k) == id {
			return fmt.Errorf("it is the identity key")
		}
		return nil
	case *ecdsa.PublicKey:
		return nil
	}
	return fmt.Errorf("take Ed25519 or ECDSA")
}
