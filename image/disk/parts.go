package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/signature"
	"github.com/kairos-io/kairos/image/slots"
)

// parts are the blobs of a release in a layout of this machine.
type parts struct {
	digest            v1.Hash // of the release's index
	config            release.Config
	root, verity, uki string // paths
}

// openRelease finds and checks the release for an architecture.
func openRelease(dir, arch string) (parts, error) {
	p, err := readRelease(layout.Path(dir), arch)
	if err != nil {
		return parts{}, fmt.Errorf("read release %s: %w", dir, err)
	}
	return p, nil
}

func readRelease(path layout.Path, arch string) (parts, error) {
	outer, err := path.ImageIndex()
	if err != nil {
		return parts{}, fmt.Errorf("open layout: %w", err)
	}
	list, err := outer.IndexManifest()
	if err != nil {
		return parts{}, err
	}
	images := signature.Images(list.Manifests)
	if len(images) != 1 || !images[0].MediaType.IsIndex() {
		return parts{}, errors.New("the layout does not hold one release\nhint: make it with `image release`")
	}
	p := parts{digest: images[0].Digest}
	index, err := path.Bytes(p.digest)
	if err != nil {
		return parts{}, err
	}
	desc, err := release.Select(index, arch)
	if err != nil {
		return parts{}, err
	}
	raw, err := path.Bytes(desc.Digest)
	if err != nil {
		return parts{}, err
	}
	manifest, err := release.ParseManifest(raw)
	if err != nil {
		return parts{}, err
	}
	if raw, err = path.Bytes(manifest.Config.Digest); err != nil {
		return parts{}, err
	}
	if p.config, err = release.ParseConfig(raw); err != nil {
		return parts{}, err
	}
	blob := func(d v1.Descriptor) string {
		return filepath.Join(string(path), "blobs", d.Digest.Algorithm, d.Digest.Hex)
	}
	p.root, p.verity, p.uki = blob(manifest.Root), blob(manifest.Verity), blob(manifest.UKI)
	return p, nil
}

// derivedUUID is a version 8 UUID (RFC 9562) that follows from text.
func derivedUUID(text string) string {
	sum := sha256.Sum256([]byte("kairos " + text))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return slots.UUID(sum[:16]).String()
}

// firstGeneration is the generation of the system that a medium is made with.
const firstGeneration = 1

// records is the ESP's note of what is in slot A.
func (p parts) records() ([]byte, error) {
	return slots.EncodeRecords(slots.Records{A: &slots.Record{
		Digest: p.digest.String(), Version: p.config.Version, Created: p.config.Created, Flavour: p.config.Flavour, K3s: p.config.K3s,
		RootHash: p.config.RootHash, Generation: firstGeneration,
	}})
}
