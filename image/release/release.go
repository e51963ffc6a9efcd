package release

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types.
const (
	ArtifactType = "application/vnd.kairos.os.release.v1"
	ConfigType   = "application/vnd.kairos.os.release.config.v1+json"
	RootType     = "application/vnd.kairos.os.root.v1"
	VerityType   = "application/vnd.kairos.os.verity.v1"
	UKIType      = "application/vnd.kairos.os.uki.v1"
	SBOMType     = "application/spdx+json"
)

// OS is the operating system in the platform of a release manifest.
const OS = "kairos"

// Sizes of a machine's partitions in bytes, which bound what a release may hold.
const (
	ESPSize    = 1 << 30
	RootSize   = 3 << 30
	VeritySize = 32 << 20
)

// Limits of documents and of the blobs that do not fill a partition, in bytes.
const (
	MaxIndex    = 1 << 20
	MaxManifest = 64 << 10
	MaxConfig   = 16 << 10
	MaxUKI      = 320 << 20 // the ESP holds two, and one more while it is written
	MaxSBOM     = 64 << 20
	maxEntries  = 64 // of an index
)

// BlockSize is the block of dm-verity in bytes: root and hash tree are whole blocks.
const BlockSize = 4096

// ErrInvalid marks a document that is not a release, or one that no machine could hold.
var ErrInvalid = errors.New("not a valid release")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Arches are the architectures that a release can be made for, by Go's names.
var Arches = []string{"amd64", "arm64"}

// Config says what a release is. One that this package returns is valid: its
// texts are plain enough for file names and terminals.
type Config struct {
	Version  string `json:"version"`            // "v1.2.3", or what git describe says
	Arch     string `json:"arch"`               // one of Arches
	Flavour  string `json:"flavour"`            // "generic" or "cloud": which kernel
	Revision string `json:"revision,omitempty"` // commit that it was built from
	K3s      string `json:"k3s,omitempty"`      // image of the k3s that it starts where nothing else is configured
	RootHash string `json:"root_hash"`          // of the dm-verity tree: 64 lower-case hexadecimal digits
	// Created is the commit's time, as in the container image. Compared among
	// releases only, and never with a machine's clock.
	Created time.Time `json:"created,omitzero"`
}

// ParseConfig reads a release's configuration. Unknown keys are passed over:
// a machine must be able to upgrade to a version that has more to say.
func ParseConfig(raw []byte) (Config, error) {
	if len(raw) > MaxConfig {
		return Config{}, invalid("a configuration of %d bytes, at most %d are read", len(raw), MaxConfig)
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return Config{}, invalid("decode its configuration: %s", shorten(err.Error()))
	}
	return c, c.Validate()
}

// Validate tells the first thing that is wrong with c.
func (c Config) Validate() error {
	for _, t := range []struct {
		name, value, more string
		limit             int
	}{
		{"version", c.Version, ".+~_-", 128},
		{"flavour", c.Flavour, "-", 32},
		{"revision", c.Revision, ".+~_-", 128},
		{"k3s", c.K3s, ".+~_-/:@", 512},
	} {
		if t.value == "" && t.name != "revision" && t.name != "k3s" {
			return invalid("it has no %s", t.name)
		}
		if len(t.value) > t.limit || strings.ContainsFunc(t.value, func(r rune) bool { return !plain(r, t.more) }) {
			return invalid("its %s %q is not made of at most %d letters, digits and %s", t.name, shorten(t.value), t.limit, t.more)
		}
	}
	if !slices.Contains(Arches, c.Arch) {
		return invalid("its architecture %q is not one of %s", shorten(c.Arch), strings.Join(Arches, ", "))
	}
	if b, err := hex.DecodeString(c.RootHash); err != nil || len(b) != 32 || strings.ToLower(c.RootHash) != c.RootHash {
		return invalid("its root hash %q is not 64 lower-case hexadecimal digits", shorten(c.RootHash))
	}
	return nil
}

// plain reports whether r is an ASCII letter, a digit or one of more.
func plain(r rune, more string) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(more, r)
}

// Manifest is a release manifest that was checked: one blob for each part, all
// named by SHA-256 and small enough for their places.
type Manifest struct {
	Config, Root, Verity, UKI, SBOM v1.Descriptor
}

// Total returns the size of all parts together, in bytes.
func (m Manifest) Total() int64 {
	var n int64
	for _, d := range []v1.Descriptor{m.Config, m.Root, m.Verity, m.UKI, m.SBOM} {
		n += d.Size
	}
	return n
}

// part says what a layer must be, by its place in the manifest.
type part struct {
	name   string
	typ    types.MediaType
	limit  int64 // bytes
	blocks bool  // whole blocks of dm-verity
}

var parts = []part{
	{"root", RootType, RootSize, true},
	{"verity", VerityType, VeritySize, true},
	{"uki", UKIType, MaxUKI, false},
	{"sbom", SBOMType, MaxSBOM, false},
}

