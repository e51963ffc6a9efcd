package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// memory is a Store in memory that checks what it is given like containerd does.
type memory struct {
	blobs  map[string][]byte
	order  []string
	writes int
}

func newMemory() *memory { return &memory{blobs: map[string][]byte{}} }

func (m *memory) Has(_ context.Context, b Blob) (bool, error) {
	_, ok := m.blobs[b.Digest]
	return ok, nil
}

func (m *memory) Write(_ context.Context, b Blob, r io.Reader) error {
	m.writes++
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if got := hashOf(raw).String(); got != b.Digest || int64(len(raw)) != b.Size {
		return fmt.Errorf("store: wanted %s of %d bytes, got %s of %d", b.Digest, b.Size, got, len(raw))
	}
	m.blobs[b.Digest], m.order = raw, append(m.order, b.Digest)
	return nil
}

func testImage(t *testing.T, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(4096, 3)
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf.OS, cf.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, x interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := x.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func multiPlatform(t *testing.T, archs ...string) v1.ImageIndex {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, a := range archs {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: testImage(t, a),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}}})
	}
	return index
}

// serve starts a registry and returns its host; wrap may disturb it.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	h := registry.New(registry.Logger(discard))
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
}

func mustRef(t *testing.T, s string) Ref {
	t.Helper()
	r, err := ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPullFromRegistry(t *testing.T) {
	host := serve(t, nil)
	img := testImage(t, "amd64")
	push(t, host+"/rancher/k3s:v1", img)
	digest := digestOf(t, img)
	for _, tc := range []struct{ name, ref string }{
		{"by tag", host + "/rancher/k3s:v1"},
		{"by digest", host + "/rancher/k3s@" + digest},
		{"by tag and digest", host + "/rancher/k3s:v1@" + digest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := newMemory()
			var last, total int64
			got, err := Pull(t.Context(), mustRef(t, tc.ref), store, Options{Arch: "amd64",
				Progress: func(d, n int64) { last, total = d, n }})
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != digest || len(got.Layers) != 3 {
				t.Errorf("got %s with %d layers, want %s with 3", got.Digest, len(got.Layers), digest)
			}
			if n := len(store.order); n != 5 || store.order[n-1] != digest {
				t.Errorf("stored %v, want 5 blobs with the manifest last", store.order)
			}
			if last != total || total != got.Total {
				t.Errorf("progress ended at %d of %d, image has %d", last, total, got.Total)
			}
		})
	}
}

func TestPullAgainTransfersNothing(t *testing.T) {
	host := serve(t, nil)
	push(t, host+"/k3s:v1", testImage(t, "amd64"))
	store, ref := newMemory(), mustRef(t, host+"/k3s:v1")
	for range 2 {
		if _, err := Pull(t.Context(), ref, store, Options{Arch: "amd64"}); err != nil {
			t.Fatal(err)
		}
	}
	if store.writes != 5 {
		t.Errorf("%d writes for two pulls of 5 blobs", store.writes)
	}
}

func TestPullPicksThePlatform(t *testing.T) {
	host := serve(t, nil)
	r, err := name.ParseReference(host + "/k3s:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(r, multiPlatform(t, "s390x", "amd64", "arm64")); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		store := newMemory()
		img, err := Pull(t.Context(), mustRef(t, host+"/k3s:v1"), store, Options{Arch: arch})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(store.blobs[img.Manifest.Config], []byte(arch)) {
			t.Errorf("%s: the configuration is of another platform", arch)
		}
		if n := len(store.order); store.order[n-1] != img.Digest || store.order[n-2] != img.Manifest.Digest || img.Manifests[0] != img.Manifest.Digest {
			t.Errorf("%s: stored %v, want the manifest and then the index", arch, store.order)
		}
	}
	_, err = Pull(t.Context(), mustRef(t, host+"/k3s:v1"), newMemory(), Options{Arch: "riscv64"})
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("missing platform: %v", err)
	}
}

func TestPullRefusesTheWrongPlatformWithoutIndex(t *testing.T) {
	host := serve(t, nil)
	push(t, host+"/k3s:v1", testImage(t, "arm64"))
	if _, err := Pull(t.Context(), mustRef(t, host+"/k3s:v1"), newMemory(), Options{Arch: "amd64"}); !errors.Is(err, ErrPlatform) {
		t.Errorf("got %v, want ErrPlatform", err)
	}
}

// spoil makes blob answers after the first n go through f.
func spoil(n int64, f func([]byte) []byte) (func(http.Handler) http.Handler, *atomic.Int64) {
	var seen atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || seen.Add(1) > n {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			_, _ = w.Write(f(rec.Body.Bytes()))
		})
	}, &seen
}

