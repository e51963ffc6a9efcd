package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/signature"
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

// partitionIDs are the UUIDs by which systemd-veritysetup-generator finds the
// partitions of a root hash: its first and its last 128 bits.
func partitionIDs(rootHash string) (root, verity string) {
	return uuid(rootHash[:32]), uuid(rootHash[32:])
}

// uuid writes 32 hexadecimal digits in the form of a UUID.
func uuid(digits string) string {
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:32]
}

// derivedUUID is a version 8 UUID (RFC 9562) that follows from text.
func derivedUUID(text string) string {
	sum := sha256.Sum256([]byte("kairos " + text))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return uuid(hex.EncodeToString(sum[:16]))
}

// slot is what a machine's ESP says of an OS in one of its slots.
type slot struct {
	Image      string `json:"image,omitempty"`
	Digest     string `json:"digest"`
	Version    string `json:"version"`
	RootHash   string `json:"root_hash"`
	Generation int    `json:"generation"`
}

// firstGeneration is the generation of the OS that a disk is made with.
const firstGeneration = 1

func slotsFile(p parts) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	err := enc.Encode(map[string]any{"slots": map[string]slot{
		"a": {Digest: p.digest.String(), Version: p.config.Version, RootHash: p.config.RootHash, Generation: firstGeneration},
	}})
	return b.Bytes(), err
}

// definitions writes the partition definitions of the OS image into dir, those
// named in extra only, each with more lines.
func definitions(from, dir string, extra map[string]string) error {
	for name, lines := range extra {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("read partition definitions: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), append(text, lines...), 0o644); err != nil {
			return fmt.Errorf("write partition definitions: %w", err)
		}
	}
	return nil
}
