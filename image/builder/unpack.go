package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kairos-io/kairos/image/signature"
)

// UnpackOptions say what to unpack and how much of it is still believable.
type UnpackOptions struct {
	Layout string // OCI layout with one image, or one index
	Out    string // directory to make; must not exist yet, or be empty
	Arch   string // which image of an index; empty: this machine's
	Limits Limits // zero fields: defaults
}

// Limits guard against an image that fills the disk.
type Limits struct {
	Bytes   int64 // all files together; default 8 GiB
	Entries int64 // default one million
}

// ErrUnsafe marks an image that is refused because of what it would do to the
// machine that unpacks it.
var ErrUnsafe = errors.New("unsafe image")

// Unpack turns an image into a root file system: owners, modes, times, file
// capabilities. Every layer's digest is checked. No entry reaches outside of
// Out, neither by its name nor through a symlink; device nodes are refused, since
// a machine's /dev is its kernel's business. Out appears complete or not at all.
// It needs root, for the owners.
func Unpack(o UnpackOptions) error {
	if o.Limits.Bytes == 0 {
		o.Limits.Bytes = 8 << 30
	}
	if o.Limits.Entries == 0 {
		o.Limits.Entries = 1 << 20
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	path, err := layout.FromPath(o.Layout)
	if err != nil {
		return fmt.Errorf("open layout %s: %w", o.Layout, err)
	}
	manifest, err := findManifest(path, o.Arch)
	if err != nil {
		return fmt.Errorf("read layout %s: %w", o.Layout, err)
	}
	if names, err := os.ReadDir(o.Out); err == nil && len(names) > 0 {
		return fmt.Errorf("unpack: %s is not empty\nhint: remove it, or give another directory with --out", o.Out)
	}
	return replaceDir(o.Out, func(tmp string) error {
		return unpackLayers(path, manifest, tmp, o.Limits)
	})
}

// findImage walks from the layout's index to the image for arch.
func findImage(path layout.Path, arch string) (v1.Descriptor, error) {
	index, err := path.ImageIndex()
	if err != nil {
		return v1.Descriptor{}, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc, err := signature.Only(list.Manifests)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if desc.MediaType.IsIndex() {
		return pickArch(path, desc.Digest, arch)
	}
	return desc, nil
}

func findManifest(path layout.Path, arch string) (*v1.Manifest, error) {
	desc, err := findImage(path, arch)
	if err != nil {
		return nil, err
	}
	raw, err := document(path, desc.Digest)
	if err != nil {
		return nil, err
	}
	return v1.ParseManifest(bytes.NewReader(raw))
}

func pickArch(path layout.Path, index v1.Hash, arch string) (v1.Descriptor, error) {
	raw, err := document(path, index)
	if err != nil {
		return v1.Descriptor{}, err
	}
	list, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, d := range list.Manifests {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch {
			return d, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("it holds no image for %s", arch)
}

// maxDocument bounds manifests and indexes, in bytes.
const maxDocument = 4 << 20

// document reads a small blob and checks it.
func document(path layout.Path, digest v1.Hash) ([]byte, error) {
	blob, err := path.Blob(digest)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(blob, maxDocument+1))
	if err := errors.Join(err, blob.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrUnsafe, digest, maxDocument)
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != digest.Hex {
		return nil, fmt.Errorf("%w: %s is not what its digest says", ErrUnsafe, digest)
	}
	return raw, nil
}

func unpackLayers(path layout.Path, manifest *v1.Manifest, dir string, limits Limits) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(dir), err)
	}
	defer root.Close()
	x := &extractor{root: root, limits: limits}
	for _, desc := range manifest.Layers {
		if err := unpackLayer(path, desc, x); err != nil {
			return fmt.Errorf("unpack layer %s: %w", desc.Digest, err)
		}
	}
	return x.finish()
}

// headroom is what a tar may hold per file besides its content, in bytes: the
// header, its padding, and one of the PAX headers that say more.
const headroom = 4 << 10

// metered bounds what a compressed layer grows to, which is more than its files:
// headers that say nothing make a bomb as well.
type metered struct {
	io.Reader
	x *extractor
}

// Read implements io.Reader.
func (m *metered) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if m.x.read += int64(n); m.x.read > m.x.limits.Bytes+m.x.limits.Entries*headroom {
		return 0, fmt.Errorf("%w: its layers do not end", ErrUnsafe)
	}
	return n, err
}

func unpackLayer(path layout.Path, desc v1.Descriptor, x *extractor) error {
	blob, err := path.Blob(desc.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	sum := sha256.New()
	whole := io.TeeReader(blob, sum)
	var plain io.Reader = whole
	switch desc.MediaType {
	case types.OCILayer, types.DockerLayer:
		if plain, err = gzip.NewReader(whole); err != nil {
			return err
		}
	case types.OCIUncompressedLayer:
	default:
		return fmt.Errorf("layers of type %s are not supported", desc.MediaType)
	}
	tr := tar.NewReader(&metered{plain, x})
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := x.entry(h, tr); err != nil {
			return fmt.Errorf("%.100q: %w", h.Name, err)
		}
	}
	// What follows the last entry belongs to the digest too.
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != desc.Digest.Hex {
		return fmt.Errorf("%w: it is not what its digest says", ErrUnsafe)
	}
	return nil
}
