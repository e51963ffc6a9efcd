package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// What was signed here is taken by a node that has the key, and a layout with a
// signature is still one with one image.
func TestSign(t *testing.T) {
	dir := t.TempDir()
	layout, file := filepath.Join(dir, "release"), filepath.Join(dir, "key.pem")
	if err := os.Mkdir(layout, 0o755); err != nil {
		t.Fatal(err)
	}
	digest, err := upgradetest.Layout(layout, "v1", upgradetest.New(slotstest.New("v1", "amd64")))
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"sign", "--layout", layout, "--key", file}); err != nil {
		t.Fatal(err)
	}
	if got, err := builder.Digest(layout); err != nil || got != digest {
		t.Errorf("the layout holds %s, %v", got, err)
	}
	ref, err := oci.ParseRef("oci:" + layout)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := upgrade.Find(t.Context(), upgrade.Options{Ref: ref, Key: public, Arch: "amd64"})
	if err != nil || !offer.Signed || offer.Digest != digest {
		t.Errorf("got %+v, %v", offer, err)
	}
	for _, args := range [][]string{
		{"sign", "--layout", layout, "--key", filepath.Join(dir, "none.pem")},
		{"sign", "--layout", layout, "--key", filepath.Join(layout, "index.json")},
		{"sign", "--layout", dir, "--key", file},
	} {
		if err := run(t.Context(), args); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