func TestPullVerifiesEveryBlob(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	grow := func(b []byte) []byte { return append(b, 'x') }
	for _, tc := range []struct {
		name  string
		f     func([]byte) []byte
		count int64
		want  error
	}{
		{"changed byte", flip, 1 << 30, ErrDigest},
		{"too long", grow, 1 << 30, ErrDigest},
		{"always cut short", cut, 1 << 30, errAny},
		{"cut short once is retried", cut, 1, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wrap, _ := spoil(tc.count, tc.f)
			host := serve(t, wrap)
			push(t, host+"/k3s:v1", testImage(t, "amd64"))
			_, err := Pull(t.Context(), mustRef(t, host+"/k3s:v1"), newMemory(), Options{Arch: "amd64", Attempts: 2})
			if !errors.Is(err, tc.want) && (tc.want != errAny || err == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// errAny stands for any error in a table.
var errAny = errors.New("any error")

func TestPullByDigestRefusesOtherContent(t *testing.T) {
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/sha256:") {
				r.URL.Path = r.URL.Path[:strings.LastIndex(r.URL.Path, "/")] + "/evil"
			}
			next.ServeHTTP(w, r)
		})
	})
	push(t, host+"/k3s:evil", testImage(t, "amd64"))
	ref := mustRef(t, host+"/k3s@sha256:"+strings.Repeat("ab", 32))
	store := newMemory()
	if _, err := Pull(t.Context(), ref, store, Options{Arch: "amd64", Attempts: 1}); err == nil {
		t.Error("content with another digest was accepted")
	}
	if len(store.blobs) != 0 {
		t.Error("something was stored")
	}
}

func TestPullFallsBackFromMirrorToRegistry(t *testing.T) {
	img := testImage(t, "amd64")
	origin, mirror := serve(t, nil), serve(t, nil)
	push(t, origin+"/rancher/k3s:v1", img)
	opts := Options{Arch: "amd64", Mirrors: mirrorsOf(t, origin, "[host.\"http://"+mirror+"\"]\n"), Attempts: 1}
	got, err := Pull(t.Context(), mustRef(t, origin+"/rancher/k3s:v1"), newMemory(), opts)
	if err != nil || !strings.HasPrefix(got.Source, origin) {
		t.Fatalf("without the image in the mirror: source %q, err %v", got.Source, err)
	}
	push(t, mirror+"/rancher/k3s:v1", img)
	got, err = Pull(t.Context(), mustRef(t, origin+"/rancher/k3s:v1"), newMemory(), opts)
	if err != nil || !strings.HasPrefix(got.Source, mirror) {
		t.Fatalf("with the image in the mirror: source %q, err %v", got.Source, err)
	}
}

func TestPullFromLayout(t *testing.T) {
	dir := t.TempDir()
	img := testImage(t, "amd64")
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refNameAnnotation: "docker.io/rancher/k3s:v1"})); err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(testImage(t, "amd64"), layout.WithAnnotations(map[string]string{refNameAnnotation: "v2"})); err != nil {
		t.Fatal(err)
	}
	digest := digestOf(t, img)
	for _, tc := range []struct {
		name, ref string
		want      error
	}{
		{"tag at the end of a name", "oci:" + dir + ":v1", nil},
		{"digest", "oci:" + dir + "@" + digest, nil},
		{"no such tag", "oci:" + dir + ":v9", ErrNotFound},
		{"no such digest", "oci:" + dir + "@sha256:" + strings.Repeat("0", 64), ErrNotFound},
		{"no such directory", "oci:" + dir + "/nope:v1", ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Pull(t.Context(), mustRef(t, tc.ref), newMemory(), Options{Arch: "amd64"})
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err == nil && got.Digest != digest {
				t.Errorf("got %s, want %s", got.Digest, digest)
			}
		})
	}
}

func TestPullFromMultiPlatformLayout(t *testing.T) {
	dir := t.TempDir()
	if _, err := layout.Write(dir, multiPlatform(t, "amd64", "arm64")); err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(t.Context(), mustRef(t, "oci:"+dir), newMemory(), Options{Arch: "arm64"}); err != nil {
		t.Error(err)
	}
	if _, err := Pull(t.Context(), mustRef(t, "oci:"+dir), newMemory(), Options{Arch: "s390x"}); !errors.Is(err, ErrPlatform) {
		t.Errorf("got %v, want ErrPlatform", err)
	}
}

func TestPullFromDamagedLayout(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(string) error
		want   error
	}{
		{"truncated", func(p string) error { return os.Truncate(p, 10) }, io.ErrUnexpectedEOF},
		{"missing", os.Remove, ErrNotFound},
		{"changed", func(p string) error {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b[0] ^= 1
			return os.WriteFile(p, b, 0o600)
		}, ErrDigest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, img := t.TempDir(), testImage(t, "amd64")
			p, err := layout.Write(dir, empty.Index)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.AppendImage(img); err != nil {
				t.Fatal(err)
			}
			layers, err := img.Layers()
			if err != nil {
				t.Fatal(err)
			}
			hex := strings.TrimPrefix(digestOf(t, layers[1]), "sha256:")
			if err := tc.damage(filepath.Join(dir, "blobs", "sha256", hex)); err != nil {
				t.Fatal(err)
			}
			_, err = Pull(t.Context(), mustRef(t, "oci:"+dir), newMemory(), Options{Arch: "amd64", Attempts: 1})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestPullStopsWhenCancelled(t *testing.T) {
	host := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pull(ctx, mustRef(t, host+"/k3s:v1"), newMemory(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestResolve(t *testing.T) {
	host, img := serve(t, nil), testImage(t, "amd64")
	push(t, host+"/k3s:v1", img)
	got, err := Resolve(t.Context(), mustRef(t, host+"/k3s:v1"), Options{Arch: "amd64"})
	if err != nil || got.Digest != digestOf(t, img) {
		t.Errorf("got %s, %v", got.Digest, err)
	}
	if _, err := Resolve(t.Context(), mustRef(t, host+"/k3s:v2"), Options{Arch: "amd64"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}
