package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Source is what a release for one architecture is made of: the container image
// and the files of the parts.
type Source struct {
	Config                  Config
	Container               v1.Image
	Root, Verity, UKI, SBOM string // paths
}

// Index puts releases together, one for each architecture. The files are read
// once here, for their digests, and again when the index is written; they are
// never in memory as a whole and must not change in between. What Index returns
// passes this package's own checks.
func Index(sources ...Source) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var artifacts []mutate.IndexAddendum
	for _, s := range sources {
		if s.Container == nil {
			return nil, fmt.Errorf("assemble release for %s: it has no container image", s.Config.Arch)
		}
		a, err := newArtifact(s)
		if err != nil {
			return nil, fmt.Errorf("assemble release for %s: %w", s.Config.Arch, err)
		}
		img, err := partial.CompressedToImage(a)
		if err != nil {
			return nil, fmt.Errorf("assemble release for %s: %w", s.Config.Arch, err)
		}
		artifacts = append(artifacts, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			ArtifactType: ArtifactType, Platform: &v1.Platform{OS: OS, Architecture: s.Config.Arch},
		}})
		// Container images come first, for engines that take the first entry when they know no better.
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: s.Container, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: s.Config.Arch},
		}})
	}
	index = mutate.AppendManifests(index, artifacts...)
	raw, err := index.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("assemble release: %w", err)
	}
	for _, s := range sources {
		if _, err := Select(raw, s.Config.Arch); err != nil {
			return nil, fmt.Errorf("assemble release for %s: %w", s.Config.Arch, err)
		}
	}
	return index, nil
}

// artifact is a release manifest with its blobs; partial makes a v1.Image of it.
type artifact struct {
	config, manifest []byte
	blobs            map[v1.Hash]fileBlob
}

func newArtifact(s Source) (*artifact, error) {
	if err := s.Config.Validate(); err != nil {
		return nil, err
	}
	config, err := json.Marshal(s.Config)
	if err != nil {
		return nil, err
	}
	sum, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: ArtifactType,
		Config: v1.Descriptor{MediaType: ConfigType, Digest: sum, Size: size},
		Annotations: map[string]string{
			"org.opencontainers.image.version": s.Config.Version,
		},
	}
	if s.Config.Revision != "" {
		m.Annotations["org.opencontainers.image.revision"] = s.Config.Revision
	}
	a := &artifact{config: config, blobs: map[v1.Hash]fileBlob{}}
	for i, path := range []string{s.Root, s.Verity, s.UKI, s.SBOM} {
		b, err := newFileBlob(path, parts[i].typ)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", parts[i].name, err)
		}
		a.blobs[b.desc.Digest] = b
		m.Layers = append(m.Layers, b.desc)
	}
	if a.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	_, err = ParseManifest(a.manifest)
	return a, err
}

// RawConfigFile implements partial.ImageCore.
func (a *artifact) RawConfigFile() ([]byte, error) { return a.config, nil }

// MediaType implements partial.ImageCore.
func (a *artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest implements partial.CompressedImageCore.
func (a *artifact) RawManifest() ([]byte, error) { return a.manifest, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (a *artifact) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	b, ok := a.blobs[h]
	if !ok {
		return nil, fmt.Errorf("%s is not a part of the release", h)
	}
	return b, nil
}

// fileBlob is a part as it lies on disk: its bytes are the blob.
type fileBlob struct {
	path string
	desc v1.Descriptor
}

func newFileBlob(path string, mt types.MediaType) (fileBlob, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileBlob{}, err
	}
	sum, size, err := v1.SHA256(f)
	return fileBlob{path, v1.Descriptor{MediaType: mt, Digest: sum, Size: size}}, errors.Join(err, f.Close())
}

// Digest implements partial.CompressedLayer.
func (b fileBlob) Digest() (v1.Hash, error) { return b.desc.Digest, nil }

// Size implements partial.CompressedLayer.
func (b fileBlob) Size() (int64, error) { return b.desc.Size, nil }

// MediaType implements partial.CompressedLayer.
func (b fileBlob) MediaType() (types.MediaType, error) { return b.desc.MediaType, nil }

// DiffID implements partial.WithDiffID: parts are not compressed.
func (b fileBlob) DiffID() (v1.Hash, error) { return b.desc.Digest, nil }

// Compressed implements partial.CompressedLayer: the file as it is, which fails
// at its end when it is not what it was when Index read it.
func (b fileBlob) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(b.path)
	if err != nil {
		return nil, err
	}
	return &sameFile{File: f, want: b.desc, sum: newSum()}, nil
}
