package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// bake writes a layout in which entries are called by their whole name.
func bake(t *testing.T, images map[string]v1.ImageIndex) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for n, index := range images {
		if err := p.AppendIndex(index, layout.WithAnnotations(map[string]string{imageNameAnnotation: n})); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// innerDigest is the digest of the one manifest in an index.
func innerDigest(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Manifests[0].Digest.String()
}

func TestPullFromTheBakedLayout(t *testing.T) {
	index := multiPlatform(t, "amd64")
	dir := bake(t, map[string]v1.ImageIndex{"docker.io/rancher/k3s:v1": index, "registry.example/pause:3": multiPlatform(t, "amd64")})
	host := serve(t, nil)
	push(t, host+"/other/k3s:v1", testImage(t, "amd64"))
	absent := "sha256:" + strings.Repeat("0", 64)
	for _, tc := range []struct{ name, ref, digest, source string }{
		{"by name", "rancher/k3s:v1", digestOf(t, index), dir},
		{"by name, written out", "docker.io/rancher/k3s:v1", digestOf(t, index), dir},
		{"by digest", "rancher/k3s@" + digestOf(t, index), digestOf(t, index), dir},
		{"by digest: the repository does not count", "elsewhere.example/x:v9@" + digestOf(t, index), digestOf(t, index), dir},
		{"by the digest inside of the index", "rancher/k3s@" + innerDigest(t, index), innerDigest(t, index), dir},
		{"another tag", "127.0.0.1:1/rancher/k3s:v2", "", ""},
		{"another digest, the same name", "127.0.0.1:1/rancher/k3s:v1@" + absent, "", ""},
		{"not baked: the registry", host + "/other/k3s:v1", "any", host + "/other/k3s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := newMemory()
			img, err := Pull(t.Context(), mustRef(t, tc.ref), store, Options{Arch: "amd64", Baked: dir, Attempts: 1})
			if tc.digest == "" {
				if err == nil || strings.Contains(err.Error(), dir) {
					t.Errorf("got %v, want an error that does not speak of the layout", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if img.Source != tc.source || (tc.digest != "any" && img.Digest != tc.digest) {
				t.Errorf("got %s from %s, want %s from %s", img.Digest, img.Source, tc.digest, tc.source)
			}
			if _, ok := store.blobs[img.Digest]; !ok {
				t.Error("what the reference names was not stored")
			}
		})
	}
}

// A damaged medium is told, and the registry is asked.
func TestPullPastADamagedBakedLayout(t *testing.T) {
	host := serve(t, nil)
	push(t, host+"/k3s:v1", testImage(t, "amd64"))
	index := multiPlatform(t, "amd64")
	dir := bake(t, map[string]v1.ImageIndex{mustRef(t, host+"/k3s:v1").Name(): index})
	rotten := filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(innerDigest(t, index), "sha256:"))
	raw, err := os.ReadFile(rotten)
	if err != nil {
		t.Fatal(err)
	}
	raw[0] ^= 1
	if err := errors.Join(os.Chmod(rotten, 0o600), os.WriteFile(rotten, raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	img, err := Pull(t.Context(), mustRef(t, host+"/k3s:v1"), newMemory(), Options{Arch: "amd64", Baked: dir})
	if err != nil || img.Source == dir {
		t.Errorf("got %s, %v", img.Source, err)
	}
	_, err = Resolve(t.Context(), mustRef(t, host+"/k3s@"+digestOf(t, index)), Options{Arch: "amd64", Baked: dir})
	if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestReadLayout(t *testing.T) {
	index := multiPlatform(t, "amd64", "arm64")
	dir := bake(t, map[string]v1.ImageIndex{"registry.example/a:1": index, "": multiPlatform(t, "amd64")})
	list, err := ReadLayout(t.Context(), dir, "arm64")
	if err != nil || len(list) != 1 || list[0].Name != "registry.example/a:1" || list[0].Digest != digestOf(t, index) || len(list[0].Content) != 4 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for _, b := range append(list[0].Content, list[0].Blob, list[0].Manifest) {
		f, err := OpenBlob(dir, b.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != b.Size {
			t.Errorf("%s: %v, want %d bytes", b.Digest, err, b.Size)
		}
		_ = f.Close()
	}
	if list, err := ReadLayout(t.Context(), filepath.Join(dir, "none"), "amd64"); err != nil || list != nil {
		t.Errorf("no layout: %v, %v", list, err)
	}
	if _, err := OpenBlob(dir, "sha256:../../index.json"); err == nil {
		t.Error("opened a file that is no blob")
	}
}

func TestRefNames(t *testing.T) {
	const d = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for _, tc := range []struct{ ref, name string }{
		{"nginx", "docker.io/library/nginx:latest"},
		{"nginx:1.25", "docker.io/library/nginx:1.25"},
		{"nginx:1.25" + d, "docker.io/library/nginx:1.25"},
		{"nginx" + d, "docker.io/library/nginx" + d},
		{"docker.io/rancher/k3s:v1", "docker.io/rancher/k3s:v1"},
		{"index.docker.io/rancher/k3s:v1", "docker.io/rancher/k3s:v1"},
		{"r.example:5000/a/b:v1" + d, "r.example:5000/a/b:v1"},
		{"r.example:5000/a/b" + d, "r.example:5000/a/b" + d},
		{"oci:/dir:v1", ""},
	} {
		r := mustRef(t, tc.ref)
		if got := r.Name(); got != tc.name {
			t.Errorf("%s: %q, want %q", tc.ref, got, tc.name)
		}
	}
}

// crowd is a Place whose machines answer in turn.
type crowd struct {
	content map[string][]byte
	root    Blob
	bad     int // this many answers are wrong
	opened  []int64
	blamed  int
	patient bool // somebody else is always left to ask
}

func newCrowd(t *testing.T, index v1.ImageIndex) *crowd {
	t.Helper()
	dir := bake(t, map[string]v1.ImageIndex{"registry.example/k3s:v1": index})
	list, err := ReadLayout(t.Context(), dir, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{content: map[string][]byte{}, root: list[0].Blob, patient: true}
	c.root.MediaType = "" // nobody is asked what kind of document it is
	for _, b := range append(list[0].Content, list[0].Blob, list[0].Manifest) {
		raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(b.Digest, "sha256:")))
		if err != nil {
			t.Fatal(err)
		}
		c.content[b.Digest] = raw
	}
	return c
}

func (c *crowd) Name() string { return "members" }

func (c *crowd) Root(_ context.Context, ref Ref) (Blob, error) {
	if ref.Digest() == c.root.Digest || ref.Name() == "registry.example/k3s:v1" {
		return c.root, nil
	}
	return Blob{}, fmt.Errorf("%w: nobody has it", ErrNotFound)
}

func (c *crowd) Open(_ context.Context, b Blob, offset int64) (io.ReadCloser, error) {
	c.opened = append(c.opened, offset)
	raw := bytes.Clone(c.content[b.Digest])
	if c.bad > 0 {
		c.bad--
		raw[0] ^= 1
	}
	return io.NopCloser(bytes.NewReader(raw[offset:])), nil
}

func (c *crowd) Blame(Blob) bool {
	c.blamed++
	return c.patient
}

func TestPullFromMembers(t *testing.T) {
	index := multiPlatform(t, "amd64")
	const named = "registry.example/k3s:v1"
	for _, tc := range []struct {
		name, ref string
		bad       int
		patient   bool
		blamed    int
		fails     bool
	}{
		{"by name", named, 0, true, 0, false},
		{"by digest", "127.0.0.1:1/x@" + digestOf(t, index), 0, true, 0, false},
		{"by digest, as a layout that is not here", "oci:/nowhere@" + digestOf(t, index), 0, true, 0, false},
		{"by the digest alone", digestOf(t, index), 0, true, 0, false},
		{"three wrong answers: others are asked", named, 3, true, 3, false},
		{"wrong, and nobody else to ask", "127.0.0.1:1/x@" + digestOf(t, index), 1, false, 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCrowd(t, index)
			c.bad, c.patient = tc.bad, tc.patient
			store := newMemory()
			ref, err := DigestRef(tc.ref)
			if err != nil {
				ref = mustRef(t, tc.ref)
			}
			img, err := Pull(t.Context(), ref, store, Options{Arch: "amd64", Members: c, Attempts: 4, Stall: 1e9})
			if (err != nil) != tc.fails || c.blamed != tc.blamed {
				t.Fatalf("got %v with %d blamed", err, c.blamed)
			}
			if err == nil && (img.Digest != digestOf(t, index) || img.Source != "members" || len(store.order) != 6) {
				t.Errorf("got %s from %s with %v", img.Digest, img.Source, store.order)
			}
			if err != nil && !errors.Is(err, ErrDigest) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// That no member has it is not told: it was luck to be hoped for.
func TestPullIsQuietAboutMembers(t *testing.T) {
	c := newCrowd(t, multiPlatform(t, "amd64"))
	_, err := Pull(t.Context(), mustRef(t, "127.0.0.1:1/rancher/k3s:v1"), newMemory(), Options{Arch: "amd64", Members: c, Attempts: 1})
	if err == nil || strings.Contains(err.Error(), "members") {
		t.Errorf("got %v", err)
	}
}

// stump is a store that kept the first half of every layer.
type stump struct{ *memory }

func (s stump) Write(ctx context.Context, b Blob, r io.Reader) error {
	const half = 1000
	if b.Size < 2*half || b.Config != "" {
		return s.memory.Write(ctx, b, r)
	}
	if _, err := r.(io.Seeker).Seek(half, io.SeekStart); err != nil {
		return err
	}
	rest, err := io.ReadAll(r)
	if err == nil && int64(len(rest)) != b.Size-half {
		err = fmt.Errorf("%d bytes for the rest of %d", len(rest), b.Size)
	}
	s.blobs[b.Digest] = rest
	return err
}

func TestPullGoesOnInTheMiddle(t *testing.T) {
	c := newCrowd(t, multiPlatform(t, "amd64"))
	host := serve(t, nil)
	push(t, host+"/k3s:v1", testImage(t, "amd64"))
	for _, tc := range []struct {
		name, ref string
		opts      Options
		middle    int // transfers that began at the half
	}{
		{"from a member", "registry.example/k3s:v1", Options{Members: c}, 3},
		{"from a registry, which is read up to there", host + "/k3s:v1", Options{}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.opts.Arch, tc.opts.Attempts = "amd64", 1
			if _, err := Pull(t.Context(), mustRef(t, tc.ref), stump{newMemory()}, tc.opts); err != nil {
				t.Fatal(err)
			}
			middle := 0
			for _, offset := range c.opened {
				if offset == 1000 {
					middle++
				}
			}
			if c.opened = nil; middle != tc.middle {
				t.Errorf("%d transfers began in the middle, want %d", middle, tc.middle)
			}
		})
	}
}
