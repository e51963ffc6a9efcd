// Package upgradetest makes releases for tests, good ones and bad ones, and
// serves them as a registry does. It writes the documents itself, so that they
// can be wrong in every way.
package upgradetest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/slots/slotstest"
)

// Object is a JSON document that a test may change.
type Object = map[string]any

// Layer is a part of a release.
type Layer struct {
	Type string
	Data []byte
	Edit func(descriptor Object) // may be nil
}

// Draft is a release for one architecture that is not written yet.
type Draft struct {
	Config   Object
	Raw      []byte // instead of Config, when set
	Layers   []Layer
	Arch     string
	Manifest func(Object)                         // changes to the manifest; may be nil
	Entry    func(Object)                         // to its descriptor in the index
	Index    func(Object)                         // to the index
	Bytes    func(name string, raw []byte) []byte // to "manifest" and "index" as they are written
}

// New drafts a good release of a system.
func New(s slotstest.System) *Draft {
	return &Draft{
		Arch:   s.Arch,
		Config: Object{"version": s.Version, "arch": s.Arch, "flavour": "generic", "revision": "0123abc", "root_hash": s.RootHash},
		Layers: []Layer{
			{release.RootType, s.Root, nil}, {release.VerityType, s.Verity, nil},
			{release.UKIType, s.UKI, nil}, {release.SBOMType, []byte("{}"), nil},
		},
	}
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	refName      = "org.opencontainers.image.ref.name"
)

// Layout writes one index of drafts into an OCI layout under a name and returns
// the digest. A layout that is there keeps what it has under other names.
func Layout(dir, name string, drafts ...*Draft) (string, error) {
	l := store(dir)
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return "", err
	}
	index := Object{"schemaVersion": 2, "mediaType": indexType}
	var entries []any
	for _, d := range drafts {
		e, err := l.release(d)
		if err != nil {
			return "", err
		}
		entries = append(entries, e)
	}
	index["manifests"] = entries
	for _, d := range drafts {
		edit(d.Index, index)
	}
	raw, err := drafts[0].encode("index", index)
	if err != nil {
		return "", err
	}
	desc, err := l.put(indexType, raw)
	if err != nil {
		return "", err
	}
	desc["annotations"] = Object{refName: name}
	return fmt.Sprint(desc["digest"]), l.add(name, desc)
}

func edit(f func(Object), o Object) {
	if f != nil {
		f(o)
	}
}

func (d *Draft) encode(name string, o Object) ([]byte, error) {
	raw, err := json.Marshal(o)
	if err == nil && d.Bytes != nil {
		raw = d.Bytes(name, raw)
	}
	return raw, err
}

// store is a layout's directory.
type store string

// put writes a blob and returns its descriptor.
func (s store) put(mediaType string, raw []byte) (Object, error) {
	sum := sha256.Sum256(raw)
	hex := hex.EncodeToString(sum[:])
	return Object{"mediaType": mediaType, "digest": "sha256:" + hex, "size": len(raw)},
		os.WriteFile(s.blob("sha256:"+hex), raw, 0o644)
}

func (s store) blob(digest string) string {
	return filepath.Join(string(s), "blobs", "sha256", filepath.Base(strings.TrimPrefix(digest, "sha256:")))
}

// release writes one draft and returns its entry in the index.
func (s store) release(d *Draft) (Object, error) {
	raw := d.Raw
	if raw == nil {
		var err error
		if raw, err = json.Marshal(d.Config); err != nil {
			return nil, err
		}
	}
	config, err := s.put(release.ConfigType, raw)
	if err != nil {
		return nil, err
	}
	var layers []any
	for _, l := range d.Layers {
		desc, err := s.put(l.Type, l.Data)
		if err != nil {
			return nil, err
		}
		edit(l.Edit, desc)
		layers = append(layers, desc)
	}
	m := Object{"schemaVersion": 2, "mediaType": manifestType, "artifactType": release.ArtifactType, "config": config, "layers": layers}
	edit(d.Manifest, m)
	if raw, err = d.encode("manifest", m); err != nil {
		return nil, err
	}
	entry, err := s.put(manifestType, raw)
	if err != nil {
		return nil, err
	}
	entry["artifactType"], entry["platform"] = release.ArtifactType, Object{"os": release.OS, "architecture": d.Arch}
	edit(d.Entry, entry)
	return entry, nil
}

// layoutIndex is index.json.
type layoutIndex struct {
	SchemaVersion int      `json:"schemaVersion"`
	Manifests     []Object `json:"manifests"`
}

func (s store) index() (layoutIndex, error) {
	var list layoutIndex
	raw, err := os.ReadFile(filepath.Join(string(s), "index.json"))
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	return list, err
}

// named finds an entry of index.json by its name.
func (l layoutIndex) named(name string) (Object, bool) {
	for _, d := range l.Manifests {
		if a, ok := d["annotations"].(Object); ok && a[refName] == name {
			return d, true
		}
	}
	return nil, false
}

func (s store) add(name string, desc Object) error {
	list, err := s.index()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	list.SchemaVersion = 2
	var keep []Object
	for _, d := range list.Manifests {
		if a, ok := d["annotations"].(Object); !ok || a[refName] != name {
			keep = append(keep, d)
		}
	}
	list.Manifests = append(keep, desc)
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(string(s), "index.json"), raw, 0o644),
		os.WriteFile(filepath.Join(string(s), "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// Registry serves a layout as any repository of a registry, read-only: manifests
// by the names in index.json and by digest, and blobs.
func Registry(dir string) http.Handler {
	s := store(dir)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
		if len(at) < 3 {
			w.WriteHeader(http.StatusOK) // the question whether this is a registry
			return
		}
		digest, kind := at[len(at)-1], at[len(at)-2]
		mediaType := "application/octet-stream"
		if kind == "manifests" {
			mediaType = manifestType
			list, err := s.index()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			if d, ok := list.named(digest); ok {
				digest, mediaType = fmt.Sprint(d["digest"]), fmt.Sprint(d["mediaType"])
			}
		}
		raw, err := os.ReadFile(s.blob(digest))
		if err != nil {
			http.Error(w, "{}", http.StatusNotFound)
			return
		}
		if kind == "manifests" && strings.Contains(string(raw), `"manifests"`) {
			mediaType = indexType
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		_, _ = w.Write(raw) // whoever asked may be gone
	})
}
