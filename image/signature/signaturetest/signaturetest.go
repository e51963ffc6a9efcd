// Package signaturetest signs layouts for tests with keys that nobody keeps.
package signaturetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"

	"github.com/kairos-io/kairos/image/signature"
)

// Sign signs what a layout holds under a name with a fresh key and returns the
// public one in PEM.
func Sign(dir, name string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	if _, err := signature.SignLayout(dir, name, key); err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), err
}
