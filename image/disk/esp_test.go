package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/image/release"
)

// A configuration lies where the first start, and the installer, look for one; and what
// holds it is nobody else's to read.
func TestConfigOnTheESP(t *testing.T) {
	for name, text := range map[string][]byte{"none": nil, "one": []byte("#cloud-config\n# secret\n")} {
		t.Run(name, func(t *testing.T) {
			m := &medium{dir: t.TempDir(), arch: arches["amd64"], config: text}
			m.parts.config = release.Config{Version: "v1", Arch: "amd64", RootHash: strings.Repeat("ab", 32)}
			for _, file := range []string{"image/systemd-boot.efi", "uki.efi", "medium"} {
				put(t, m.path(file), "x")
			}
			if err := m.esp(nil); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(m.path("esp/config.yaml"))
			if (err == nil) != (text != nil) || string(got) != string(text) {
				t.Errorf("the ESP has %q, %v", got, err)
			}
			out := filepath.Join(t.TempDir(), "kairos.raw")
			if err := m.finish(t.Context(), out); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(out)
			if want := map[bool]os.FileMode{true: 0o600, false: 0o644}[text != nil]; err != nil || st.Mode().Perm() != want {
				t.Errorf("the medium has %v, %v", st.Mode(), err)
			}
		})
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
