//go:build !race

package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/builder"
	"github.com/kairos-io/kairos/image/slots"
)

// The test makes a real image, release, disk and installer, twice. Debian and the
// tools come out of the module's build cache, or from a mirror when they are not
// there yet; in the place of our programs is this test's own. Unpacking and hashing
// Debian under the race detector takes minutes and finds nothing: no goroutine of
// ours takes part.
func TestMedia(t *testing.T) {
	cache := filepath.Join("..", "..", "build", "cache")
	mirrors, err := builder.FindMirrors(builder.Mirrors{}, os.Getenv, "/etc/apt")
	if err != nil {
		t.Fatal(err)
	}
	box := ToolboxOptions{CacheDir: cache, Mirrors: mirrors, Log: io.Discard}
	layout := filepath.Join(t.TempDir(), "os")
	if _, err := builder.OS(t.Context(), builder.OSOptions{
		Out: layout, Log: io.Discard,
		Base:   builder.BaseOptions{Arch: "amd64", CacheDir: cache, Mirrors: mirrors, Log: io.Discard},
		Source: builder.Source{Dir: "../..", Version: "v1.2.3", Time: time.Unix(1767225600, 0)},
		Compiler: func(context.Context, builder.Source, builder.Program, string) ([]byte, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return os.ReadFile(self)
		},
	}); err != nil {
		t.Fatal(err)
	}
	one, two := newMedia(t, layout, box), newMedia(t, layout, box)
	t.Run("the same bytes twice", func(t *testing.T) {
		if one.digest != two.digest {
			t.Errorf("release: %s and %s", one.digest, two.digest)
		}
		for _, name := range []string{"kairos.raw", "kairos.iso"} {
			if out, err := exec.Command("cmp", one.path(name), two.path(name)).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
	t.Run("partitions of the disk", func(t *testing.T) { one.checkPartitions(t, "kairos.raw", 3<<30, 32<<20) })
	t.Run("partitions of the installer", func(t *testing.T) { one.checkPartitions(t, "kairos.iso", 0, 0) })
	t.Run("compressed", one.checkCompressed)
	t.Run("volume ID of the installer's ESP", one.checkVolumeID)
	t.Run("ESP of the disk", func(t *testing.T) { one.checkESP(t, "kairos.raw") })
	t.Run("ESP of the installer", func(t *testing.T) {
		one.checkESP(t, "kairos.iso", "EFI/Linux/kairos-000001.efi.extra.d/live.addon.efi")
	})
	t.Run("UKI", one.checkUKI)
	t.Run("no identity", one.checkRoot)
	t.Run("what Kubernetes needs of the kernel", one.checkKernel)
	t.Run("a disk's own UUIDs", one.checkIdentity)
	t.Run("installed onto a disk", one.checkInstall)
}

// media is a release and what is made of it.
type media struct {
	dir     string
	digest  string
	options ToolboxOptions
	box     *Toolbox
	parts   parts
}

func (m *media) path(name string) string { return filepath.Join(m.dir, name) }

func newMedia(t *testing.T, layout string, box ToolboxOptions) *media {
	t.Helper()
	m := &media{dir: t.TempDir(), options: box}
	digest, err := Release(t.Context(), ReleaseOptions{Layout: layout, Arch: "amd64", Fast: true, Out: m.path("release"), Toolbox: box})
	if err != nil {
		t.Fatal(err)
	}
	m.digest = digest.String()
	for name, write := range map[string]func(context.Context, MediumOptions) error{"kairos.raw": Raw, "kairos.iso": ISO} {
		if err := write(t.Context(), MediumOptions{Release: m.path("release"), Arch: "amd64", Out: m.path(name), Toolbox: box}); err != nil {
			t.Fatal(err)
		}
	}
	if m.box, err = OpenToolbox(t.Context(), box); err != nil {
		t.Fatal(err)
	}
	if m.parts, err = openRelease(m.path("release"), "amd64"); err != nil {
		t.Fatal(err)
	}
	return m
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// table is what the partition table of a medium says. The file is open until the end of
// the test.
func (m *media) table(t *testing.T, name string) (*os.File, []slots.Partition) {
	t.Helper()
	f, err := os.Open(m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	list, err := slots.Partitions(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return f, list
}

// checkPartitions: sizes are those of a machine's disk, or 0 for just as large as
// what is in them.
func (m *media) checkPartitions(t *testing.T, name string, root, verity int64) {
	f, list := m.table(t, name)
	rootID, verityID, err := slots.UUIDs(m.parts.config.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		label string
		uuid  string
		size  int64
		blob  string
	}{
		{"kairos-esp", "", 0, ""},
		{"kairos-root-a", rootID.String(), root, m.parts.root},
		{"kairos-verity-a", verityID.String(), verity, m.parts.verity},
	}
	if len(list) != len(want) {
		t.Fatalf("got %+v", list)
	}
	for i, p := range list {
		w := want[i]
		if p.Label != w.label || w.uuid != "" && p.UUID.String() != w.uuid || w.size != 0 && p.Size != w.size {
			t.Errorf("got %+v, want %+v", p, w)
		}
		if w.blob != "" && !startsWith(t, io.NewSectionReader(f, p.Start, p.Size), w.blob) {
			t.Errorf("%s does not hold the release", w.label)
		}
	}
}

func startsWith(t *testing.T, r io.Reader, path string) bool {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, r, st.Size()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)) == sumOf(t, path)
}

// checkESP: these files and no others; no random seed, which would be the same on
// every machine.
func (m *media) checkESP(t *testing.T, name string, more ...string) {
	want := append([]string{
		"EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi", "EFI/Linux/kairos-000001.efi", "loader/loader.conf", "kairos/slots.json",
	}, more...)
	_, list := m.table(t, name)
	script := fmt.Sprintf("mdir -b -/ -i %s@@%d :: >list", name, list[0].Start)
	if err := m.box.work(t.Context(), m.dir, job{script: script}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(m.path("list"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if file := strings.TrimPrefix(strings.TrimSpace(line), "::/"); !strings.HasSuffix(file, "/") {
			got = append(got, file)
		}
	}
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// checkCompressed: the disk comes out of its compressed form byte for byte.
func (m *media) checkCompressed(t *testing.T) {
	out := m.path("kairos.raw.zst")
	if err := Raw(t.Context(), MediumOptions{Release: m.path("release"), Arch: "amd64", Out: out, Toolbox: m.options}); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("sh", "-c", `zstd -dc "$1" | cmp - "$2"`, "sh", out, m.path("kairos.raw")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	packed, err := os.Stat(out)
	if err != nil || packed.Size() > 1<<30 {
		t.Errorf("it has %d bytes, %v", packed.Size(), err)
	}
}

// checkVolumeID: each release's installer has an ID of its own, in the boot sector of
// its FAT.
func (m *media) checkVolumeID(t *testing.T) {
	f, list := m.table(t, "kairos.iso")
	id := make([]byte, 4)
	const place = 67 // of BS_VolID in FAT32
	if _, err := f.ReadAt(id, list[0].Start+place); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(derivedUUID("medium "+m.parts.digest.Hex), "-", "")[:8]
	if got := fmt.Sprintf("%08x", binary.LittleEndian.Uint32(id)); got != want {
		t.Errorf("the volume ID is %s, want %s", got, want)
	}
}

func (m *media) checkUKI(t *testing.T) {
	f, err := os.Open(m.parts.uki)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, err := slots.ReadUKI(f)
	if err != nil {
		t.Fatal(err)
	}
	if u.Arch != "amd64" || u.RootHash != m.parts.config.RootHash {
		t.Errorf("got %+v", u)
	}
}

// root is the release's root as a directory.
func (m *media) root(t *testing.T) string {
	t.Helper()
	root := m.path("root")
	if _, err := os.Stat(root); err == nil {
		return root
	}
	if err := m.box.work(t.Context(), filepath.Dir(m.parts.root), job{
		bind: map[string]string{"/run/out": m.dir}, script: `fsck.erofs --extract=/run/out/root "$1"`, args: []string{filepath.Base(m.parts.root)},
	}); err != nil {
		t.Fatal(err)
	}
	return root
}

// checkRoot: nothing in the root is one machine's, and what the disk needs is there.
func (m *media) checkRoot(t *testing.T) {
	root := m.root(t)
	for _, pattern := range []string{
		"etc/ssh/ssh_host_*", "etc/hostname", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id", "boot/vmlinuz-*", "boot/initrd*",
		"var/log/*.log", "root/.ssh/*",
	} {
		if found, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(found) > 0 {
			t.Errorf("%q, %v", found, err)
		}
	}
	if id, err := os.ReadFile(filepath.Join(root, "etc/machine-id")); err != nil || string(id) != "uninitialized\n" {
		t.Errorf("machine-id: %q, %v", id, err)
	}
	shadow, err := os.ReadFile(filepath.Join(root, "etc/shadow"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(shadow)) {
		if fields := strings.Split(line, ":"); fields[1] != "*" && !strings.HasPrefix(fields[1], "!") {
			t.Errorf("an account with a password: %s", fields[0])
		}
	}
	for _, dir := range []string{"efi", "oem", "home", "root", "opt", "srv", "usr/local", "var", "etc"} {
		if st, err := os.Stat(filepath.Join(root, dir)); err != nil || !st.IsDir() {
			t.Errorf("%s is not there to be mounted: %v", dir, err)
		}
	}
	if names, err := os.ReadDir(filepath.Join(root, "boot")); err != nil || len(names) == 0 {
		t.Errorf("boot is empty: the ESP would be mounted there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/systemd/system/multi-user.target.wants/systemd-networkd.service")); errors.Is(err, fs.ErrNotExist) {
		t.Error("presets were not applied: an upgrade would not have the units that they name")
	}
}
