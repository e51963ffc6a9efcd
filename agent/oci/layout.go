package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations that name an entry of a layout's index: the OCI image
// specification's, and the one that containerd and its tools go by.
const (
	refNameAnnotation   = "org.opencontainers.image.ref.name"
	imageNameAnnotation = "io.containerd.image.name"
)

// layoutSource reads an OCI image layout.
type layoutSource struct {
	ref  Ref
	path layout.Path
}

func (s *layoutSource) name() string { return string(s.path) }

func (s *layoutSource) root(ctx context.Context) ([]byte, types.MediaType, error) {
	raw, err := readFile(filepath.Join(string(s.path), "index.json"))
	if err != nil {
		return nil, "", err
	}
	d, whole, err := s.entry(raw)
	if err != nil {
		return nil, "", err
	}
	if whole {
		return raw, types.OCIImageIndex, nil
	}
	return s.document(ctx, d)
}

// document reads a manifest or an index, verified.
func (s *layoutSource) document(ctx context.Context, d v1.Descriptor) ([]byte, types.MediaType, error) {
	if d.Size > maxManifest {
		return nil, "", fmt.Errorf("%w: %d bytes", ErrTooLarge, d.Size)
	}
	rc, err := s.open(ctx, d)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(newVerifier(rc, d))
	return b, d.MediaType, errors.Join(err, rc.Close())
}

// entry finds the descriptor that the reference names; whole means that the
// layout's own index is the multi-platform index.
func (s *layoutSource) entry(raw []byte) (d v1.Descriptor, whole bool, err error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return d, false, fmt.Errorf("decode index.json: %w", err)
	}
	var names []string
	var images []v1.Descriptor
	for _, d := range index.Manifests {
		n := d.Annotations[refNameAnnotation]
		byDigest := s.ref.digest != (v1.Hash{}) && d.Digest == s.ref.digest
		byTag := s.ref.digest == (v1.Hash{}) && s.ref.tag != "" && (n == s.ref.tag || strings.HasSuffix(n, ":"+s.ref.tag))
		if byDigest || byTag {
			return d, false, nil
		}
		if IsSignatureTag(n) {
			continue
		}
		images = append(images, d)
		names = append(names, strings.TrimSpace(n+" "+d.Digest.String()))
	}
	switch {
	case s.ref.digest != (v1.Hash{}) || s.ref.tag != "":
		return d, false, fmt.Errorf("%w: the layout holds %q", ErrNotFound, names)
	case len(images) == 1:
		return images[0], false, nil
	}
	return d, true, nil
}

func (s *layoutSource) open(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := s.path.Blob(d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: blob %s: %w", ErrNotFound, d.Digest, err)
	}
	return rc, err
}

// bakedSource is the layout that the OS image carries, in which an image of a
// registry is found by its digest or else by its whole name.
type bakedSource struct{ *layoutSource }

func (bakedSource) expected() bool { return false }

func (s bakedSource) root(ctx context.Context) ([]byte, types.MediaType, error) {
	if s.ref.digest != (v1.Hash{}) {
		return s.byDigest(ctx)
	}
	raw, err := readFile(filepath.Join(string(s.path), "index.json"))
	if err != nil {
		return nil, "", err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, "", fmt.Errorf("decode index.json: %w", err)
	}
	for _, d := range index.Manifests {
		if d.Annotations[imageNameAnnotation] == s.ref.Name() {
			return s.document(ctx, d)
		}
	}
	return nil, "", fmt.Errorf("%w: nothing is called %s", ErrNotFound, s.ref.Name())
}

// byDigest finds an index, or a manifest inside of one.
func (s bakedSource) byDigest(ctx context.Context) ([]byte, types.MediaType, error) {
	rc, err := s.open(ctx, v1.Descriptor{Digest: s.ref.digest})
	if err != nil {
		return nil, "", err
	}
	raw, err := io.ReadAll(io.LimitReader(rc, maxManifest))
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, "", err
	}
	return raw, mediaTypeOf(raw), nil
}

// mediaTypeOf is what a manifest or an index says about itself.
func mediaTypeOf(raw []byte) types.MediaType {
	var head struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(raw, &head); {
	case err == nil && head.MediaType != "":
		return head.MediaType
	case err == nil && head.Manifests != nil:
		return types.OCIImageIndex
	}
	return types.OCIManifestSchema1
}

// Named is an image of a layout.
type Named struct {
	Name string // registry/repository:tag, or registry/repository@digest
	Image
}

// DefaultBaked is where the OS image carries images.
const DefaultBaked = "/usr/lib/kairos/images"

// ReadLayout lists the images of a layout that have a name, for one platform
// (GOARCH). A directory that is not there holds none. The error tells of those
// that cannot be read; the others are in the list all the same.
func ReadLayout(ctx context.Context, dir, arch string) ([]Named, error) {
	raw, err := readFile(filepath.Join(dir, "index.json"))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("read layout %s: decode index.json: %w", dir, err)
	}
	var out []Named
	var errs []error
	for _, d := range index.Manifests {
		n := Named{Name: d.Annotations[imageNameAnnotation]}
		if n.Name == "" {
			continue
		}
		ref := Ref{text: n.Name, dir: dir, digest: d.Digest}
		if n.Image, err = Resolve(ctx, ref, Options{Arch: arch, Attempts: 1}); err != nil {
			errs = append(errs, fmt.Errorf("read layout %s: %w", dir, err))
			continue
		}
		out = append(out, n)
	}
	return out, errors.Join(errs...)
}

// OpenBlob opens a blob of a layout. It is not verified.
func OpenBlob(dir, digest string) (*os.File, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, fmt.Errorf("open a blob: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, "blobs", h.Algorithm, h.Hex))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: blob %s", ErrNotFound, digest)
	}
	return f, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	return b, errors.Join(err, f.Close())
}
