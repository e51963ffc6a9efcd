package builder

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// badImage would touch, or fill up, the machine that unpacks it.
type badImage struct {
	name   string
	layers [][]file
	raw    []byte                            // the tar of the only layer, instead of layers
	after  func(t *testing.T, layout string) // what becomes of the layout
	unsafe bool                              // it is told as such, and not only as an error
}

func one(files ...file) [][]file { return [][]file{files} }

func regular(name string) file { return entryOf(name, tar.TypeReg, "x") }

func symlink(name, to string) file { return linkTo(name, to, tar.TypeSymlink) }

func hard(name, to string) file { return linkTo(name, to, tar.TypeLink) }

// special is an entry with more in its header.
func special(h tar.Header) file { return file{h, ""} }

// attribute is a file with an extended attribute.
func attribute(name string) file {
	return special(tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr." + name: "y"}})
}

// headers is a tar of n PAX headers that belong to no file.
func headers(n int) []byte {
	raw := makeTar(nil2{}, special(tar.Header{Name: "x", PAXRecords: map[string]string{"comment": strings.Repeat("x", 3000)}}))
	size := 512 + (3000/512+1)*512
	return bytes.Repeat(raw[:size], n)
}

// owned is a tar with one file of an owner that tar itself would not write.
func owned(field string) []byte {
	raw := makeTar(nil2{}, special(tar.Header{Name: "x"}))
	copy(raw[108:116], field)
	sum := 0
	copy(raw[148:156], "        ")
	for _, b := range raw[:512] {
		sum += int(b)
	}
	copy(raw[148:156], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	return raw
}

// nil2 is a testing.TB for tables that are made before the tests run.
type nil2 struct{ testing.TB }

func (nil2) Helper() {}

func (nil2) Fatal(args ...any) { panic(args) }

// blobs changes the blobs of a layout whose content holds a text.
func blobs(holding string, change func(raw []byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, layout string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(raw, []byte(holding)) {
				if err := os.WriteFile(f, change(raw), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// entries changes the list in index.json.
func entries(change func(*v1.IndexManifest)) func(*testing.T, string) {
	return func(t *testing.T, layout string) {
		t.Helper()
		path := filepath.Join(layout, "index.json")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var list v1.IndexManifest
		if err := json.Unmarshal(raw, &list); err != nil {
			t.Fatal(err)
		}
		change(&list)
		if raw, err = json.Marshal(list); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	manifestText = `"layers"`
	gzipMagic    = "\x1f\x8b"
)

var badImages = []badImage{
	// Names that lead outside.
	{name: "path upwards", layers: one(regular("../escaped")), unsafe: true},
	{name: "path upwards in the middle", layers: one(regular("a/../../escaped")), unsafe: true},
	{name: "path upwards at the end", layers: one(entryOf("a/..", tar.TypeDir, "")), unsafe: true},
	{name: "path upwards that comes back", layers: one(regular("a/../b")), unsafe: true},
	{name: "absolute path", layers: one(regular("/tmp/escaped")), unsafe: true},
	{name: "absolute path with two slashes", layers: one(regular("//tmp/escaped")), unsafe: true},
	{name: "path longer than the kernel takes", layers: one(regular(strings.Repeat("a/", 3000) + "b"))},
	{name: "name longer than the kernel takes", layers: one(regular(strings.Repeat("a", 300)))},
	{name: "below a file", layers: one(regular("a"), regular("a/b")), unsafe: true},

	// Symlinks.
	{name: "through a relative symlink", layers: one(symlink("out", ".."), regular("out/escaped"))},
	{name: "through an absolute symlink", layers: one(symlink("out", "/tmp"), regular("out/escaped"))},
	{name: "through a symlink of a lower layer", layers: [][]file{{symlink("out", "..")}, {regular("out/escaped")}}},
	{name: "through two symlinks", layers: one(symlink("a", ".."), symlink("b", "a"), regular("b/escaped"))},
	{name: "through a symlink in circles", layers: one(symlink("a", "b"), symlink("b", "a"), regular("a/x"))},
	{name: "directory through a symlink", layers: one(symlink("out", ".."), entryOf("out/escaped/", tar.TypeDir, ""))},
	{name: "symlink through a symlink", layers: one(symlink("out", ".."), symlink("out/escaped", "beside"))},
	{name: "directory in place of a symlink's target", layers: one(symlink("out", "../beside"), regular("out/x"))},
	{name: "symlink in the place of a directory, and on", layers: [][]file{{entryOf("d/", tar.TypeDir, "")}, {symlink("d", ".."), regular("d/escaped")}}},

	// Hard links.
	{name: "hard link to the outside", layers: one(hard("h", "../beside")), unsafe: true},
	{name: "hard link to an absolute path", layers: one(hard("h", "/etc/passwd")), unsafe: true},
	{name: "hard link through a symlink", layers: one(symlink("out", ".."), hard("h", "out/beside"))},
	{name: "hard link made through a symlink", layers: one(regular("a"), symlink("out", ".."), hard("out/escaped", "a"))},
	{name: "hard link to nothing", layers: one(hard("h", "none"))},
	{name: "hard link to a directory", layers: one(entryOf("d/", tar.TypeDir, ""), hard("h", "d"))},
	{name: "hard link to itself", layers: one(hard("h", "h"))},

	// What is no file.
	{name: "memory of the kernel", layers: one(special(tar.Header{Name: "dev/mem", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1})), unsafe: true},
	{name: "disk", layers: one(special(tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8})), unsafe: true},
	{name: "whiteout of another kind", layers: one(special(tar.Header{Name: "gone", Typeflag: tar.TypeChar})), unsafe: true},
	{name: "pipe", layers: one(entryOf("pipe", tar.TypeFifo, "")), unsafe: true},
	{name: "entry of no known type", layers: one(special(tar.Header{Name: "x", Typeflag: 'Z'})), unsafe: true},
	{name: "contiguous file", layers: one(special(tar.Header{Name: "x", Typeflag: tar.TypeCont})), unsafe: true},

	// Attributes and owners.
	{name: "attribute of overlay file systems", layers: one(attribute("trusted.overlay.opaque")), unsafe: true},
	{name: "attribute of integrity measurement", layers: one(attribute("security.ima")), unsafe: true},
	{name: "label of SELinux", layers: one(attribute("security.selinux")), unsafe: true},
	{name: "access list", layers: one(attribute("system.posix_acl_access")), unsafe: true},
	{name: "attribute of no kind", layers: one(attribute("x")), unsafe: true},
	{name: "capabilities that are none", layers: one(attribute("security.capability"))},
	{name: "owner of less than nothing", raw: owned("\xff\xff\xff\xff\xff\xff\xff\xff"), unsafe: true},
	{name: "owner larger than all", raw: owned("\x80\x00\x00\x01\x00\x00\x00\x00"), unsafe: true},

	// Whiteouts.
	{name: "opaque whiteout", layers: one(entryOf(".wh..wh..opq", tar.TypeReg, ""))},
	{name: "whiteout of nothing", layers: one(entryOf(".wh.", tar.TypeReg, ""))},
	{name: "whiteout of its directory", layers: one(entryOf("a/.wh..", tar.TypeReg, "")), unsafe: true},
	{name: "whiteout of the directory above", layers: one(entryOf("a/b/.wh...", tar.TypeReg, "")), unsafe: true},
	{name: "whiteout of what is beside the root", layers: one(entryOf(".wh...", tar.TypeReg, "")), unsafe: true},
	{name: "whiteout through a symlink", layers: one(symlink("out", ".."), entryOf("out/.wh.beside", tar.TypeReg, ""))},
	{name: "whiteout at an absolute path", layers: one(entryOf("/.wh.etc", tar.TypeReg, "")), unsafe: true},

	// Bombs. The limits of the test are 1000 bytes and 5 files.
	{name: "a large file", layers: one(entryOf("big", tar.TypeReg, strings.Repeat("x", 2000))), unsafe: true},
	{name: "many files", layers: one(regular("1"), regular("2"), regular("3"), regular("4"), regular("5"), regular("6")), unsafe: true},
	{name: "many files in many layers", layers: [][]file{{regular("1"), regular("2"), regular("3")}, {regular("4"), regular("5"), regular("6")}}, unsafe: true},
	{name: "the same file many times", layers: one(regular("1"), regular("1"), regular("1"), regular("1"), regular("1"), regular("1")), unsafe: true},
	{name: "large in many layers", layers: [][]file{{entryOf("1", tar.TypeReg, strings.Repeat("x", 600))}, {entryOf("1", tar.TypeReg, strings.Repeat("x", 600))}}, unsafe: true},
	{name: "directories that nobody describes", layers: one(entryOf("a/b/c/d/e/f/g", tar.TypeReg, "")), unsafe: true},
	{name: "many whiteouts", layers: one(entryOf(".wh.1", tar.TypeReg, ""), entryOf(".wh.2", tar.TypeReg, ""), entryOf(".wh.3", tar.TypeReg, ""), entryOf(".wh.4", tar.TypeReg, ""), entryOf(".wh.5", tar.TypeReg, ""), entryOf(".wh.6", tar.TypeReg, "")), unsafe: true},
	{name: "headers without end", raw: headers(10), unsafe: true},

	// Layers and manifests that are none.
	{name: "layer that is no tar", raw: bytes.Repeat([]byte("x"), 2048)},
	{name: "tar cut short in a file", raw: makeTar(nil2{}, entryOf("a", tar.TypeReg, strings.Repeat("x", 900)))[:1000]},
	{name: "layer of other bytes", layers: one(regular("a")), after: blobs(gzipMagic, func(raw []byte) []byte { raw[len(raw)-1]++; return raw })},
	{name: "layer with bytes behind it", layers: one(regular("a")), after: blobs(gzipMagic, func(raw []byte) []byte { return append(raw, make([]byte, 512)...) }), unsafe: true},
	{name: "layer cut short", layers: one(regular("a")), after: blobs(gzipMagic, func(raw []byte) []byte { return raw[:len(raw)/2] })},
	{name: "layer that is not there", layers: one(regular("a")), after: func(t *testing.T, layout string) {
		files, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if raw, err := os.ReadFile(f); err != nil || bytes.HasPrefix(raw, []byte(gzipMagic)) {
				if err := errors.Join(err, os.Remove(f)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}},
	{name: "manifest of other bytes", layers: one(regular("a")), after: blobs(manifestText, func(raw []byte) []byte { return append(raw, ' ') }), unsafe: true},
	{name: "manifest without end", layers: one(regular("a")), after: blobs(manifestText, func(raw []byte) []byte { return append(raw, bytes.Repeat([]byte(" "), maxDocument)...) }), unsafe: true},
	{name: "two images", layers: one(regular("a")), after: entries(func(l *v1.IndexManifest) { l.Manifests = append(l.Manifests, l.Manifests[0]) })},
	{name: "no image", layers: one(regular("a")), after: entries(func(l *v1.IndexManifest) { l.Manifests = nil })},
	{name: "image that is not there", layers: one(regular("a")), after: entries(func(l *v1.IndexManifest) { l.Manifests[0].Digest.Hex = strings.Repeat("ab", 32) })},
	{name: "image named by another hash", layers: one(regular("a")), after: entries(func(l *v1.IndexManifest) {
		l.Manifests[0].Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("ab", 64)}
	})},
	{name: "index that is no JSON", layers: one(regular("a")), after: func(t *testing.T, layout string) {
		if err := os.WriteFile(filepath.Join(layout, "index.json"), []byte("<html>"), 0o644); err != nil {
			t.Fatal(err)
		}
	}},
}

// None is unpacked: the directory does not even exist afterwards, and nothing
// has appeared or changed beside it.
func TestBadImages(t *testing.T) {
	if len(badImages) < 60 {
		t.Fatalf("%d bad images", len(badImages))
	}
	seen := map[string]bool{}
	for _, tc := range badImages {
		if seen[tc.name] {
			t.Errorf("%s is there twice", tc.name)
		}
		seen[tc.name] = true
		t.Run(tc.name, func(t *testing.T) {
			layout := ""
			if tc.raw != nil {
				layout = layoutOfTars(t, tc.raw)
			} else {
				layout = layoutOf(t, tc.layers...)
			}
			if tc.after != nil {
				tc.after(t, layout)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "beside"), []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := Unpack(UnpackOptions{Layout: layout, Out: filepath.Join(dir, "root"), Limits: Limits{Bytes: 1000, Entries: 5}})
			if err == nil || tc.unsafe && !errors.Is(err, ErrUnsafe) {
				t.Errorf("got %v", err)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 || left[0].Name() != "beside" {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if raw, err := os.ReadFile(filepath.Join(dir, "beside")); err != nil || string(raw) != "mine" {
				t.Errorf("what is beside it: %q, %v", raw, err)
			}
		})
	}
	t.Logf("RESULT %d bad images, none unpacked", len(badImages))
}
