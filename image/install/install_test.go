package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/slots"
	"github.com/kairos-io/kairos/image/slots/slotstest"
)

const block = release.BlockSize

// tiny is a system of a few blocks.
type tiny struct {
	slots.Release
	content map[slots.Part][]byte
}

func newTiny() tiny {
	s := slotstest.New("v1", "amd64")
	t := tiny{content: map[slots.Part][]byte{slots.Root: s.Root, slots.Verity: s.Verity, slots.Kernel: s.UKI}}
	t.Release = slots.Release{Image: "r.example/os:v1", Pieces: map[slots.Part]slots.Piece{},
		Config: release.Config{Version: "v1", Arch: "amd64", Flavour: "cloud", RootHash: s.RootHash}}
	for part, c := range t.content {
		t.Pieces[part] = slots.Piece{Size: int64(len(c))}
	}
	return t
}

func (t tiny) Fetch(_ context.Context, p slots.Part, write func(io.Reader) error) error {
	return write(bytes.NewReader(t.content[p]))
}

// bench is a machine with the medium it runs from and a disk to install on.
type bench struct {
	dir    string
	table  []byte // what systemd-repart makes
	did    []string
	broken string // the step that fails
	lsblk  string
	seqs   map[string]string
}

func newBench(t *testing.T) (*bench, Order) {
	t.Helper()
	b := &bench{dir: t.TempDir(), table: slotstest.Disk()}
	system := newTiny()
	medium, esp := slots.Device{Path: b.disk("sda")}, slots.Directory(b.mounted("sda", 1))
	b.put(t, b.disk("sda"), string(b.table))
	b.put(t, b.disk("vda"), strings.Repeat("old", len(b.table)/3+1)[:len(b.table)])
	facts, err := slots.ReadFacts(medium, esp, "")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := slots.PlanInstall(facts, system.Release)
	if err != nil {
		t.Fatal(err)
	}
	w := slots.Writer{Disk: medium, ESP: esp, Source: system, Release: system.Release}
	if err := w.Run(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI": "boot", "EFI/systemd/systemd-bootx64.efi": "boot", "loader/loader.conf": "timeout 0\n",
		"loader/random-seed": "SECRET", "loader/keys/auto/db.auth": "SECRET", "config.yaml": "SECRET", "EFI/Linux/kairos-000001.efi.extra.d/live.addon.efi": "kairos.live",
	} {
		b.put(t, filepath.Join(string(esp), name), text)
	}
	return b, Order{
		From: slots.Machine{Disk: medium, RootHash: system.Config.RootHash, Live: true},
		Disk: b.listed(t, "vda"), Definitions: "defs", Config: []byte("#cloud-config\n"), At: time.Unix(0, 0).UTC(),
		Say: func(string) {}, Progress: func(string, int64, int64) {},
	}
}

func (b *bench) disk(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) mounted(disk string, part int) string {
	return filepath.Join(b.dir, "mnt", disk, string(rune('0'+part)))
}

func (b *bench) put(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) step(s string) error {
	b.did = append(b.did, s)
	if s == b.broken {
		return errors.New("broken")
	}
	return nil
}

func (b *bench) Repart(_ context.Context, disk, definitions string) error {
	if err := b.step("repart " + filepath.Base(disk) + " " + definitions); err != nil {
		return err
	}
	return os.WriteFile(disk, b.table, 0o600)
}

func (b *bench) Mount(_ context.Context, m Mount) (string, func() error, error) {
	name := filepath.Base(m.Disk) + " " + m.Partition.Label + " " + m.Type
	if m.ReadOnly {
		name += " ro"
	}
	dir := b.mounted(filepath.Base(m.Disk), m.Partition.Number)
	if err := b.step("mount " + name); err != nil {
		return "", nil, err
	}
	return dir, func() error { return b.step("unmount " + name) }, os.MkdirAll(dir, 0o755)
}

func (b *bench) List(context.Context) (Listing, error) {
	if b.lsblk == "" {
		b.lsblk = fmt.Sprintf(`{"blockdevices":[{"path":%q,"type":"disk","size":10},{"path":%q,"type":"disk","size":10,"serial":"1"}]}`, b.disk("sda"), b.disk("vda"))
	}
	return Listing{Lsblk: []byte(b.lsblk), Seqs: b.seqs}, b.step("list")
}

func (b *bench) Pin(disk string, check func() error) (func() error, error) {
	name := filepath.Base(disk)
	if err := errors.Join(b.step("pin "+name), check()); err != nil {
		return nil, err
	}
	return func() error { return b.step("unpin " + name) }, nil
}

// listed is a disk as a person chooses it.
func (b *bench) listed(t *testing.T, name string) Disk {
	t.Helper()
	list, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disks, err := list.Disks(Limits{})
	at := slices.IndexFunc(disks, func(d Disk) bool { return d.Name() == strings.TrimPrefix(b.disk(name), "/dev/") })
	if err != nil || at < 0 {
		t.Fatal(disks, err)
	}
	b.did = nil
	return disks[at]
}