// ParseManifest reads and checks a release manifest.
func ParseManifest(raw []byte) (Manifest, error) {
	if len(raw) > MaxManifest {
		return Manifest{}, invalid("a manifest of %d bytes, at most %d are read", len(raw), MaxManifest)
	}
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return Manifest{}, invalid("decode its manifest: %s", shorten(err.Error()))
	}
	switch {
	case m.SchemaVersion != 2:
		return Manifest{}, invalid("its manifest has schema version %d, want 2", m.SchemaVersion)
	case m.MediaType != "" && m.MediaType != types.OCIManifestSchema1:
		return Manifest{}, invalid("its manifest is of type %q, want %s", shorten(string(m.MediaType)), types.OCIManifestSchema1)
	case m.ArtifactType != ArtifactType:
		return Manifest{}, invalid("it is an artifact of type %q, want %s", shorten(m.ArtifactType), ArtifactType)
	case len(m.Layers) != len(parts):
		return Manifest{}, invalid("it has %d layers, want %d: root, verity, uki, sbom", len(m.Layers), len(parts))
	}
	if err := checkBlob(m.Config, part{"configuration", ConfigType, MaxConfig, false}); err != nil {
		return Manifest{}, err
	}
	for i, p := range parts {
		if err := checkBlob(m.Layers[i], p); err != nil {
			return Manifest{}, err
		}
	}
	out := Manifest{m.Config, m.Layers[0], m.Layers[1], m.Layers[2], m.Layers[3]}
	if err := checkTree(out.Root.Size, out.Verity.Size); err != nil {
		return Manifest{}, err
	}
	return out, nil
}

func checkBlob(d v1.Descriptor, want part) error {
	switch {
	case d.MediaType != want.typ:
		return invalid("its %s is of type %q, want %s", want.name, shorten(string(d.MediaType)), want.typ)
	case d.Digest.Algorithm != "sha256":
		return invalid("its %s is named by %q, want sha256", want.name, shorten(d.Digest.Algorithm))
	case len(d.URLs) > 0:
		return invalid("its %s is said to be elsewhere (urls)", want.name)
	case d.Size <= 0:
		return invalid("its %s has a size of %d bytes", want.name, d.Size)
	case d.Size > want.limit:
		return invalid("its %s of %d bytes is larger than its place, %d bytes", want.name, d.Size, want.limit)
	case want.blocks && d.Size%BlockSize != 0:
		return invalid("its %s of %d bytes is not whole blocks of %d", want.name, d.Size, BlockSize)
	}
	return nil
}

// checkTree compares the hash tree with the size that the root's number of
// blocks asks for: each block of the tree holds 128 SHA-256 sums of the level
// below it, and a superblock comes first (Linux, device-mapper/verity.rst).
func checkTree(root, verity int64) error {
	const sums = BlockSize / 32
	want := int64(1)
	for n := root / BlockSize; n > 1; {
		n = (n + sums - 1) / sums
		want += n
	}
	if got := verity / BlockSize; got < want {
		return invalid("its hash tree has %d blocks, a root of %d bytes needs %d", got, root, want)
	}
	return nil
}

// Select returns the release manifest for arch that an index names. The error
// says what there is instead.
func Select(raw []byte, arch string) (v1.Descriptor, error) {
	if len(raw) > MaxIndex {
		return v1.Descriptor{}, invalid("an index of %d bytes, at most %d are read", len(raw), MaxIndex)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return v1.Descriptor{}, invalid("decode its index: %s", shorten(err.Error()))
	}
	switch {
	case index.MediaType != "" && index.MediaType != types.OCIImageIndex:
		return v1.Descriptor{}, invalid("it is of type %q, want %s", shorten(string(index.MediaType)), types.OCIImageIndex)
	case index.SchemaVersion != 2:
		return v1.Descriptor{}, invalid("its index has schema version %d, want 2", index.SchemaVersion)
	case len(index.Manifests) > maxEntries:
		return v1.Descriptor{}, invalid("its index has %d entries, at most %d are read", len(index.Manifests), maxEntries)
	}
	var found []v1.Descriptor
	var have []string
	inner := 0
	for _, d := range index.Manifests {
		if d.ArtifactType != ArtifactType {
			if d.MediaType.IsIndex() {
				inner++
			}
			continue
		}
		if d.Platform == nil || d.Platform.OS != OS {
			return v1.Descriptor{}, invalid("its release manifest %s has no platform of %s", d.Digest, OS)
		}
		if d.Platform.Architecture == arch {
			found = append(found, d)
		}
		have = append(have, shorten(d.Platform.Architecture))
	}
	switch {
	case len(have) == 0 && inner > 0:
		return v1.Descriptor{}, invalid("it names %d indexes: add the tag or the digest of one", inner)
	case len(have) == 0:
		return v1.Descriptor{}, invalid("it is an image without a release manifest, which cannot be put on a disk")
	case len(found) == 0:
		return v1.Descriptor{}, invalid("it is not for %s machines but for %q", arch, have)
	case len(found) > 1:
		return v1.Descriptor{}, invalid("it names %d release manifests for %s", len(found), arch)
	}
	return found[0], checkBlob(found[0], part{"release manifest", types.OCIManifestSchema1, MaxManifest, false})
}

// shorten keeps a stranger's text from filling or steering a terminal.
func shorten(s string) string {
	const limit = 80
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "..."
	}
	return s
}
