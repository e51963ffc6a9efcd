package builder

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one file, directory or symlink of a layer of ours; root owns it.
type entry struct {
	name string // relative, slash-separated
	mode int64  // permission bits
	dir  bool
	link string // symlink target, if not empty
	data []byte
}

// addTree appends every file of tree with mode 0644, each text passed through
// edit (nil: as it is).
func addTree(list []*entry, tree fs.FS, edit func([]byte) []byte) ([]*entry, error) {
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		if edit != nil {
			data = edit(data)
		}
		list = append(list, &entry{name: name, mode: 0o644, data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list files of the image: %w", err)
	}
	return list, nil
}

// layerOf makes a layer of entries: sorted by name, every time baseEpoch. Parent
// directories that are not entries themselves are left to the layer below, so
// that a layer never changes their mode.
func layerOf(list []*entry) (v1.Layer, error) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for i, e := range list {
		if i > 0 && list[i-1].name == e.name {
			return nil, fmt.Errorf("make layer: %s is in it twice", e.name)
		}
		if err := writeEntry(tw, e); err != nil {
			return nil, fmt.Errorf("make layer: %s: %w", e.name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	return layer, nil
}

func writeEntry(tw *tar.Writer, e *entry) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Clean(e.name), Mode: e.mode, Size: int64(len(e.data)), ModTime: baseEpoch, Format: tar.FormatPAX}
	switch {
	case e.dir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(e.data)
	return err
}

// describe fills in configuration and manifest of an image: what runs, where it
// is from, and which commit.
type describe struct {
	title, version, revision string
	flavour                  Flavour // of the OS image only
	k3s                      string  // likewise: image that machines run, with its digest where it was resolved
	created                  time.Time
	arch                     string
	config                   v1.Config
}

// FlavourLabel is the label of an OS image that says its flavour.
const FlavourLabel = "io.kairos.flavour"

// K3sLabel is the label of an OS image that says which k3s image machines run.
const K3sLabel = "io.kairos.k3s"

// labels follow the OCI image spec's pre-defined annotation keys.
func (d describe) labels() map[string]string {
	l := map[string]string{
		"org.opencontainers.image.title":    d.title,
		"org.opencontainers.image.version":  d.version,
		"org.opencontainers.image.created":  d.created.UTC().Format(time.RFC3339),
		"org.opencontainers.image.source":   "https://github.com/kairos-io/kairos",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	if d.flavour != "" {
		l[FlavourLabel] = string(d.flavour)
	}
	if d.k3s != "" {
		l[K3sLabel] = d.k3s
	}
	if d.revision != "" {
		l["org.opencontainers.image.revision"] = d.revision
	}
	return l
}
