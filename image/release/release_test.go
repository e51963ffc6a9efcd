package release

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func goodConfig() Config {
	return Config{Version: "v1.2.3-4-gabc", Arch: "amd64", Flavour: "generic", Revision: "0123abc", RootHash: strings.Repeat("0f", 32),
		Created: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
}

func sum(c string) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(c, 64)}
}

func goodManifest() v1.Manifest {
	return v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: ArtifactType,
		Config: v1.Descriptor{MediaType: ConfigType, Digest: sum("0"), Size: 200},
		Layers: []v1.Descriptor{
			{MediaType: RootType, Digest: sum("1"), Size: 1 << 30},
			{MediaType: VerityType, Digest: sum("2"), Size: 9 << 20},
			{MediaType: UKIType, Digest: sum("3"), Size: 100 << 20},
			{MediaType: SBOMType, Digest: sum("4"), Size: 1 << 20},
		}}
}

func goodIndex() v1.IndexManifest {
	entry := func(c, os, arch, artifact string) v1.Descriptor {
		return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: sum(c), Size: 1000, ArtifactType: artifact,
			Platform: &v1.Platform{OS: os, Architecture: arch}}
	}
	return v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		entry("a", "linux", "amd64", ""), entry("b", "linux", "arm64", ""),
		entry("c", OS, "amd64", ArtifactType), entry("d", OS, "arm64", ArtifactType),
	}}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// refused checks that err is ErrInvalid and says want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig(encode(t, goodConfig()))
	if err != nil || c != goodConfig() {
		t.Errorf("got %+v, %v", c, err)
	}
	// A later version may have more to say, and a build outside of git knows no revision.
	raw := `{"version":"v2","arch":"arm64","flavour":"cloud","root_hash":"` + strings.Repeat("a", 64) + `","channel":"beta"}`
	if c, err := ParseConfig([]byte(raw)); err != nil || c.Version != "v2" || c.Arch != "arm64" {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no version", func(c *Config) { c.Version = "" }, "has no version"},
		{"version that is a path", func(c *Config) { c.Version = "../../etc" }, "its version"},
		{"version that steers a terminal", func(c *Config) { c.Version = "v1\x1b[2J" }, `"v1?[2J"`},
		{"version of a page", func(c *Config) { c.Version = strings.Repeat("1", 129) }, "its version"},
		{"version of other letters", func(c *Config) { c.Version = "v１" }, "its version"},
		{"no flavour", func(c *Config) { c.Flavour = "" }, "has no flavour"},
		{"flavour with a space", func(c *Config) { c.Flavour = "gen eric" }, "its flavour"},
		{"revision with a line break", func(c *Config) { c.Revision = "abc\n" }, "its revision"},
		{"no architecture", func(c *Config) { c.Arch = "" }, `its architecture "" is not one of amd64, arm64`},
		{"architecture by another name", func(c *Config) { c.Arch = "x86_64" }, "its architecture"},
		{"no root hash", func(c *Config) { c.RootHash = "" }, "its root hash"},
		{"short root hash", func(c *Config) { c.RootHash = c.RootHash[2:] }, "its root hash"},
		{"long root hash", func(c *Config) { c.RootHash += "00" }, "its root hash"},
		{"root hash in capitals", func(c *Config) { c.RootHash = strings.ToUpper(c.RootHash) }, "its root hash"},
		{"root hash of no digits", func(c *Config) { c.RootHash = strings.Repeat("g", 64) }, "its root hash"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := goodConfig()
			tc.edit(&c)
			_, err := ParseConfig(encode(t, c))
			refused(t, err, tc.want)
		})
	}
	for name, raw := range map[string]string{"nothing": "", "a page": "<html>", "a list": "[]", "a number for a text": `{"version":1}`,
		"more than is read": `{"version":"` + strings.Repeat("x", MaxConfig) + `"}`} {
		if _, err := ParseConfig([]byte(raw)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest(encode(t, goodManifest()))
	if err != nil || m.Root.Digest != sum("1") || m.SBOM.Digest != sum("4") {
		t.Fatalf("got %+v, %v", m, err)
	}
	if want := int64(200 + 1<<30 + 9<<20 + 100<<20 + 1<<20); m.Total() != want {
		t.Errorf("%d bytes, want %d", m.Total(), want)
	}
	for _, tc := range []struct {
		name string
		edit func(*v1.Manifest)
		want string
	}{
		{"another schema", func(m *v1.Manifest) { m.SchemaVersion = 1 }, "schema version 1"},
		{"an index", func(m *v1.Manifest) { m.MediaType = types.OCIImageIndex }, "its manifest is of type"},
		{"a container image", func(m *v1.Manifest) { m.ArtifactType = "" }, `artifact of type ""`},
		{"another artifact", func(m *v1.Manifest) { m.ArtifactType = "application/x" }, "artifact of type"},
		{"no layers", func(m *v1.Manifest) { m.Layers = nil }, "0 layers, want 4"},
		{"a layer less", func(m *v1.Manifest) { m.Layers = m.Layers[:3] }, "3 layers, want 4"},
		{"a layer twice", func(m *v1.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }, "5 layers, want 4"},
		{"another order", func(m *v1.Manifest) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] }, "its root is of type"},
		{"a compressed layer", func(m *v1.Manifest) { m.Layers[0].MediaType = types.OCILayer }, "its root is of type"},
		{"no configuration", func(m *v1.Manifest) { m.Config = v1.Descriptor{} }, "decode its manifest"},
		{"configuration of an image", func(m *v1.Manifest) { m.Config.MediaType = types.OCIConfigJSON }, "its configuration is of type"},
		{"large configuration", func(m *v1.Manifest) { m.Config.Size = MaxConfig + 1 }, "its configuration of"},
		{"root larger than its partition", func(m *v1.Manifest) { m.Layers[0].Size = RootSize + BlockSize }, "its root of"},
		{"root of half a block", func(m *v1.Manifest) { m.Layers[0].Size-- }, "not whole blocks"},
		{"empty root", func(m *v1.Manifest) { m.Layers[0].Size = 0 }, "a size of 0 bytes"},
		{"root of less than nothing", func(m *v1.Manifest) { m.Layers[0].Size = -4096 }, "a size of -4096 bytes"},
		{"hash tree larger than its partition", func(m *v1.Manifest) { m.Layers[1].Size = VeritySize + BlockSize }, "its verity of"},
		{"hash tree too small for the root", func(m *v1.Manifest) { m.Layers[1].Size = 1 << 20 }, "its hash tree has"},
		{"kernel too large", func(m *v1.Manifest) { m.Layers[2].Size = MaxUKI + 1 }, "its uki of"},
		{"list of parts too large", func(m *v1.Manifest) { m.Layers[3].Size = MaxSBOM + 1 }, "its sbom of"},
		{"another hash", func(m *v1.Manifest) {
			m.Layers[0].Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("0", 128)}
		}, `its root is named by "sha512"`},
		{"a layer from elsewhere", func(m *v1.Manifest) { m.Layers[0].URLs = []string{"https://example.org/x"} }, "said to be elsewhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := goodManifest()
			tc.edit(&m)
			_, err := ParseManifest(encode(t, m))
			refused(t, err, tc.want)
		})
	}
	for name, raw := range map[string]string{"nothing": "", "a page": "<html>", "a digest of no kind": `{"config":{"digest":"../../x"}}`,
		"more than is read": strings.Repeat(" ", MaxManifest) + "{}"} {
		if _, err := ParseManifest([]byte(raw)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSelect(t *testing.T) {
	for arch, want := range map[string]v1.Hash{"amd64": sum("c"), "arm64": sum("d")} {
		if d, err := Select(encode(t, goodIndex()), arch); err != nil || d.Digest != want {
			t.Errorf("%s: %s, %v", arch, d.Digest, err)
		}
	}
	for _, tc := range []struct {
		name string
		edit func(*v1.IndexManifest)
		want string
	}{
		{"for other machines", func(x *v1.IndexManifest) { x.Manifests = x.Manifests[3:] }, `not for amd64 machines but for ["arm64"]`},
		{"a container image only", func(x *v1.IndexManifest) { x.Manifests = x.Manifests[:2] }, "without a release manifest"},
		{"a layout of several", func(x *v1.IndexManifest) {
			x.Manifests = x.Manifests[:2]
			x.Manifests[0].MediaType, x.Manifests[1].MediaType = types.OCIImageIndex, types.OCIImageIndex
		}, "it names 2 indexes: add the tag"},
		{"nothing", func(x *v1.IndexManifest) { x.Manifests = nil }, "without a release manifest"},
		{"two for one architecture", func(x *v1.IndexManifest) { x.Manifests = append(x.Manifests, x.Manifests[2]) }, "2 release manifests for amd64"},
		{"no platform", func(x *v1.IndexManifest) { x.Manifests[2].Platform = nil }, "has no platform of kairos"},
		{"platform of containers", func(x *v1.IndexManifest) { x.Manifests[2].Platform.OS = "linux" }, "has no platform of kairos"},
		{"a manifest for lists", func(x *v1.IndexManifest) { x.MediaType = types.DockerManifestList }, "it is of type"},
		{"a manifest", func(x *v1.IndexManifest) { x.MediaType = types.OCIManifestSchema1 }, "it is of type"},
		{"another schema", func(x *v1.IndexManifest) { x.SchemaVersion = 0 }, "schema version 0"},
		{"too many entries", func(x *v1.IndexManifest) { x.Manifests = make([]v1.Descriptor, maxEntries+1) }, "65 entries"},
		{"a large manifest", func(x *v1.IndexManifest) { x.Manifests[2].Size = MaxManifest + 1 }, "its release manifest of"},
		{"an index as the manifest", func(x *v1.IndexManifest) { x.Manifests[2].MediaType = types.OCIImageIndex }, "its release manifest is of type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := goodIndex()
			tc.edit(&x)
			for i := range x.Manifests { // what cannot be encoded is not what is tested
				if x.Manifests[i].Digest == (v1.Hash{}) {
					x.Manifests[i].Digest = sum("e")
				}
			}
			_, err := Select(encode(t, x), "amd64")
			refused(t, err, tc.want)
		})
	}
}

// Whatever a registry says, what is taken fits a machine's disk.
func FuzzParseManifest(f *testing.F) {
	raw, err := json.Marshal(goodManifest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseManifest(raw)
		if err == nil && (m.Total() <= 0 || m.Total() > RootSize+VeritySize+MaxUKI+MaxSBOM+MaxConfig) {
			t.Errorf("%d bytes were taken", m.Total())
		}
	})
}
