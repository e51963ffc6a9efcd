package k3s

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// ErrOtherAuthority: a certificate authority that the trusted one does not vouch for.
var ErrOtherAuthority = errors.New("the server shows another certificate authority than the one this machine joined, and that one did not sign it")

// Authority is a cluster's certificate authority as k3s keeps it in a file: the
// certificate that signs, and after it those that vouch for it. The zero Authority is
// none.
type Authority struct {
	file  []byte
	certs []*x509.Certificate
}

// ParseAuthority reads the file. What is no certificate in it is passed over.
func ParseAuthority(file []byte) (Authority, error) {
	a := Authority{file: bytes.Clone(file)}
	for b, rest := pem.Decode(file); b != nil; b, rest = pem.Decode(rest) {
		if b.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return Authority{}, fmt.Errorf("certificate %d: %w", len(a.certs)+1, err)
		}
		a.certs = append(a.certs, cert)
	}
	if len(a.certs) == 0 {
		return Authority{}, errors.New("no certificate in it")
	}
	return a, nil
}

// MarshalText implements encoding.TextMarshaler: the file.
func (a Authority) MarshalText() ([]byte, error) { return bytes.Clone(a.file), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Authority) UnmarshalText(file []byte) (err error) {
	*a, err = ParseAuthority(file)
	return err
}

// Hash returns the hex SHA-256 by which k3s' tokens name the authority: of the file, or,
// where that holds several certificates, of the root that they lead to, so that it
// survives whatever is signed by that root (k3s, clientaccess, since 1.26). It is empty
// for the zero Authority.
func (a Authority) Hash() string {
	if len(a.certs) == 0 {
		return ""
	}
	sum := sha256.Sum256(a.file)
	if root := a.root(); root != nil && len(a.certs) > 1 {
		sum = sha256.Sum256(root.Raw)
	}
	return hex.EncodeToString(sum[:])
}

// root is where the certificate that signs leads to within the file, or nil.
func (a Authority) root() *x509.Certificate {
	if len(a.certs) == 1 {
		return a.certs[0]
	}
	var roots, others []*x509.Certificate
	for _, c := range a.certs[1:] {
		if len(c.AuthorityKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId) {
			roots = append(roots, c)
		} else {
			others = append(others, c)
		}
	}
	if chain := a.chain(roots, others); chain != nil {
		return chain[len(chain)-1]
	}
	return nil
}

// chain leads from the certificate that signs to one of the roots, or is nil. No clock
// is asked, which may be wrong on a machine that has just started: what counts is that
// all was valid when that certificate was made.
func (a Authority) chain(roots, others []*x509.Certificate) []*x509.Certificate {
	chains, err := a.certs[0].Verify(x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(others), CurrentTime: a.certs[0].NotBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil
	}
	return chains[0]
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// VouchesFor reports whether next follows from a: it signs with the same key, or a
// certificate of a signed it, be it by way of others in next. That is what a rotation
// leaves behind, and what nobody can make who has no key of a.
func (a Authority) VouchesFor(next Authority) bool {
	if len(a.certs) == 0 || len(next.certs) == 0 {
		return false
	}
	sameKey := func(c *x509.Certificate) bool {
		return bytes.Equal(c.RawSubjectPublicKeyInfo, next.certs[0].RawSubjectPublicKeyInfo)
	}
	return slices.ContainsFunc(a.certs, sameKey) || next.chain(a.certs, next.certs[1:]) != nil
}
