package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kairos-io/kairos/image/install"
	"github.com/kairos-io/kairos/image/release"
)

func TestOverlay(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(from, "usr/lib/new"), 0o755),
		os.WriteFile(filepath.Join(from, "usr/lib/new/file"), []byte("new"), 0o755),
		os.WriteFile(filepath.Join(from, "usr/lib/old"), []byte("changed"), 0o644),
		os.Symlink("file", filepath.Join(from, "usr/lib/link")),
		os.MkdirAll(filepath.Join(to, "usr/lib"), 0o700),
		os.WriteFile(outside, []byte("mine"), 0o644),
		// A link of the image must not lead a file of ours out of it.
		os.Symlink(outside, filepath.Join(to, "usr/lib/old")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := overlay(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"usr/lib/new/file": "new", "usr/lib/old": "changed", "usr/lib/link": ""} {
		got, err := os.ReadFile(filepath.Join(to, name))
		if name != "usr/lib/link" && (err != nil || string(got) != want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "usr/lib/link")); err != nil || target != "file" {
		t.Errorf("link: %q, %v", target, err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "mine" {
		t.Errorf("outside: %q, %v", got, err)
	}
	if st, err := os.Stat(filepath.Join(to, "usr/lib")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode of a directory that was there: %v, %v", st, err)
	}
}

func TestOverlayRefuses(t *testing.T) {
	from := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(from, "var")); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := os.MkdirAll(filepath.Join(to, "var", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := overlay(from, to); err == nil || !strings.Contains(err.Error(), "add extra file var") {
		t.Errorf("a link in the place of a directory: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	// The last console is where a failed start says why: hardware may have no serial port.
	for _, tt := range []struct{ arch, flavour, consoles string }{
		{"amd64", "generic", "console=ttyS0 console=tty0"},
		{"amd64", "cloud", "console=tty0 console=ttyS0"},
		{"arm64", "generic", "console=ttyAMA0 console=tty0"},
		{"arm64", "cloud", "console=tty0 console=ttyAMA0"},
	} {
		t.Run(tt.flavour+" "+tt.arch, func(t *testing.T) {
			c := release.Config{RootHash: strings.Repeat("ab", 32), Flavour: tt.flavour}
			got := commandLine(arches[tt.arch], c, []string{"debug"})
			for _, words := range []string{"roothash=" + c.RootHash, "ro", "gpt", "panic=10", tt.consoles + " debug"} {
				if !strings.Contains(" "+got+" ", " "+words+" ") {
					t.Errorf("%q lacks %q", got, words)
				}
			}
		})
	}
}

// What the README and the initrd say: 8 GiB are enough, and a release always fits.
func TestSmallestDisk(t *testing.T) {
	least, err := install.MinSize(os.DirFS("../builder/root/usr/lib/kairos/repart.d"))
	if err != nil {
		t.Fatal(err)
	}
	if least > 8<<30 {
		t.Errorf("the partitions need %d bytes, an 8 GiB disk has %d", least, int64(8<<30))
	}
	for name, want := range map[string]int64{
		"10-esp": release.ESPSize, "20-root-a": release.RootSize, "40-root-b": release.RootSize,
		"30-verity-a": release.VeritySize, "50-verity-b": release.VeritySize,
	} {
		text, err := os.ReadFile("../builder/root/usr/lib/kairos/repart.d/" + name + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		size := map[int64]string{release.ESPSize: "1G", release.RootSize: "3G", release.VeritySize: "32M"}[want]
		for _, line := range []string{"SizeMinBytes=" + size + "\n", "SizeMaxBytes=" + size + "\n"} {
			if !strings.Contains(string(text), line) {
				t.Errorf("%s.conf has no %q, which is what a release may fill", name, line)
			}
		}
	}
}
