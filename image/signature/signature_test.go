package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// vectors are signatures that OpenSSL 3 made of a payload in cosign's form.
var vectors = []struct{ name, key, signature string }{
	{"ECDSA P-256", `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECxktIGsrotcH6F2uzAXQkprzHTmC
oTh3QdrE5FZQ3h4MtGbfcYQ9PGyWsoafnsmMPWFvmpwObbQrQK0YBqQk5A==
-----END PUBLIC KEY-----`, "MEYCIQDK9zg/LXOn0y5BSMKBaH5FiKu3yu0jERbW7j6jUpRBIgIhAIFOAR7zuvyZZ2Vx/TqIIy4Wi5sTDQNug/VJwBkiFpME"},
	{"Ed25519", `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAVaWIiOxaeIycJPo+7gxsD0TjJn5p1EIC7co0z/YFXfI=
-----END PUBLIC KEY-----`, "KZyeVk31+rRrLkHtmJrDYjfFNE61f6Snz26zHdEUpK+PHV4DWKAsx7HfQVqZV/wiI0DdHiVugVgx0C9BQXAECA=="},
	{"RSA", `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA6GDIHq13pOvL8hAkaLQr
8YONXC912exkHwABS3zoJIJbk3ELAk73H756tQUbXEtxf4PjxscMqh1AN2tchGXw
xIXEUwskoiEncXOWBJPIK/StLPXBSLQREBNM/DzkN0WA7zby00ym8bRU1ZfB81Xo
JeRpz3oVvHItL/ngUFKOcjULoC2tnHOjlMcA+PIjt3UJGpxdel4dFz5gw4ImZsbB
ootEIsmxzn/nJz9+sw68ChhUvkt5AUWdxT6iuD76b57lRuT8LZNXjoVXs7Y7fWTt
LHpLuOPBpALwCvMHU/w2yDXMHbplodFOWDumKwibWRUH0bUjCOAh/eOjAU6eXBI8
ewIDAQAB
-----END PUBLIC KEY-----`, "4/UaCd1//1wq8+uUetWNL/GH9znTjbe6CT/mQpzPbjAZyKJVvSAbYK2piJOHvPYY6CrXNAZme/pXjBHDIJOzMucgbBg5mp1d6jSYS4Da7MBoJuNujY/K12xvGZL7dYR0RUSmRCvTio8Lnz/EVtEWPT+QZy/rQYpkYBT44XZqKv6y0S0OTTl3/CzOfUkd4vsV1NMQzmTBdrjo/EPUeWN2oHrT7EMGRoYkavbS2/kNC7P7XfWmudE3zmhowyVOKGl76P8bTWh1/3l7Ud0Gk8EUL9xdTkLe1onvRgPtu0HJDwUDbPtP/8xXi5Wmzb957t6TcL/0qQKhPBHGojsXbFux+A=="},
}

const payloadOfVectors = `{"critical":{"identity":{"docker-reference":"registry.example/os"},"image":{"docker-manifest-digest":"sha256:abababababababababababababababababababababababababababababababab"},"type":"cosign container image signature"},"optional":null}`

var digestOfVectors = "sha256:" + strings.Repeat("ab", 32)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func publicKey(t *testing.T, text string) crypto.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	must(t, err)
	return key
}

// What others sign in cosign's form is taken.
func TestVectors(t *testing.T) {
	for _, v := range vectors {
		sig, err := base64.StdEncoding.DecodeString(v.signature)
		must(t, err)
		key := publicKey(t, v.key)
		if err := Check(key, []byte(payloadOfVectors), sig, digestOfVectors); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
		if err := Check(key, []byte(payloadOfVectors+" "), sig, digestOfVectors); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, another payload: %v", v.name, err)
		}
		sig[8] ^= 1
		if err := Check(key, []byte(payloadOfVectors), sig, digestOfVectors); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, another signature: %v", v.name, err)
		}
	}
	raw, err := newPayload(digestOfVectors, "registry.example/os")
	if err != nil || string(raw) != payloadOfVectors {
		t.Errorf("our payload is %s, %v", raw, err)
	}
}

// newKeys makes a key of each kind.
func newKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return map[string]crypto.Signer{"ECDSA": ec, "Ed25519": ed, "RSA": rs}
}

func TestCheck(t *testing.T) {
	about := func(kind, digest string) string {
		return `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"` + digest + `"},"type":"` + kind + `"},"optional":null}`
	}
	other := "sha256:" + strings.Repeat("cd", 32)
	others := newKeys(t)
	for name, key := range newKeys(t) {
		for _, tc := range []struct{ name, payload, want string }{
			{"good", about(critical, digestOfVectors), ""},
			{"another image", about(critical, other), "the key signed another image"},
			{"another kind of thing", about("a contract", digestOfVectors), "not about an image"},
			{"no JSON", "sha256:" + strings.Repeat("ab", 32), "not about an image"},
			{"an empty object", "{}", "not about an image"},
		} {
			sig, err := sign(key, []byte(tc.payload))
			must(t, err)
			err = Check(key.Public(), []byte(tc.payload), sig, digestOfVectors)
			if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%s, %s: %v", name, tc.name, err)
			}
			for other, key := range others {
				if err := Check(key.Public(), []byte(tc.payload), sig, digestOfVectors); !errors.Is(err, ErrInvalid) {
					t.Errorf("%s for another %s key: %v", tc.name, other, err)
				}
			}
		}
	}
	if err := Check("no key", nil, nil, ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
}

