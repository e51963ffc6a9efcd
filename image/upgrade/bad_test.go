package upgrade

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/signature"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

var (
	wanted    = slotstest.New("v2", "amd64")
	somewhere = "sha256:" + strings.Repeat("ab", 32)
	huge      = 1 << 40
)

var badReleases = []bad{
	// The index.
	{name: "index that is no JSON", draft: encoded("index", func([]byte) []byte { return []byte("<html>") }), want: "decode its index"},
	{name: "index cut short", draft: encoded("index", half), want: "decode its index"},
	{name: "index of a list", draft: encoded("index", func([]byte) []byte { return []byte("[]") }), want: "decode its index"},
	{name: "index larger than is read", draft: encoded("index", func(raw []byte) []byte { return append(raw, bytes.Repeat([]byte(" "), release.MaxIndex)...) }), want: "an index of"},
	{name: "index of very many entries", draft: func(d *upgradetest.Draft) {
		d.Index = func(o upgradetest.Object) {
			list := o["manifests"].([]any)
			for range 100 {
				list = append(list, list[0])
			}
			o["manifests"] = list
		}
	}, want: "101 entries"},
	{name: "index nested without end", draft: encoded("index", func([]byte) []byte {
		return []byte(`{"schemaVersion":2,"manifests":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + "}")
	}), want: "decode its index"},
	{name: "index of another schema", draft: index("schemaVersion", 1), want: "schema version 1"},
	{name: "index of another type", draft: index("mediaType", "application/vnd.docker.distribution.manifest.list.v2+json"), want: "it is of type"},
	{name: "index of nothing", draft: index("manifests", []any{}), want: "without a release manifest"},
	{name: "index of indexes", draft: entry("mediaType", "application/vnd.oci.image.index.v1+json"), want: "its release manifest is of type"},
	{name: "two releases for one machine", draft: func(d *upgradetest.Draft) {
		d.Index = func(o upgradetest.Object) { list := o["manifests"].([]any); o["manifests"] = append(list, list[0]) }
	}, want: "2 release manifests"},

	// Its entry for the release.
	{name: "a container image", draft: entry("artifactType", nil), want: "without a release manifest"},
	{name: "a release for other machines", draft: entry("platform", upgradetest.Object{"os": "kairos", "architecture": "arm64"}), want: `not for amd64 machines but for ["arm64"]`},
	{name: "a release for no machine", draft: entry("platform", nil), want: "has no platform"},
	{name: "a release for containers", draft: entry("platform", upgradetest.Object{"os": "linux", "architecture": "amd64"}), want: "has no platform of kairos"},
	{name: "a manifest that is not there", draft: entry("digest", somewhere), want: oci.ErrNotFound.Error()},
	{name: "a manifest named by another hash", draft: entry("digest", "sha512:"+strings.Repeat("ab", 64)), want: `named by "sha512"`},
	{name: "a manifest named by a path", draft: entry("digest", "sha256:../../../etc/passwd"), want: "decode its index"},
	{name: "a manifest of less than nothing", draft: entry("size", -1), want: "a size of -1 bytes"},
	{name: "a manifest larger than is read", draft: entry("size", release.MaxManifest+1), want: "is larger than its place"},
	{name: "a manifest shorter than promised", draft: entry("size", 10000), want: "bytes instead of 10000"},
	{name: "a manifest longer than promised", draft: entry("size", 100), want: "more than 100 bytes"},
	{name: "a size that is a text", draft: entry("size", "12"), want: "decode its index"},
	{name: "a manifest from elsewhere", draft: entry("urls", []string{"https://example.org/m"}), want: "said to be elsewhere"},

	// The manifest.
	{name: "manifest that is no JSON", draft: encoded("manifest", func([]byte) []byte { return []byte("\x00\x01") }), want: "decode its manifest"},
	{name: "manifest cut short", draft: encoded("manifest", half), want: "decode its manifest"},
	{name: "manifest of another type", draft: manifest("mediaType", "application/vnd.docker.distribution.manifest.v2+json"), want: "its manifest is of type"},
	{name: "manifest of another schema", draft: manifest("schemaVersion", 3), want: "schema version 3"},
	{name: "manifest of another artifact", draft: manifest("artifactType", "application/vnd.cncf.helm.config.v1+json"), want: "artifact of type"},
	{name: "manifest that talks to terminals", draft: manifest("artifactType", "\x1b]0;owned\a\x1b[2J"), want: `"?]0;owned??[2J"`},
	{name: "no layers", draft: manifest("layers", []any{}), want: "0 layers"},
	{name: "a layer is missing", draft: layers(func(l []any) []any { return l[:3] }), want: "3 layers"},
	{name: "a layer is there twice", draft: layers(func(l []any) []any { return append(l, l[0]) }), want: "5 layers"},
	{name: "a hundred thousand layers", draft: layers(func(l []any) []any {
		for range 100000 {
			l = append(l, l[0])
		}
		return l
	}), want: "larger than its place"},
	{name: "root and hash tree changed places", draft: layers(func(l []any) []any { l[0], l[1] = l[1], l[0]; return l }), want: "its root is of type"},
	{name: "the kernel in place of the root", draft: layers(func(l []any) []any { l[0] = l[2]; return l }), want: "its root is of type"},
	{name: "a compressed root", draft: layer(0, "mediaType", "application/vnd.oci.image.layer.v1.tar+gzip"), want: "its root is of type"},
	{name: "a root without a type", draft: layer(0, "mediaType", nil), want: "its root is of type"},
	{name: "a root from elsewhere", draft: layer(0, "urls", []string{"http://169.254.169.254/"}), want: "said to be elsewhere"},
	{name: "a root larger than its partition", draft: layer(0, "size", release.RootSize+release.BlockSize), want: "is larger than its place"},
	{name: "a root of a terabyte", draft: layer(0, "size", huge), want: "is larger than its place"},
	{name: "a root of more than all numbers", draft: layer(0, "size", json.Number("99999999999999999999")), want: "decode its manifest"},
	{name: "a root of less than nothing", draft: layer(0, "size", -4096), want: "a size of -4096"},
	{name: "a root of half a block", draft: layer(0, "size", 100), want: "not whole blocks"},
	{name: "a root that does not fit this disk", draft: func(d *upgradetest.Draft) {
		d.Layers[0].Data = make([]byte, 17*release.BlockSize)
		d.Layers[1].Data = make([]byte, 3*release.BlockSize)
	}, want: "its partition kairos-root-b only 65536"},
	{name: "a hash tree larger than its partition", draft: layer(1, "size", release.VeritySize+release.BlockSize), want: "is larger than its place"},
	{name: "a hash tree too small for the root", draft: layer(0, "size", 1<<30), want: "its hash tree has 2 blocks"},
	{name: "a kernel that would fill the ESP", draft: layer(2, "size", release.MaxUKI+1), want: "is larger than its place"},
	{name: "a list of parts without end", draft: layer(3, "size", huge), want: "is larger than its place"},
	{name: "a root named by nothing", draft: layer(0, "digest", ""), want: "decode its manifest"},
	{name: "a root named by a path", draft: layer(0, "digest", "sha256:"+strings.Repeat("../", 21)+"x"), want: "decode its manifest"},

	// The configuration.
	{name: "configuration that is no JSON", draft: func(d *upgradetest.Draft) { d.Raw = []byte("version: 1") }, want: "decode its configuration"},
	{name: "configuration larger than is read", draft: func(d *upgradetest.Draft) { d.Raw = bytes.Repeat([]byte(" "), release.MaxConfig+1) }, want: "is larger than its place"},
	{name: "empty configuration", draft: func(d *upgradetest.Draft) { d.Raw = []byte("{}") }, want: "has no version"},
	{name: "configuration for other machines", draft: config("arch", "arm64"), want: "its configuration arm64"},
	{name: "architecture that nobody knows", draft: config("arch", "amd64/../arm64"), want: "its architecture"},
	{name: "version that is a path", draft: config("version", "../../../etc/shadow"), want: "its version"},
	{name: "version that talks to terminals", draft: config("version", "v2\x1b[8m"), want: "its version"},
	{name: "version of a novel", draft: config("version", strings.Repeat("v", 10000)), want: "its version"},
	{name: "version over two lines", draft: config("version", "v2\nv3"), want: "its version"},
	{name: "version that reads from right to left", draft: config("version", "v\u202e2"), want: "its version"},
	{name: "revision that is a command", draft: config("revision", "$(reboot)"), want: "its revision"},
	{name: "no root hash", draft: config("root_hash", nil), want: "its root hash"},
	{name: "root hash of half the length", draft: config("root_hash", strings.Repeat("a", 32)), want: "its root hash"},
	{name: "root hash that adds to the command line", draft: config("root_hash", strings.Repeat("a", 50)+" init=/bin/sh"), want: "its root hash"},
	{name: "configuration that is not there", draft: func(d *upgradetest.Draft) {
		d.Manifest = func(o upgradetest.Object) { o["config"].(upgradetest.Object)["digest"] = somewhere }
	}, want: oci.ErrNotFound.Error()},

	// The kernel, which is fetched before anything is overwritten.
	{name: "kernel that is not there", draft: layer(2, "digest", somewhere), want: oci.ErrNotFound.Error()},
	{name: "kernel cut short", after: damage(2, half), want: "bytes instead of"},
	{name: "kernel longer than promised", after: damage(2, more), want: "more than"},
	{name: "kernel of other bytes", after: damage(2, other), want: oci.ErrDigest.Error()},
	{name: "kernel that is none", draft: func(d *upgradetest.Draft) { d.Layers[2].Data = []byte(strings.Repeat("not a program ", 300)) }, want: "not a unified kernel image"},
	{name: "kernel of a few bytes", draft: func(d *upgradetest.Draft) { d.Layers[2].Data = []byte("MZ") }, want: "not a unified kernel image"},
	{name: "kernel without a command line", draft: func(d *upgradetest.Draft) {
		d.Layers[2].Data = bytes.Replace(d.Layers[2].Data, []byte(".cmdline"), []byte(".nothing"), 1)
	}, want: "no command line"},
	{name: "kernel that starts another root", draft: kernel("amd64", "roothash="+strings.Repeat("0", 64)), want: "another root hash"},
	{name: "kernel that starts whatever it finds", draft: kernel("amd64", "root=/dev/sdb1 init=/bin/sh"), want: "another root hash"},
	{name: "kernel with the root hash and then another", draft: kernel("amd64", "roothash="+wanted.RootHash+" roothash="+strings.Repeat("0", 64)), want: "another root hash"},
	{name: "kernel for other machines", draft: kernel("arm64", "roothash="+wanted.RootHash), want: "for \"arm64\" machines"},

	// Root and hash tree: only their bytes are wrong.
	{name: "root that is not there", draft: layer(0, "digest", somewhere), want: oci.ErrNotFound.Error(), streamed: true},
	{name: "root cut short", after: damage(0, half), want: "bytes instead of", streamed: true},
	{name: "root longer than promised", after: damage(0, more), want: "more than", streamed: true},
	{name: "root of other bytes", after: damage(0, other), want: oci.ErrDigest.Error(), streamed: true},
	{name: "root of another release", draft: func(d *upgradetest.Draft) { d.Layers[0].Data = slotstest.New("v9", "amd64").Root }, want: slots.ErrDamaged.Error(), streamed: true},
	{name: "hash tree of another release", draft: func(d *upgradetest.Draft) { d.Layers[1].Data = slotstest.New("v9", "amd64").Verity }, want: slots.ErrDamaged.Error(), streamed: true},
	{name: "hash tree of other bytes", after: damage(1, other), want: oci.ErrDigest.Error(), streamed: true},
	{name: "hash tree that is none", draft: func(d *upgradetest.Draft) { d.Layers[1].Data = make([]byte, 2*release.BlockSize) }, want: "not one of dm-verity", streamed: true},
	{name: "root and tree of another root hash", draft: func(d *upgradetest.Draft) {
		d.Config["root_hash"] = strings.Repeat("c", 64)
		d.Layers[2].Data = slotstest.UKI("amd64", "roothash="+strings.Repeat("c", 64), 3000)
	}, want: slots.ErrDamaged.Error(), streamed: true},

	// Registries that lie.
	{name: "manifest without end", serve: body("/manifests/", endless), want: "an index of"},
	{name: "manifest that says it is a gigabyte", serve: body("/manifests/", func(w http.ResponseWriter) { w.Header().Set("Content-Length", fmt.Sprint(1<<30)) }), want: oci.ErrTooLarge.Error()},
	{name: "a page to log in", serve: body("/manifests/", func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }), want: "decode its index"},
	{name: "blobs without end", serve: body("/blobs/", endless), want: "more than"},
	{name: "blobs of nothing", serve: body("/blobs/", func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }), want: "error verifying sha256"},
	{name: "an error as a blob", serve: body("/blobs/", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }), want: "500"},
	{name: "sent elsewhere in circles", serve: body("/blobs/", func(w http.ResponseWriter) {
		w.Header().Set("Location", "/v2/os/blobs/"+somewhere)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}), want: "stopped after"},

	// Layouts that are none.
	{name: "no layout", after: func(t *testing.T, b *bench) { must(t, os.RemoveAll(b.dir)) }, want: oci.ErrNotFound.Error()},
	{name: "layout without its blobs", after: func(t *testing.T, b *bench) { must(t, os.RemoveAll(filepath.Join(b.dir, "blobs"))) }, want: oci.ErrNotFound.Error()},
	{name: "layout with another digest than asked", after: func(t *testing.T, b *bench) { b.options.Ref = ref(t, "oci:"+b.dir+"@"+somewhere) }, want: oci.ErrNotFound.Error()},

	// Signatures.
	{name: "no signature", after: asking(newKey()), want: "there is no signature"},
	{name: "signed by another key", after: signed(newKey(), newKey()), want: signature.ErrInvalid.Error()},
	{name: "another image was signed", after: borrowed, want: "the key signed another image"},
	{name: "a signature of garbage", after: signatures(swap(`cosign/signature":"M`, `cosign/signature":"A`)), want: signature.ErrInvalid.Error()},
	{name: "a signature that is no base64", after: signatures(swap(`cosign/signature":"M`, `cosign/signature":"!`)), want: "there is no signature in"},
	{name: "a signature of another kind", after: signatures(swap("vnd.dev.cosign.simplesigning.v1+json", "octet-stream")), want: "there is no signature in"},
	{name: "signatures that are no JSON", after: signatures(half), want: "the manifest is not one"},
	{name: "signatures larger than are read", after: signatures(func(raw []byte) []byte { return append(raw, bytes.Repeat([]byte(" "), release.MaxIndex)...) }), want: "a list of signatures of"},
	{name: "signatures without payloads", after: signatures(func(raw []byte) []byte {
		return bytes.ReplaceAll(raw, []byte(`"layers":[`), []byte(`"none":[`))
	}), want: "there is no signature in"},
	{name: "signed, and changed afterwards", after: changed, want: oci.ErrDigest.Error()},
}

// None of these is started. All but those whose bytes alone are wrong are refused
// before anything on the disk has changed.
func TestBadReleases(t *testing.T) {
	if len(badReleases) < 60 {
		t.Fatalf("%d bad releases", len(badReleases))
	}
	seen := map[string]bool{}
	for _, tc := range badReleases {
		if seen[tc.name] {
			t.Errorf("%s is there twice", tc.name)
		}
		seen[tc.name] = true
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, slotstest.New("v1", "amd64"))
			// The way back that a refused release must not cost.
			dir, _ := layoutOf(t, "v0", upgradetest.New(slotstest.New("v0", "amd64")))
			must(t, m.stage(at(t, "oci:"+dir)))
			before, was := m.sums(), m.status()

			err := m.stage(tc.prepare(t))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			after := m.sums()
			if same := fmt.Sprint(before) == fmt.Sprint(after); same == tc.streamed {
				t.Errorf("the disk is as it was: %v", same)
			}
			st := m.status()
			if fmt.Sprint(st.Booted.Entry, st.Booted.Root) != fmt.Sprint(was.Booted.Entry, was.Booted.Root) {
				t.Errorf("the running system: %+v, was %+v", st.Booted, was.Booted)
			}
			if tc.streamed && st.Other.State != slots.Empty {
				t.Errorf("the other slot is %s", st.Other.State)
			}
		})
	}
	t.Logf("RESULT %d bad releases, none started", len(badReleases))
}

// The same release without a fault is taken: the table tests what it says.
func TestGoodRelease(t *testing.T) {
	key := newKey()
	for _, tc := range []bad{
		{name: "in a layout"},
		{name: "in a registry", serve: func(next http.Handler) http.Handler { return next }},
		{name: "signed", after: signed(key, key)},
		{name: "signed twice", after: func(t *testing.T, b *bench) { signed(newKey(), key)(t, b); signed(key, key)(t, b) }},
		{name: "signed in a registry", after: signed(key, key), serve: func(next http.Handler) http.Handler { return next }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, slotstest.New("v1", "amd64"))
			must(t, m.stage(tc.prepare(t)))
			if st := m.status(); st.Other.State != slots.Staged || st.Other.RootHash != wanted.RootHash {
				t.Errorf("got %+v", st.Other)
			}
		})
	}
}