func TestRun(t *testing.T) {
	b, o := newBench(t)
	var said []string
	o.Say = func(line string) { said = append(said, line) }
	copied := map[string]int64{}
	o.Progress = func(what string, done, _ int64) { copied[what] = done }
	if err := Run(t.Context(), b, o); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mount sda kairos-esp vfat ro", "pin vda", "list", "repart vda defs",
		"mount vda kairos-data ext4", "unmount vda kairos-data ext4",
		"mount vda kairos-esp vfat", "unmount vda kairos-esp vfat",
		"unpin vda", "unmount sda kairos-esp vfat ro",
	}
	if !slices.Equal(b.did, want) {
		t.Errorf("steps\n%q, want\n%q", b.did, want)
	}
	if len(said) != 3 || copied["write the root"] != 12*block {
		t.Errorf("told %q, %v", said, copied)
	}

	// The new disk holds the same system, in slot a, with boots that are not counted.
	esp := slots.Directory(b.mounted("vda", 1))
	facts, err := slots.ReadFacts(slots.Device{Path: o.Disk.Path}, esp, o.From.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	status, err := slots.Inspect(facts)
	if err != nil || status.Booted.Slot != slots.A || status.Trial() || status.Booted.Record == nil || !status.Booted.Record.StagedAt.Equal(o.At) {
		t.Errorf("%+v, %v", status, err)
	}
	for name, text := range map[string]string{"EFI/BOOT/BOOTX64.EFI": "boot", "EFI/systemd/systemd-bootx64.efi": "boot", "loader/loader.conf": "timeout 0\n"} {
		if raw, err := os.ReadFile(filepath.Join(string(esp), name)); err != nil || string(raw) != text {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
	for _, name := range []string{"loader/random-seed", "loader/keys/auto/db.auth", "config.yaml", "EFI/Linux/kairos-000001.efi.extra.d"} {
		if _, err := os.Stat(filepath.Join(string(esp), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was copied: %v", name, err)
		}
	}
	data := b.mounted("vda", 6)
	for name, mode := range map[string]os.FileMode{"lib": 0o755, "lib/kairos": 0o755, "lib/kairos/oem": 0o700, configFile: 0o600} {
		if info, err := os.Stat(filepath.Join(data, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if raw, err := os.ReadFile(filepath.Join(data, configFile)); err != nil || string(raw) != string(o.Config) {
		t.Errorf("configuration %q, %v", raw, err)
	}
}

func TestRunWithoutConfiguration(t *testing.T) {
	b, o := newBench(t)
	o.Config, o.From.Live, o.From.ESP = nil, false, slots.Directory(b.mounted("sda", 1)) // from an installed machine
	if err := Run(t.Context(), b, o); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(b.did, func(s string) bool { return strings.Contains(s, "data") || strings.Contains(s, "sda") }) {
		t.Errorf("steps %q", b.did)
	}
}

// Whatever fails, everything is unmounted, and the disk boots nothing.
func TestRunThatFails(t *testing.T) {
	_, o := newBench(t)
	tests := []string{"mount sda kairos-esp vfat ro", "pin vda", "list", "repart vda defs", "mount vda kairos-data ext4", "unmount vda kairos-data ext4", "mount vda kairos-esp vfat"}
	for _, broken := range tests {
		t.Run(broken, func(t *testing.T) {
			var b *bench
			b, o = newBench(t)
			b.broken = broken
			if err := Run(t.Context(), b, o); err == nil || !strings.Contains(err.Error(), "broken") {
				t.Errorf("got %v", err)
			}
			open := 0
			for _, s := range b.did {
				switch {
				case s == b.broken:
				case strings.HasPrefix(s, "mount"), strings.HasPrefix(s, "pin") && b.broken != "list":
					open++
				case strings.HasPrefix(s, "unmount"), strings.HasPrefix(s, "unpin"):
					open--
				}
			}
			if strings.HasPrefix(broken, "unmount") {
				open--
			}
			if open != 0 {
				t.Errorf("%d still mounted: %q", open, b.did)
			}
			if names, err := filepath.Glob(b.mounted("vda", 1) + "/EFI/Linux/*.efi"); err != nil || len(names) > 0 {
				t.Errorf("it would boot: %v, %v", names, err)
			}
		})
	}
}

// A disk that is not the one that a person chose, or was taken into use since, is left alone.
func TestRunOnAnotherDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(b *bench)
		want   string
	}{
		"another number":      {func(b *bench) { b.lsblk = strings.Replace(b.lsblk, `"serial":"1"`, `"serial":"2"`, 1) }, `its serial number was "1" and is "2"`},
		"another size":        {func(b *bench) { b.lsblk = strings.Replace(b.lsblk, `"size":10,"serial"`, `"size":11,"serial"`, 1) }, "it was plugged in again"},
		"another file system": {func(b *bench) { b.lsblk = strings.Replace(b.lsblk, `"serial":"1"`, `"serial":"1","fstype":"ext4"`, 1) }, `its content was "" and is "ext4"`},
		"plugged in again":    {func(b *bench) { b.seqs = map[string]string{b.disk("vda"): "9"} }, "it was plugged in again"},
		"gone":                {func(b *bench) { b.lsblk = `{"blockdevices":[]}` }, "it is gone"},
		"mounted": {func(b *bench) {
			b.lsblk = strings.Replace(b.lsblk, `"serial":"1"`, `"serial":"1","mountpoints":["/mnt"]`, 1)
		}, "is mounted at /mnt"},
	} {
		t.Run(name, func(t *testing.T) {
			b, o := newBench(t)
			tt.change(b)
			if err := Run(t.Context(), b, o); err == nil || !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if slices.ContainsFunc(b.did, func(s string) bool { return strings.HasPrefix(s, "repart") }) {
				t.Errorf("steps %q", b.did)
			}
		})
	}
}

// A medium that is not the running system installs nothing, and the disk is as it was.
func TestRunWithoutASystem(t *testing.T) {
	b, o := newBench(t)
	o.From.RootHash = strings.Repeat("0", 64)
	before, err := os.ReadFile(o.Disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), b, o); !errors.Is(err, slots.ErrLayout) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(o.Disk.Path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the disk was changed (%v)", err)
	}
}