func TestCandidates(t *testing.T) {
	layer := func(size int64, sig string) v1.Descriptor {
		return v1.Descriptor{MediaType: payloadType, Size: size, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, Annotations: map[string]string{annotation: sig}}
	}
	good := layer(100, "AAAA")
	elsewhere := good
	elsewhere.MediaType = "application/octet-stream"
	m := v1.Manifest{Config: good, Layers: []v1.Descriptor{elsewhere, layer(MaxPayload+1, "AAAA"), layer(0, "AAAA"),
		layer(100, "not base64"), layer(100, ""), layer(100, strings.Repeat("A", maxBase64+4)), good}}
	raw, err := json.Marshal(m)
	must(t, err)
	if got, err := Candidates(raw); err != nil || len(got) != 1 || len(got[0].Signature) != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	for range 2 * maxSignatures {
		m.Layers = append(m.Layers, good)
	}
	raw, err = json.Marshal(m)
	must(t, err)
	if got, err := Candidates(raw); err != nil || len(got) != maxSignatures {
		t.Errorf("%d signatures are looked at, %v", len(got), err)
	}
	if _, err := Candidates([]byte("<html>")); err == nil {
		t.Error("a page was taken for signatures")
	}
}

// A layout is signed by several keys, one after the other, and what was in it stays.
func TestSignLayout(t *testing.T) {
	dir := t.TempDir()
	digest, err := upgradetest.Layout(dir, "v1", upgradetest.New(slotstest.New("v1", "amd64")))
	must(t, err)
	keys := newKeys(t)
	for _, key := range keys {
		h, err := SignLayout(dir, "", key)
		if err != nil || h.String() != digest {
			t.Fatalf("got %s, %v", h, err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	list, err := index.IndexManifest()
	must(t, err)
	if len(list.Manifests) != 2 || len(Images(list.Manifests)) != 1 || Images(list.Manifests)[0].Digest.String() != digest {
		t.Fatalf("the layout holds %+v", list.Manifests)
	}
	if got := list.Manifests[1].Annotations[RefName]; got != oci.SignatureTag(digest) {
		t.Errorf("the signatures are called %s", got)
	}
	raw, err := layout.Path(dir).Bytes(list.Manifests[1].Digest)
	must(t, err)
	found, err := Candidates(raw)
	must(t, err)
	if len(found) != len(keys) {
		t.Fatalf("%d signatures", len(found))
	}
	for name, key := range keys {
		good := 0
		for _, c := range found {
			payload, err := layout.Path(dir).Bytes(c.Payload.Digest)
			must(t, err)
			if Check(key.Public(), payload, c.Signature, digest) == nil {
				good++
			}
		}
		if good != 1 {
			t.Errorf("%d good signatures of the %s key", good, name)
		}
	}
	second, err := upgradetest.Layout(dir, "v2", upgradetest.New(slotstest.New("v2", "amd64")))
	must(t, err)
	if _, err := SignLayout(dir, "", keys["RSA"]); err == nil || !strings.Contains(err.Error(), "--name") {
		t.Errorf("which of two: %v", err)
	}
	if h, err := SignLayout(dir, "v2", keys["RSA"]); err != nil || h.String() != second {
		t.Errorf("by name: %s, %v", h, err)
	}
	if _, err := SignLayout(t.TempDir(), "", keys["RSA"]); err == nil {
		t.Error("an empty directory was signed")
	}
}

func TestParseKey(t *testing.T) {
	encode := func(kind string, der []byte, err error) []byte {
		must(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return encode("PRIVATE KEY", der, err)
	}
	for name, key := range newKeys(t) {
		if got, err := ParseKey(pkcs8(key)); err != nil || got.Public() == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalECPrivateKey(ec)
	if _, err := ParseKey(encode("EC PRIVATE KEY", der, err)); err != nil {
		t.Errorf("SEC 1: %v", err)
	}
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	for _, tc := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "not in PEM"},
		{"public", encode("PUBLIC KEY", public, err), "the public one"},
		{"with a password", encode("ENCRYPTED SIGSTORE PRIVATE KEY", der, nil), "without a password"},
		{"damaged", encode("PRIVATE KEY", []byte("x"), nil), "it is damaged"},
		{"another curve", pkcs8(p384), "want P-256"},
	} {
		if _, err := ParseKey(tc.raw); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Signing does not leave the key in the layout.
func TestKeyIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	_, err := upgradetest.Layout(dir, "v1", upgradetest.New(slotstest.New("v1", "amd64")))
	must(t, err)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	_, err = SignLayout(dir, "v1", key)
	must(t, err)
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), string(key.Seed())) {
			t.Errorf("%s holds the key", path)
		}
		return err
	}))
}
