package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/signature"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// A node finds in the registry what was pushed, with its signature.
func TestPush(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	digest, err := upgradetest.Layout(dir, "v1", upgradetest.New(slotstest.New("v1", "amd64")))
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signature.SignLayout(dir, "", private); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(server.URL, "http://") + "/os:v1"
	var told strings.Builder
	got, err := push(t.Context(), &told, dir, name)
	if err != nil || got != name+"@"+digest {
		t.Fatalf("got %q, %v", got, err)
	}
	ref, err := oci.ParseRef(name)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := upgrade.Find(t.Context(), upgrade.Options{Ref: ref, Key: public, Arch: "amd64"})
	if err != nil || !offer.Signed || offer.Digest != digest {
		t.Errorf("a node finds %+v, %v", offer, err)
	}
	if !strings.Contains(told.String(), "os:v1: ") || !strings.Contains(told.String(), "% of ") {
		t.Errorf("told %q", told.String())
	}
}

func TestPushThatFails(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer refuses.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	dir := filepath.Join(t.TempDir(), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := upgradetest.Layout(dir, "v1", upgradetest.New(slotstest.New("v1", "amd64"))); err != nil {
		t.Fatal(err)
	}
	at := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	for name, tt := range map[string]struct{ dir, ref, want string }{
		"not allowed":           {dir, at(refuses) + "/os:v1", "hint: `docker login " + at(refuses) + "`"},
		"nobody there":          {dir, at(gone) + "/os:v1", "hint: is " + at(gone) + " the registry, and reachable from here?"},
		"no layout":             {t.TempDir(), at(gone) + "/os:v1", "hint: make it with `image release`"},
		"a digest for a name":   {dir, at(gone) + "/os@sha256:" + strings.Repeat("0", 64), "hint: write it like registry.example.org/name:tag"},
		"nothing like a name":   {dir, "https://r/os", "hint: write it like"},
		"capitals in the name ": {dir, at(gone) + "/OS:v1", "hint: write it like"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := push(t.Context(), io.Discard, tt.dir, tt.ref); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
