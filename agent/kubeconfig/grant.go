package kubeconfig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

// Issuer signs client certificates with the CA that k3s trusts for its API's
// clients. It runs on servers only.
type Issuer struct {
	UID           string // cluster
	Endpoint      string // https://<overlay address>:6443
	CACert, CAKey string // files of k3s' client CA
	ServerCA      string // file of the CA of the API server's certificate
	Now           func() time.Time
	Rand          io.Reader // nil: crypto/rand
}

// Asker is who asks, as authenticated by the caller, who has looked at its rights too.
type Asker struct {
	ID   identity.ID
	Name string // what it calls itself
}

// user is the name for Kubernetes, which its audit log shows: the asker's name
// only if it ends in its ID, as every honest one does, so that nobody acts
// under another's.
func (a Asker) user() string {
	if strings.HasSuffix(a.Name, "-"+a.ID.Short()) {
		return userPrefix + a.Name
	}
	return userPrefix + a.ID.String()
}

// Grant signs. That the asker has the right is for the caller to know. Refusals
// are *api.Error with a hint.
func (i Issuer) Grant(who Asker, req GrantRequest) (Grant, error) {
	if req.UID != i.UID {
		return Grant{}, &api.Error{Message: "this server belongs to another cluster", Hint: "try again in a moment", Status: http.StatusConflict}
	}
	ttl, err := lifetime(req.TTLSeconds)
	if err != nil {
		return Grant{}, err
	}
	ca, err := tls.LoadX509KeyPair(i.CACert, i.CAKey)
	if err != nil {
		return Grant{}, fmt.Errorf("load k3s' client authority: %w", err)
	}
	serverCA, err := os.ReadFile(i.ServerCA)
	if err != nil {
		return Grant{}, fmt.Errorf("read the API server's authority: %w", err)
	}
	public, err := clientKey(req.PublicKey)
	if err != nil {
		return Grant{}, err
	}
	cert, err := i.sign(ca, leaf{user: who.user(), public: public, ttl: ttl})
	if err != nil {
		return Grant{}, err
	}
	return Grant{Certificate: cert, CA: serverCA, Server: i.Endpoint}, nil
}

func lifetime(seconds int64) (time.Duration, error) {
	if seconds == 0 {
		return DefaultTTL, nil
	}
	if seconds < int64(MinTTL/time.Second) || seconds > int64(MaxTTL/time.Second) {
		return 0, &api.Error{
			Message: fmt.Sprintf("a kubeconfig lives from %s to %s", MinTTL, MaxTTL),
			Hint:    "choose --ttl within it",
			Status:  http.StatusBadRequest,
		}
	}
	return time.Duration(seconds) * time.Second, nil
}

func clientKey(der []byte) (crypto.PublicKey, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if _, ok := public.(*ecdsa.PublicKey); err != nil || !ok {
		return nil, &api.Error{Message: "the public key is not an ECDSA key", Status: http.StatusBadRequest}
	}
	return public, nil
}

// leaf is a certificate to be signed.
type leaf struct {
	user   string
	public crypto.PublicKey
	ttl    time.Duration
}

func (i Issuer) sign(ca tls.Certificate, l leaf) ([]byte, error) {
	random, now := i.Rand, time.Now
	if random == nil {
		random = rand.Reader
	}
	if i.Now != nil {
		now = i.Now
	}
	serial, err := rand.Int(random, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	until := now().Add(l.ttl)
	if until.After(ca.Leaf.NotAfter) {
		until = ca.Leaf.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: l.user, Organization: []string{group}},
		NotBefore:             now().Add(-backdate),
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(random, tmpl, ca.Leaf, l.public, ca.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("sign a client certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
