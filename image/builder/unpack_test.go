package builder

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// own makes entries belong to whoever runs the test, so that it needs no root.
func own(files []file) []file {
	for i := range files {
		files[i].Uid, files[i].Gid = os.Getuid(), os.Getgid()
	}
	return files
}

// layoutOf writes an image with one layer per list of files.
func layoutOf(t *testing.T, layers ...[]file) string {
	t.Helper()
	var tars [][]byte
	for _, files := range layers {
		tars = append(tars, makeTar(t, own(files)...))
	}
	return layoutOfTars(t, tars...)
}

// layoutOfTars writes an image of layers as they are.
func layoutOfTars(t *testing.T, layers ...[]byte) string {
	t.Helper()
	var parts []part
	for _, data := range layers {
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part{layer, "test"})
	}
	img, err := assemble(describe{title: "test", arch: "amd64", created: baseEpoch}, parts...)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := writeLayout(dir, "test", []v1.Image{img}...); err != nil {
		t.Fatal(err)
	}
	return dir
}

func linkTo(name, target string, kind byte) file {
	return file{tar.Header{Name: name, Linkname: target, Typeflag: kind}, ""}
}

func TestUnpack(t *testing.T) {
	lower := []file{
		{tar.Header{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: baseEpoch}, ""},
		{tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: baseEpoch}, ""},
		{tar.Header{Name: "usr/bin/su", Mode: 0o4755, ModTime: baseEpoch}, "su"},
		linkTo("usr/bin/su2", "usr/bin/su", tar.TypeLink),
		linkTo("bin", "usr/bin", tar.TypeSymlink),
		linkTo("etc", "/nowhere/outside", tar.TypeSymlink),
		entryOf("gone", tar.TypeReg, "x"),
		entryOf("changed", tar.TypeReg, "old"),
		entryOf("gone-dir/a", tar.TypeReg, "x"),
	}
	upper := []file{
		entryOf(".wh.gone", tar.TypeReg, ""),
		entryOf(".wh.gone-dir", tar.TypeReg, ""),
		entryOf("changed", tar.TypeReg, "new"),
		entryOf("bin/through", tar.TypeReg, "a link inside may be followed"),
	}
	out := filepath.Join(t.TempDir(), "root")
	if err := Unpack(UnpackOptions{Layout: layoutOf(t, lower, upper), Out: out}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gone", "gone-dir"} {
		if _, err := os.Lstat(filepath.Join(out, name)); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(out, "changed")); err != nil || string(data) != "new" {
		t.Errorf("changed: %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(out, "usr/bin/through")); err != nil {
		t.Error(err)
	}
	if target, err := os.Readlink(filepath.Join(out, "etc")); err != nil || target != "/nowhere/outside" {
		t.Errorf("a symlink became %q, %v", target, err)
	}
	su, err := os.Stat(filepath.Join(out, "usr/bin/su"))
	if err != nil || su.Mode() != 0o755|os.ModeSetuid {
		t.Fatalf("su: %v, %v", su, err)
	}
	if su2, err := os.Stat(filepath.Join(out, "usr/bin/su2")); err != nil || !os.SameFile(su, su2) {
		t.Errorf("hard link: %v", err)
	}
	if usr, err := os.Stat(filepath.Join(out, "usr/bin")); err != nil || !usr.ModTime().Equal(baseEpoch) {
		t.Errorf("time of a directory: %v, %v", usr.ModTime(), err)
	}
}

func TestUnpackChecksDigests(t *testing.T) {
	dir := layoutOf(t, []file{entryOf("a", tar.TypeReg, strings.Repeat("x", 5000))})
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(blobs) != 3 {
		t.Fatalf("blobs: %v", blobs)
	}
	for _, blob := range blobs {
		good, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(good, []byte("rootfs")) {
			continue // the configuration: unpacking does not look at it
		}
		if err := os.WriteFile(blob, append(bytes.Clone(good), ' '), 0o644); err != nil {
			t.Fatal(err)
		}
		err = Unpack(UnpackOptions{Layout: dir, Out: filepath.Join(t.TempDir(), "root")})
		if !errors.Is(err, ErrUnsafe) {
			t.Errorf("a changed blob: %v", err)
		}
		if err := os.WriteFile(blob, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnpackLeavesFullDirectoriesAlone(t *testing.T) {
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Unpack(UnpackOptions{Layout: layoutOf(t, []file{entryOf("a", tar.TypeReg, "")}), Out: out})
	if err == nil || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("no helpful error: %v", err)
	}
	if _, err := os.Stat(filepath.Join(out, "precious")); err != nil {
		t.Error(err)
	}
}

// Whatever the tar says, everything that appears is below the root.
func FuzzExtract(f *testing.F) {
	f.Add(makeTar(f, linkTo("a", "..", tar.TypeSymlink), entryOf("a/b", tar.TypeReg, "x")))
	f.Add(makeTar(f, entryOf("x/../../y", tar.TypeDir, ""), linkTo("h", "a", tar.TypeLink)))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "root")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		x := &extractor{root: root, limits: Limits{Bytes: 1 << 16, Entries: 64}}
		tr := tar.NewReader(bytes.NewReader(data))
		for h, err := tr.Next(); err == nil; h, err = tr.Next() {
			if x.entry(h, tr) != nil {
				break
			}
		}
		left, err := os.ReadDir(parent)
		if err != nil || len(left) != 1 {
			t.Errorf("outside of the root: %v, %v", left, err)
		}
	})
}
