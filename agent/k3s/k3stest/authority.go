// Package k3stest makes certificate authorities as k3s makes and rotates them, for tests.
package k3stest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// Authority is a certificate authority with its keys.
type Authority struct {
	File []byte // PEM: what signs, and what vouches for it

	root signer
}

type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority is one of a single certificate, as k3s makes it at birth.
func NewAuthority() Authority {
	key := newKey()
	cert := sign("root", key, nil)
	return Authority{File: file(cert), root: signer{cert, key}}
}

// Chained is one that a root made elsewhere signed.
func Chained() Authority {
	a := NewAuthority()
	return a.Signed()
}

// Signed is another one below the same root.
func (a Authority) Signed() Authority {
	return Authority{File: file(sign("ca", newKey(), &a.root), a.root.cert), root: a.root}
}

// Rotated is one below a new root, which the old one signed as well: what k3s' own
// rotation leaves.
func (a Authority) Rotated() Authority {
	key := newKey()
	root := signer{sign("new root", key, nil), key}
	crossed := sign("new root", key, &a.root)
	return Authority{File: file(sign("ca", newKey(), &root), root.cert, crossed, a.root.cert), root: root}
}

// Renewed has the same key, and a certificate of its own.
func (a Authority) Renewed() Authority {
	cert := sign("root", a.root.key, nil)
	return Authority{File: file(cert), root: signer{cert, a.root.key}}
}

// Root returns the DER of the root.
func (a Authority) Root() []byte { return a.root.cert.Raw }

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// sign makes a CA's certificate; by nil it signs itself.
func sign(name string, key *ecdsa.PrivateKey, by *signer) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err)
	}
	made := time.Now().Add(-time.Hour).Truncate(time.Second)
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprint(name, key.X)},
		NotBefore: made, NotAfter: made.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	if by == nil {
		by = &signer{tmpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, key.Public(), by.key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func file(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			panic(err)
		}
	}
	return out.Bytes()
}
