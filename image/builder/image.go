package builder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kairos-io/kairos/image/signature"
)

// part is a layer with the words that `history` commands show for it.
type part struct {
	layer v1.Layer
	by    string
}

// assemble stacks the parts, lowest first.
func assemble(d describe, parts ...part) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	created := v1.Time{Time: d.created.UTC()}
	var adds []mutate.Addendum
	for _, p := range parts {
		adds = append(adds, mutate.Addendum{Layer: p.layer, History: v1.History{Created: created, CreatedBy: p.by}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	cf = cf.DeepCopy()
	cf.Created, cf.OS, cf.Architecture = created, "linux", d.arch
	cf.Config = d.config
	cf.Config.Labels = d.labels()
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	annotated, ok := mutate.Annotations(img, d.labels()).(v1.Image)
	if !ok {
		return nil, errors.New("assemble image: annotations made something else of it")
	}
	return annotated, nil
}

// writeLayout puts an image, or an index of several, into the OCI layout dir as WriteLayout does.
func writeLayout(dir, ref string, images ...v1.Image) (v1.Hash, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		cf, err := img.ConfigFile()
		if err != nil {
			return v1.Hash{}, fmt.Errorf("write layout: %w", err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: cf.OS, Architecture: cf.Architecture},
		}})
	}
	var top mutate.Appendable = index
	if len(images) == 1 {
		top = images[0]
	}
	return WriteLayout(dir, ref, top)
}

// WriteLayout makes dir an OCI layout that holds one image or index under the
// name ref, and returns its digest. A layout that is there is replaced; any
// other non-empty directory is refused.
func WriteLayout(dir, ref string, top mutate.Appendable) (v1.Hash, error) {
	outer := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add:        top,
		Descriptor: v1.Descriptor{Annotations: map[string]string{"org.opencontainers.image.ref.name": ref}},
	})
	digest, err := top.Digest()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("write layout: %w", err)
	}
	if err := replaceDir(dir, func(tmp string) error {
		_, err := layout.Write(tmp, outer)
		return err
	}); err != nil {
		return v1.Hash{}, fmt.Errorf("write layout: %w", err)
	}
	return digest, nil
}

// replaceDir lets fill write a directory beside dir and then puts it in dir's
// place, so that nobody meets half a layout.
func replaceDir(dir string, fill func(tmp string) error) error {
	dir = filepath.Clean(dir)
	names, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil && len(names) > 0 {
		return fmt.Errorf("%s is not empty and not an OCI layout\nhint: give another directory with --out", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := errors.Join(os.Chmod(tmp, 0o755), fill(tmp)); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// Image returns the container image for arch that a layout holds.
func Image(dir, arch string) (v1.Image, error) {
	path, err := layout.FromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("open layout %s: %w", dir, err)
	}
	desc, err := findImage(path, arch)
	if err != nil {
		return nil, fmt.Errorf("read layout %s: %w", dir, err)
	}
	image, err := path.Image(desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("read layout %s: %w", dir, err)
	}
	return image, nil
}

// Digest returns the digest of the one image, or index of images, in a layout.
func Digest(dir string) (string, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return "", fmt.Errorf("open layout %s: %w", dir, err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return "", fmt.Errorf("read layout %s: %w", dir, err)
	}
	image, err := signature.Only(m.Manifests)
	if err != nil {
		return "", fmt.Errorf("read layout %s: %w", dir, err)
	}
	return image.Digest.String(), nil
}
