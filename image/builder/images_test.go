package builder

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kairos-io/kairos/agent/oci"
)

// carried makes an image for one architecture; a base that is given is shared.
func carried(t *testing.T, arch string, base v1.Layer) v1.Image {
	t.Helper()
	img, err := random.Image(3000, 2)
	if err == nil && base != nil {
		img, err = mutate.AppendLayers(img, base)
	}
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

// multiArch is an index of images for both architectures.
func multiArch(t *testing.T, base v1.Layer) v1.ImageIndex {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: carried(t, arch, base),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return index
}

// registryWith serves the images on loopback and returns its host.
func registryWith(t *testing.T, images map[string]remote.Taggable) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	for n, img := range images {
		tag, err := name.NewTag(host + "/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if index, ok := img.(v1.ImageIndex); ok {
			err = remote.WriteIndex(tag, index)
		} else {
			err = remote.Push(tag, img)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return host
}

func parseBaked(t *testing.T, refs ...string) (out []Baked) {
	t.Helper()
	for _, r := range refs {
		b, err := ParseBaked(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func TestParseBaked(t *testing.T) {
	const d = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for _, tc := range []struct{ in, name, from string }{
		{"nginx:1", "docker.io/library/nginx:1", "nginx:1"},
		{"r.example/app:1" + d, "r.example/app:1", "r.example/app:1" + d},
		{"r.example/app" + d, "r.example/app" + d, "r.example/app" + d},
		{"docker.io/rancher/k3s:v1=oci:/tmp/k3s", "docker.io/rancher/k3s:v1", "oci:/tmp/k3s"},
		{"k3s:v1=mirror.example/k3s:v1", "docker.io/library/k3s:v1", "mirror.example/k3s:v1"},
		{"oci:/tmp/k3s", "", "to be called"},
		{"x=oci:relative", "", "absolute"},
		{"No=nginx:1", "", "No"},
		{"oci:/a=nginx:1", "", "to be called"},
	} {
		b, err := ParseBaked(tc.in)
		if tc.name == "" {
			if err == nil || !strings.Contains(err.Error(), tc.from) {
				t.Errorf("%s: got %v, want a word of %q", tc.in, err, tc.from)
			}
			continue
		}
		if err != nil || b.Name != tc.name || b.Ref.String() != tc.from {
			t.Errorf("%s: %q from %q, %v", tc.in, b.Name, b.Ref, err)
		}
	}
}

// What is baked is what a node finds and takes: by its tag, by the digest of the
// index that people pin, for its own platform, each blob once.
func TestBakedImages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: files of the OS are root's")
	}
	shared, err := random.Layer(5000, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	index := multiArch(t, shared)
	host := registryWith(t, map[string]remote.Taggable{"rancher/k3s:v1": index, "app:1": carried(t, "amd64", shared)})
	pinned, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	// The name on machines may be another one than where it comes from.
	dir, _ := buildOS(t, testSource, parseBaked(t, "docker.io/rancher/k3s:v1="+host+"/rancher/k3s:v1", host+"/app:1")...)
	out := filepath.Join(t.TempDir(), "root")
	if err := Unpack(UnpackOptions{Layout: dir, Out: out, Arch: "amd64"}); err != nil {
		t.Fatal(err)
	}
	baked := filepath.Join(out, bakedDir)
	list, err := oci.ReadLayout(t.Context(), baked, "amd64")
	if err != nil || len(list) != 2 || list[0].Name != host+"/app:1" && list[1].Name != host+"/app:1" {
		t.Fatalf("a node sees %+v, %v", list, err)
	}
	for _, ref := range []string{"docker.io/rancher/k3s:v1", "rancher/k3s:v9@" + pinned.String()} {
		r, err := oci.ParseRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		img, err := oci.Resolve(t.Context(), r, oci.Options{Arch: "amd64", Baked: baked})
		if err != nil || img.Digest != pinned.String() || img.Source != baked {
			t.Errorf("%s: %s from %s, %v", ref, img.Digest, img.Source, err)
		}
	}
	blobs, err := os.ReadDir(filepath.Join(baked, "blobs", "sha256"))
	if err != nil || len(blobs) != 1+2+2+(3+3-1) { // index, manifests, configurations, layers of which one is shared
		t.Errorf("%d blobs, %v", len(blobs), err)
	}
	// Any tool that reads layouts finds the names.
	l, err := layout.ImageIndexFromPath(baked)
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.IndexManifest()
	if err != nil || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] == "" {
		t.Errorf("the layout's index: %+v, %v", m, err)
	}
	info, err := os.Stat(filepath.Join(baked, "index.json"))
	if err != nil || info.Mode().Perm() != 0o644 || !info.ModTime().Equal(baseEpoch) {
		t.Errorf("index.json: %v, %v", info, err)
	}
}

func TestBakedImagesAreReproducible(t *testing.T) {
	host := registryWith(t, map[string]remote.Taggable{"a:1": multiArch(t, nil), "b:1": carried(t, "amd64", nil)})
	_, one := buildOS(t, testSource, parseBaked(t, host+"/a:1", host+"/b:1")...)
	_, two := buildOS(t, testSource, parseBaked(t, host+"/b:1", host+"/a:1")...)
	if one != two {
		t.Errorf("two builds, images in another order: %s and %s", one, two)
	}
	if _, none := buildOS(t, testSource); none == one {
		t.Error("images make no difference")
	}
}

func TestBakedImagesThatCannotBe(t *testing.T) {
	host := registryWith(t, map[string]remote.Taggable{"arm:1": carried(t, "arm64", nil), "a:1": carried(t, "amd64", nil)})
	tmp := t.TempDir()
	base := filepath.Join(tmp, "base.tar")
	if err := os.WriteFile(base, makeTar(t, entryOf("./var/lib/dpkg/status", '0', testStatus)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		refs  []string
		words string
	}{
		{"not there", []string{host + "/none:1"}, "none:1"},
		{"another architecture", []string{host + "/arm:1"}, "linux/arm64"},
		{"one name twice", []string{host + "/a:1", host + "/a:1=" + host + "/a:1"}, "twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := filepath.Join(tmp, "os")
			_, err := OS(context.Background(), OSOptions{Out: out, Source: testSource, Compiler: quick, Log: io.Discard, Images: parseBaked(t, tc.refs...),
				Base: BaseOptions{Arch: "amd64", CacheDir: filepath.Join(tmp, "cache"), Tar: base, Log: io.Discard}})
			if err == nil || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("got %v, want a word of %q", err, tc.words)
			}
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("an image was written: %v", err)
			}
		})
	}
}

// A second build asks the registry for nothing that the first one got; a cache
// that rotted is noticed.
func TestBakedImagesFromTheCache(t *testing.T) {
	img := carried(t, "amd64", nil)
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	host := strings.TrimPrefix(s.URL, "http://")
	tag, err := name.NewTag(host + "/a:1")
	if err == nil {
		err = remote.Push(tag, img)
	}
	digest, derr := img.Digest()
	if err := errors.Join(err, derr); err != nil {
		t.Fatal(err)
	}
	o := BaseOptions{Arch: "amd64", CacheDir: t.TempDir(), Log: io.Discard}
	list := parseBaked(t, host+"/a:1@"+digest.String())
	for range 2 {
		got, err := fetch(t.Context(), list, o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := imagesLayer(got, o.CacheDir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(l.path); err != nil {
			t.Fatal(err)
		}
		s.Close() // after the first time
	}
	got, err := fetch(t.Context(), list, o)
	if err != nil {
		t.Fatal(err)
	}
	layer := blobCache(filepath.Join(o.CacheDir, "images")).path(got[0].Content[1].Digest)
	raw, err := os.ReadFile(layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(layer, slices.Concat(raw[:len(raw)-1], []byte{raw[len(raw)-1] ^ 1}), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := imagesLayer(got, o.CacheDir); err == nil || !strings.Contains(err.Error(), layer) {
		t.Errorf("got %v, want the damaged file's name", err)
	}
	left, err := filepath.Glob(filepath.Join(o.CacheDir, "images-*.tar"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// All that a cluster without a registry needs, and what was named for it counts.
func TestWithAddons(t *testing.T) {
	own, err := ParseBaked(K3s + "=oci:/mine")
	if err != nil {
		t.Fatal(err)
	}
	list, err := WithAddons([]Baked{own})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2+len(k3sAddons) || list[0] != own || list[1].Name != Pause {
		t.Errorf("got %v", list)
	}
}

// A k3s that is baked in is named by its digest, by which machines ask for nothing else.
func TestImageSaysWhichK3s(t *testing.T) {
	for _, tc := range []struct {
		name, baked, want string
	}{
		{"none is baked in", "docker.io/library/x:v1", K3s},
		{"the one that machines run", K3s, K3s + "@sha256:aa"},
	} {
		c := Contents{Images: []fetched{{Baked{Name: tc.baked}, oci.Image{Blob: oci.Blob{Digest: "sha256:aa"}}}}}
		if got := c.k3s(); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	if got := (describe{k3s: K3s}).labels()[K3sLabel]; got != K3s {
		t.Errorf("the label is %q", got)
	}
}
