package k3s_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/k3s"
	"github.com/kairos-io/kairos/agent/k3s/k3stest"
)

func parsed(t *testing.T, a k3stest.Authority) k3s.Authority {
	t.Helper()
	out, err := k3s.ParseAuthority(a.File)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A token names a CA by its file, as long as that is one certificate, and else by its
// root: that one stays when what it signs is made anew.
func TestAuthorityHash(t *testing.T) {
	of := func(raw []byte) string {
		sum := sha256.Sum256(raw)
		return hex.EncodeToString(sum[:])
	}
	born, chained := k3stest.NewAuthority(), k3stest.Chained()
	rotated, broken := born.Rotated(), born
	broken.File = append(broken.File, k3stest.NewAuthority().File...)
	for _, tt := range []struct {
		name string
		ca   k3stest.Authority
		want string
	}{
		{"one certificate", born, of(born.File)},
		{"below a root", chained, of(chained.Root())},
		{"another one below that root", chained.Signed(), of(chained.Root())},
		{"rotated", rotated, of(rotated.Root())},
		{"certificates that have nothing to do with each other", broken, of(broken.File)},
	} {
		if got := parsed(t, tt.ca).Hash(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := (k3s.Authority{}).Hash(); got != "" {
		t.Errorf("none: %s", got)
	}
}

// What follows from the trusted CA needs one of its keys to make.
func TestAuthorityVouches(t *testing.T) {
	born, chained := k3stest.NewAuthority(), k3stest.Chained()
	// An attacker can put what he finds into his file.
	forged := k3stest.NewAuthority().Rotated()
	forged.File = append(forged.File, born.Rotated().File...)
	for _, tt := range []struct {
		name      string
		old, next k3stest.Authority
		want      bool
	}{
		{"the same", born, born, true},
		{"rotated by k3s' means", born, born.Rotated(), true},
		{"rotated once more, from what it was before", born.Rotated(), born.Rotated(), true},
		{"below the same root", chained, chained.Signed(), true},
		{"the old one below a root of its own", born, born.Signed(), true},
		{"renewed with its key", born, born.Renewed(), true},
		{"made anew", born, k3stest.NewAuthority(), false},
		{"made anew, with all of the old in its file", born, forged, false},
		{"back to the old", born.Rotated(), born, true}, // its file names the old root still
	} {
		if got := parsed(t, tt.old).VouchesFor(parsed(t, tt.next)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if (k3s.Authority{}).VouchesFor(parsed(t, born)) || parsed(t, born).VouchesFor(k3s.Authority{}) {
		t.Error("none vouches, or is vouched for")
	}
}

func TestAuthorityIsACertificate(t *testing.T) {
	for name, file := range map[string]string{
		"nothing": "", "half written": "half writ", "a key": "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
		"no certificate within": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		if _, err := k3s.ParseAuthority([]byte(file)); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
