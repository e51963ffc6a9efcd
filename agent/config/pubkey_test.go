package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// pemCases is what kairos.os.verify_key takes and refuses, as YAML values.
var pemCases = func() keyCase {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	edPub, edPriv, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(edPriv)
	must(err)
	ec, ed, rs := publicPEM(p256.Public()), publicPEM(edPub), publicPEM(big.Public())
	quoted := func(s string) string { return fmt.Sprintf("%q", s) }
	return keyCase{
		good: []string{quoted(ec), quoted(ed), quoted(rs), quoted("\n" + ec + "\n\n")},
		bad: []refusal{
			{`""`, "is not a public key in PEM"},
			{"cosign.pub", "is not a public key in PEM"},
			{quoted(strings.TrimSpace(ec)[:60]), "is not a public key in PEM"},
			{quoted(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))), "is a private key: keep it away"},
			{quoted(string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: private}))), "is a private key: keep it away"},
			{quoted(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))), `of type "CERTIFICATE": want PUBLIC KEY`},
			{quoted(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))), "is a damaged public key"},
			{quoted(ec + ed), "want one key"},
			{quoted(publicPEM(p384.Public())), "is an ECDSA key on P-384"},
			{quoted(smallRSA), "is an RSA key of 1024 bits: want 2048 or more"},
		},
	}
}()

// smallRSA cannot be made by crypto/rsa any more: openssl genrsa 1024 | openssl pkey -pubout
const smallRSA = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC6DIh5LvUsPwLJXALBgvkDYvfZ
ELwVIVElY5xuqRSp5W2ZH898j9xTaROM9UoGcz0aHT4ubnOm9FFa5uyPwCVIqpYc
1hDELX0/z66eju4HPriYbk1kJZKrjNE0Bz04EAOkGzqmfwsktk+fAR+Z+fPi4Lst
9d9JqHlu3C710TcS2QIDAQAB
-----END PUBLIC KEY-----
`

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func publicPEM(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// A key is written and read back as the same, so that the agent gets what the file said.
func TestPublicKeyRoundTrip(t *testing.T) {
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.NetworkToken = newToken(t)
	if c.OS.VerifyKey, err = ParsePublicKey(publicPEM(key)); err != nil {
		t.Fatal(err)
	}
	raw, err := Render(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Load(write(t, t.TempDir(), "a.yaml", string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Config.OS; !reflect.DeepEqual(got, c.OS) || !key.Equal(got.VerifyKey.Key()) || got.VerifyKey.IsZero() {
		t.Errorf("got %+v", got)
	}
	if !(PublicKey{}).IsZero() || (PublicKey{}).Key() != nil {
		t.Error("no key is one")
	}
}

// A private key in the wrong place is not told on.
func TestPrivateKeyIsNotQuoted(t *testing.T) {
	for _, b := range pemCases.bad {
		if reason := decodeReason(t, newToken(t).Reveal(), root+".os.verify_key", b.value); strings.Contains(reason, "MC4C") {
			t.Errorf("quotes it: %s", reason)
		}
	}
}
