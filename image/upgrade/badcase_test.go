package upgrade

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/signature"
	"github.com/kairos-io/kairos/image/slots/slotstest"
	"github.com/kairos-io/kairos/image/upgrade/upgradetest"
)

// bad is a release that must be refused.
type bad struct {
	name  string
	draft func(d *upgradetest.Draft)           // what is wrong with it; may be nil
	after func(t *testing.T, l *bench)         // what becomes of the layout, or of the options
	serve func(next http.Handler) http.Handler // what the registry does wrong
	want  string                               // part of the error
	// streamed: only the bytes themselves are wrong, and that is known when the
	// last one has come. The slot that is not booted is lost then, and nothing else.
	streamed bool
}

// bench is where a bad release is tried.
type bench struct {
	dir, digest string // the layout
	options     *Options
}

func (b *bench) blob(digest string) string {
	return filepath.Join(b.dir, "blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
}

// damage changes the blob of a part; the name stays.
func damage(layer int, change func([]byte) []byte) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		t.Helper()
		var index, m struct {
			Manifests, Layers []struct{ Digest string }
		}
		read := func(digest string, into any) {
			raw, err := os.ReadFile(b.blob(digest))
			must(t, err)
			must(t, json.Unmarshal(raw, into))
		}
		read(b.digest, &index)
		read(index.Manifests[0].Digest, &m)
		path := b.blob(m.Layers[layer].Digest)
		raw, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, change(raw), 0o600))
	}
}

func half(raw []byte) []byte  { return raw[:len(raw)/2] }
func more(raw []byte) []byte  { return append(raw, 0) }
func other(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }

// set changes one key of a document; nil removes it.
func set(key string, value any) func(upgradetest.Object) {
	return func(o upgradetest.Object) {
		if value == nil {
			delete(o, key)
			return
		}
		o[key] = value
	}
}

// layers changes the list of layers.
func layers(change func([]any) []any) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) {
		d.Manifest = func(o upgradetest.Object) { o["layers"] = change(o["layers"].([]any)) }
	}
}

// layer changes one layer's descriptor.
func layer(i int, key string, value any) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) { d.Layers[i].Edit = set(key, value) }
}

// config changes one key of the configuration.
func config(key string, value any) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) { set(key, value)(d.Config) }
}

func manifest(key string, value any) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) { d.Manifest = set(key, value) }
}

func entry(key string, value any) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) { d.Entry = set(key, value) }
}

func index(key string, value any) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) { d.Index = set(key, value) }
}

// encoded changes the bytes of the manifest or the index.
func encoded(which string, change func([]byte) []byte) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) {
		d.Bytes = func(name string, raw []byte) []byte {
			if name == which {
				return change(raw)
			}
			return raw
		}
	}
}

// kernel replaces the UKI.
func kernel(arch, cmdline string) func(*upgradetest.Draft) {
	return func(d *upgradetest.Draft) { d.Layers[2].Data = slotstest.UKI(arch, cmdline, 3000) }
}

// body makes the registry answer requests whose path holds part with something else.
func body(part string, write func(http.ResponseWriter)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, part) {
				write(w)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// endless writes until nobody reads any more, or a gigabyte has gone.
func endless(w http.ResponseWriter) {
	junk := bytes.Repeat([]byte(" "), 1<<20)
	for range 1 << 10 {
		if _, err := w.Write(junk); err != nil {
			return
		}
	}
}

func newKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// asking makes the machine insist on a key.
func asking(key crypto.Signer) func(*testing.T, *bench) {
	return func(_ *testing.T, b *bench) { b.options.Key = key.Public() }
}

// signed signs with one key, while the machine asks for another.
func signed(with, asked crypto.Signer) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		b.options.Key = asked.Public()
		_, err := signature.SignLayout(b.dir, "", with)
		must(t, err)
	}
}

// prepare writes the release and returns how to ask for it.
func (tc bad) prepare(t *testing.T) Options {
	t.Helper()
	d := upgradetest.New(wanted)
	if tc.draft != nil {
		tc.draft(d)
	}
	dir, digest := layoutOf(t, "v2", d)
	o := at(t, "oci:"+dir+":v2")
	if tc.serve != nil {
		s := httptest.NewServer(tc.serve(upgradetest.Registry(dir)))
		t.Cleanup(s.Close)
		o.Ref = ref(t, strings.TrimPrefix(s.URL, "http://")+"/os:v2")
	}
	if tc.after != nil {
		tc.after(t, &bench{dir, digest, &o})
	}
	return o
}

// rename gives an entry of a layout's index.json another name.
func rename(t *testing.T, dir, from, to string) {
	t.Helper()
	path := filepath.Join(dir, "index.json")
	raw, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Contains(raw, []byte(from)) {
		t.Fatalf("%s is not in %s", from, raw)
	}
	must(t, os.WriteFile(path, bytes.ReplaceAll(raw, []byte(from), []byte(to)), 0o600))
}

// borrowed puts the good signature of another release in the place of this one's.
func borrowed(t *testing.T, b *bench) {
	key := newKey()
	b.options.Key = key.Public()
	another, err := upgradetest.Layout(b.dir, "v9", upgradetest.New(slotstest.New("v9", "amd64")))
	must(t, err)
	_, err = signature.SignLayout(b.dir, "v9", key)
	must(t, err)
	rename(t, b.dir, oci.SignatureTag(another), oci.SignatureTag(b.digest))
}

// signatures rewrites the manifest of the signatures.
func signatures(change func([]byte) []byte) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		key := newKey()
		signed(key, key)(t, b)
		index, err := layout.ImageIndexFromPath(b.dir)
		must(t, err)
		list, err := index.IndexManifest()
		must(t, err)
		old := list.Manifests[1]
		raw, err := os.ReadFile(b.blob(old.Digest.String()))
		must(t, err)
		raw = change(raw)
		sum := hashOf(raw)
		must(t, os.WriteFile(b.blob(sum), raw, 0o600))
		list.Manifests[1].Size = int64(len(raw))
		must(t, list.Manifests[1].Digest.UnmarshalText([]byte(sum)))
		raw, err = json.Marshal(list)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b.dir, "index.json"), raw, 0o600))
	}
}

// swap replaces a text in the manifest of the signatures.
func swap(from, to string) func([]byte) []byte {
	return func(raw []byte) []byte {
		if !bytes.Contains(raw, []byte(from)) {
			panic(from + " is not in " + string(raw))
		}
		return bytes.ReplaceAll(raw, []byte(from), []byte(to))
	}
}

// changed puts another release under the digest that was signed.
func changed(t *testing.T, b *bench) {
	key := newKey()
	signed(key, key)(t, b)
	raw, err := os.ReadFile(b.blob(b.digest))
	must(t, err)
	must(t, os.WriteFile(b.blob(b.digest), bytes.Replace(raw, []byte("amd64"), []byte("arm64"), 1), 0o600))
}
