package builder

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kairos-io/kairos/agent/oci"
)

// Baked is an image that the OS image carries, for machines without a registry.
type Baked struct {
	Name string  // what it is called on machines: registry/repository:tag, or registry/repository@digest
	Ref  oci.Ref // where it comes from
}

// ParseBaked reads [NAME=]REFERENCE. A reference to a layout on disk needs a name,
// one to a registry may have another one than its own.
func ParseBaked(s string) (Baked, error) {
	name, rest, named := strings.Cut(s, "=")
	if !named {
		rest = s
	}
	ref, err := oci.ParseRef(rest)
	if err != nil {
		return Baked{}, err
	}
	b := Baked{Name: ref.Name(), Ref: ref}
	if named {
		as, err := oci.ParseRef(name)
		if err != nil {
			return Baked{}, err
		}
		b.Name = as.Name()
	}
	if b.Name == "" {
		return Baked{}, fmt.Errorf("what is %s to be called on machines?\nhint: write it like docker.io/rancher/k3s:v1=%s", rest, rest)
	}
	return b, nil
}

// WithAddons adds what a cluster without a registry needs to be one: k3s, the sandbox of
// pods and the add-ons of that k3s. What list has under the same name already stays.
func WithAddons(list []Baked) ([]Baked, error) {
	out := slices.Clone(list)
	for _, ref := range slices.Concat([]string{K3s, Pause}, k3sAddons) {
		b, err := ParseBaked(ref)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(have Baked) bool { return have.Name == b.Name }) {
			out = append(out, b)
		}
	}
	return out, nil
}

// bakedDir is where machines look for images, as it is called in a tar.
var bakedDir = strings.TrimPrefix(oci.DefaultBaked, "/")

// fetched is a baked image on this machine's disk.
type fetched struct {
	Baked
	oci.Image
}

// fetch gets the images into the cache, where what is there already is not fetched again.
func fetch(ctx context.Context, list []Baked, o BaseOptions) ([]fetched, error) {
	cache := blobCache(filepath.Join(o.CacheDir, "images"))
	var out []fetched
	for _, b := range list {
		if slices.ContainsFunc(out, func(f fetched) bool { return f.Name == b.Name }) {
			return nil, fmt.Errorf("bake images: %s is there twice", b.Name)
		}
		img, err := oci.Pull(ctx, b.Ref, cache, oci.Options{Arch: o.Arch, Baked: string(cache), Keychain: authn.DefaultKeychain})
		if err != nil {
			return nil, fmt.Errorf("bake images: %w", err)
		}
		fmt.Fprintf(o.Log, "image: %s, %s, %d MB\n", b.Name, img.Digest, img.Total>>20)
		out = append(out, fetched{b, img})
	}
	slices.SortFunc(out, func(a, b fetched) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// k3s is the image that machines run, with its digest where it is baked in.
func (c Contents) k3s() string {
	i := slices.IndexFunc(c.Images, func(f fetched) bool { return f.Name == K3s })
	if i < 0 {
		return K3s
	}
	return K3s + "@" + c.Images[i].Digest
}

// blobCache keeps blobs by their digest, like the blobs of a layout. It implements oci.Store.
type blobCache string

func (c blobCache) path(digest string) string {
	return filepath.Join(string(c), "blobs", filepath.FromSlash(strings.Replace(digest, ":", "/", 1)))
}

// Has implements oci.Store.
func (c blobCache) Has(_ context.Context, b oci.Blob) (bool, error) {
	info, err := os.Stat(c.path(b.Digest))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Size() == b.Size, err
}

// Write implements oci.Store.
func (c blobCache) Write(_ context.Context, b oci.Blob, r io.Reader) error {
	path := c.path(b.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// imagesLayer makes the layer that holds images as one OCI layout, each blob once.
// What is in a cache may have been damaged there, so everything is verified on its
// way. The layer is in a file, which the caller removes.
func imagesLayer(list []fetched, cacheDir string) (l *fileLayer, err error) {
	f, err := os.CreateTemp(cacheDir, "images-*.tar")
	if err != nil {
		return nil, fmt.Errorf("bake images: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("bake images: %w", err), os.Remove(f.Name()))
		}
	}()
	l = &fileLayer{path: f.Name(), mediaType: types.OCIUncompressedLayer}
	sum := sha256.New()
	tw := tar.NewWriter(io.MultiWriter(f, sum))
	err = writeImages(tw, list, blobCache(filepath.Join(cacheDir, "images")))
	if err = errors.Join(err, tw.Close()); err == nil {
		l.size, err = f.Seek(0, io.SeekCurrent)
	}
	l.digest = hashOf(sum)
	return l, errors.Join(err, f.Close())
}

func hashOf(sum hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
}

func writeImages(tw *tar.Writer, list []fetched, cache blobCache) error {
	index, err := bakedIndex(list)
	if err != nil {
		return err
	}
	for _, e := range []*entry{
		{name: bakedDir, mode: 0o755, dir: true},
		{name: bakedDir + "/blobs", mode: 0o755, dir: true},
		{name: bakedDir + "/blobs/sha256", mode: 0o755, dir: true},
		{name: bakedDir + "/index.json", mode: 0o644, data: index},
		{name: bakedDir + "/oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	} {
		if err := writeEntry(tw, e); err != nil {
			return err
		}
	}
	blobs := map[string]oci.Blob{}
	for _, f := range list {
		for _, b := range append([]oci.Blob{f.Blob, f.Manifest}, f.Content...) {
			blobs[b.Digest] = b
		}
	}
	var digests []string
	for d := range blobs {
		digests = append(digests, d)
	}
	slices.Sort(digests)
	for _, d := range digests {
		if err := writeBlob(tw, blobs[d], cache); err != nil {
			return err
		}
	}
	return nil
}

func writeBlob(tw *tar.Writer, b oci.Blob, cache blobCache) error {
	path := cache.path(b.Digest)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: bakedDir + "/blobs/" + strings.Replace(b.Digest, ":", "/", 1), Mode: 0o644, Size: b.Size, ModTime: baseEpoch, Format: tar.FormatPAX}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(tw, sum), f); err != nil {
		return err
	}
	if hashOf(sum).String() != b.Digest {
		return fmt.Errorf("%s was damaged in the cache\nhint: remove it and build again", path)
	}
	return nil
}

// bakedIndex is the layout's index.json. An entry is what the reference names, of
// which the layout holds the part for one architecture.
func bakedIndex(list []fetched) ([]byte, error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, f := range list {
		h, err := v1.NewHash(f.Digest)
		if err != nil {
			return nil, err
		}
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType: types.MediaType(f.MediaType), Digest: h, Size: f.Size,
			Annotations: map[string]string{"org.opencontainers.image.ref.name": f.Name, "io.containerd.image.name": f.Name},
		})
	}
	return json.Marshal(index)
}

// fileLayer is an uncompressed layer in a file: a layer of images is too large
// for memory, and compressed already.
type fileLayer struct {
	path      string
	digest    v1.Hash
	size      int64
	mediaType types.MediaType
}

// Digest implements v1.Layer.
func (l *fileLayer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID implements v1.Layer.
func (l *fileLayer) DiffID() (v1.Hash, error) { return l.digest, nil }

// Compressed implements v1.Layer.
func (l *fileLayer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed implements v1.Layer.
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Size implements v1.Layer.
func (l *fileLayer) Size() (int64, error) { return l.size, nil }

// MediaType implements v1.Layer.
func (l *fileLayer) MediaType() (types.MediaType, error) { return l.mediaType, nil }
