package release

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// testSource makes parts of so many blocks of root.
func testSource(t *testing.T, arch string, blocks int) Source {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := goodConfig()
	c.Arch = arch
	return Source{Config: c, Container: img,
		Root:   put("root.erofs", bytes.Repeat([]byte("root "+arch+"\n"), blocks*BlockSize)[:blocks*BlockSize]),
		Verity: put("root.verity", make([]byte, 3*BlockSize)),
		UKI:    put("uki.efi", []byte("MZ "+arch)),
		SBOM:   put("sbom.json", []byte("{}"))}
}

// What was assembled is read back from the layout by the functions that a node uses, byte for byte.
func TestIndexRoundTrip(t *testing.T) {
	sources := []Source{testSource(t, "amd64", 100), testSource(t, "arm64", 50)}
	index, err := Index(sources...)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := layout.Write(t.TempDir(), index)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(string(dir), "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		d, err := Select(raw, s.Config.Arch)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseManifest(blob(t, dir, d))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := ParseConfig(blob(t, dir, m.Config)); err != nil || c != s.Config {
			t.Errorf("got %+v, %v", c, err)
		}
		for path, d := range map[string]v1.Descriptor{s.Root: m.Root, s.Verity: m.Verity, s.UKI: m.UKI, s.SBOM: m.SBOM} {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(blob(t, dir, d), want) {
				t.Errorf("%s: other bytes", path)
			}
		}
	}
	// The container images are there for engines, and found by their platform.
	images, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if p := images.Manifests[0].Platform; p.OS != "linux" || p.Architecture != "amd64" {
		t.Errorf("the first entry is for %s", p)
	}
}

func blob(t *testing.T, dir layout.Path, d v1.Descriptor) []byte {
	t.Helper()
	raw, err := dir.Bytes(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(raw)) != d.Size {
		t.Fatalf("%d bytes instead of %d", len(raw), d.Size)
	}
	return raw
}

// The same parts make the same index.
func TestIndexIsReproducible(t *testing.T) {
	s := testSource(t, "amd64", 10)
	var digests [2]v1.Hash
	for i := range digests {
		index, err := Index(s)
		if err != nil {
			t.Fatal(err)
		}
		if digests[i], err = index.Digest(); err != nil {
			t.Fatal(err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("%s, then %s", digests[0], digests[1])
	}
}

// What a node would refuse is not published.
func TestIndexRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Source)
		want string
	}{
		{"no container image", func(s *Source) { s.Container = nil }, "no container image"},
		{"bad version", func(s *Source) { s.Config.Version = "v 1" }, "its version"},
		{"no file", func(s *Source) { s.UKI += ".none" }, "read uki: open"},
		{"half a block", func(s *Source) { s.Root = s.UKI }, "not whole blocks"},
		{"hash tree of another root", func(s *Source) {
			s.Verity = s.Root
			s.Root = testSource(t, "amd64", 4000).Root
			s.Verity = testSource(t, "amd64", 2).Root
		}, "its hash tree has"},
		{"empty part", func(s *Source) { s.SBOM = os.DevNull }, "its sbom has a size of 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := testSource(t, "amd64", 10)
			tc.edit(&s)
			if _, err := Index(s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := Index(testSource(t, "amd64", 1), testSource(t, "amd64", 2)); !errors.Is(err, ErrInvalid) {
		t.Errorf("two of one architecture: %v", err)
	}
}

// A part that is built again while it is written into a layout is told.
func TestPartThatChanges(t *testing.T) {
	s := testSource(t, "amd64", 10)
	index, err := Index(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.UKI, []byte("MZ amd6?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Write(t.TempDir(), index); err == nil || !strings.Contains(err.Error(), "it changed while") {
		t.Errorf("got %v", err)
	}
}
