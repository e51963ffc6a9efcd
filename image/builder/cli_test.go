package builder

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// maxCLI bounds what somebody downloads to get a kubeconfig, in bytes.
const maxCLI = 40 << 20

// The image itself, as people pull it: one index for both architectures, small,
// and its bill of materials lists what is linked in.
func TestTheCLIImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice; not with -short")
	}
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	source := testSource
	source.Dir = dir
	out := filepath.Join(t.TempDir(), "cli")
	if _, err := CLIImage(context.Background(), CLIOptions{Out: out, Archs: []string{"amd64", "arm64"}, Source: source}); err != nil {
		t.Fatal(err)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		m, err := findManifest(layout.Path(out), arch)
		if err != nil {
			t.Fatal(err)
		}
		size := m.Config.Size
		for _, l := range m.Layers {
			size += l.Size
		}
		t.Logf("RESULT the CLI image for %s is %.1f MB to download", arch, float64(size)/(1<<20))
		if size > maxCLI {
			t.Errorf("%s: %d MB to download, at most %d: see `go tool nm -size -sort size`", arch, size>>20, maxCLI>>20)
		}
		raw, err := os.ReadFile(out + "." + arch + ".spdx.json")
		if err != nil {
			t.Fatal(err)
		}
		checkModules(t, raw)
		checkProgram(t, source, arch, machine)
	}
}

func checkModules(t *testing.T, bill []byte) {
	t.Helper()
	have := purls(readBill(t, bill))
	for _, module := range []string{"pkg:golang/stdlib@1.", "pkg:golang/github.com/libp2p/go-libp2p@v", "pkg:golang/github.com/spf13/cobra@v"} {
		found := false
		for p := range have {
			found = found || strings.HasPrefix(p, module)
		}
		if !found {
			t.Errorf("%s is not among %d packages", module, len(have))
		}
	}
}

// checkProgram builds the program once more, which the cache makes quick: it is
// for the architecture that it says, needs no libraries, and knows no place.
func checkProgram(t *testing.T, source Source, arch string, machine elf.Machine) {
	t.Helper()
	data, err := GoBuild(context.Background(), source, CLI, arch)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := f.ImportedLibraries()
	if f.Machine != machine || len(libraries) > 0 || f.Section(".symtab") != nil {
		t.Errorf("%s: for %s, libraries %v (%v), symbols %v", arch, f.Machine, libraries, err, f.Section(".symtab") != nil)
	}
	if bytes.Contains(data, []byte(source.Dir)) {
		t.Errorf("%s: the program knows where it was built", arch)
	}
}
