package appliance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kairos-io/kairos/tests/vm"
)

// registryPort is where machines find the registry of their LAN.
const registryPort = 5000

// registry serves OCI layouts as they lie on disk, to pull from. A tag is the
// name under which a layout was published last.
type registry struct {
	lan *vm.LAN

	mu   sync.Mutex
	tags map[string]string // tag -> digest of its manifest
	dirs []string          // layouts
}

// serveRegistry starts a registry in the story's LAN.
func (s *story) serveRegistry() *registry {
	s.Helper()
	r := &registry{lan: s.lan, tags: map[string]string{}}
	listener, err := s.lan.Listen(registryPort)
	s.must(err)
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	s.Cleanup(func() {
		if err := server.Close(); err != nil {
			s.Error(err)
		}
		<-done // http.ErrServerClosed
	})
	return r
}

// publish tags the one manifest of a layout, and returns the reference by which
// machines pull it.
func (r *registry) publish(t testing.TB, layout, tag string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%s: %d manifests, want 1: %v", layout, len(index.Manifests), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags[tag] = index.Manifests[0].Digest
	r.dirs = append(r.dirs, layout)
	return fmt.Sprintf("%s:%d/os:%s", r.lan.Addr(), registryPort, tag)
}

var registryPath = regexp.MustCompile(`^/v2/os/(manifests|blobs)/(?:sha256:([0-9a-f]{64})|([A-Za-z0-9._-]+))$`)

// ServeHTTP is the pull half of the OCI distribution specification.
func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path == "/v2/" {
		return
	}
	m := registryPath.FindStringSubmatch(q.URL.Path)
	if m == nil || q.Method != http.MethodGet && q.Method != http.MethodHead {
		http.NotFound(w, q)
		return
	}
	digest := "sha256:" + m[2]
	r.mu.Lock()
	if m[3] != "" {
		digest = r.tags[m[3]]
	}
	path := r.find(digest)
	r.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", digest)
	switch {
	case path == "":
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
	case m[1] == "manifests":
		serveManifest(w, q, path)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeFile(w, q, path)
	}
}

// find is called with the lock held.
func (r *registry) find(digest string) string {
	for _, dir := range r.dirs {
		path := filepath.Join(dir, "blobs", strings.Replace(digest, ":", "/", 1))
		if _, err := os.Stat(path); err == nil && digest != "" {
			return path
		}
	}
	return ""
}

func serveManifest(w http.ResponseWriter, q *http.Request, path string) {
	raw, err := os.ReadFile(path)
	var of struct {
		MediaType string `json:"mediaType"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &of)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", of.MediaType)
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(raw))
}
