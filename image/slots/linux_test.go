package slots

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The real files do what the simulated ones claim: a disk in a file, and a
// directory for the ESP.
func TestUpgradeOfAnImageFile(t *testing.T) {
	one, two := newSystem("v1"), newSystem("v2")
	m := flashed(t, one)
	disk, esp := imageFile(t, m.disk.seen), Directory(t.TempDir())
	for name, b := range m.files {
		f, err := esp.Create(name)
		must(t, err)
		_, err = f.WriteAt(b.seen, 0)
		must(t, errors.Join(err, f.Sync(), f.Close()))
	}
	machine := Machine{Disk: disk, ESP: esp, RootHash: one.Config.RootHash}
	f, err := machine.Facts()
	must(t, err)
	p, err := PlanUpgrade(f, two.Release)
	must(t, err)
	w := &Writer{Disk: disk, ESP: esp, Source: two, Release: two.Release}
	must(t, w.Run(t.Context(), p))
	f, err = machine.Facts()
	must(t, err)
	st, err := Inspect(f)
	must(t, err)
	if st.Other.State != Staged || st.Other.RootHash != two.Config.RootHash || st.Other.Record.Version != "v2" || st.Other.Entry.Left != Tries {
		t.Errorf("got %+v", st.Other)
	}
	p, err = PlanUnstage(f)
	must(t, err)
	must(t, w.Run(t.Context(), p))
	names, err := esp.List(entriesDir)
	if err != nil || len(names) != 1 || names[0] != "kairos-000001.efi" {
		t.Errorf("left %q, %v", names, err)
	}
}

func TestWindow(t *testing.T) {
	d := imageFile(t, make([]byte, 8192))
	f, err := d.Open(Partition{Start: 1024, Size: 2048}, Write)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	if n, err := f.Size(); n != 2048 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	for _, off := range []int64{-1, 2048, 2040} {
		if _, err := f.WriteAt(make([]byte, 16), off); !errors.Is(err, errOutside) {
			t.Errorf("write at %d: %v", off, err)
		}
		if _, err := f.ReadAt(make([]byte, 16), off); !errors.Is(err, errOutside) {
			t.Errorf("read at %d: %v", off, err)
		}
	}
}

func TestDirectory(t *testing.T) {
	esp := Directory(t.TempDir())
	if _, err := esp.List("EFI/Linux"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	f, err := esp.Create("EFI/Linux/a")
	must(t, err)
	must(t, f.Close())
	if _, err := esp.Create("EFI/Linux/a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
	if _, err := esp.Open("EFI/Linux/b", Read); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(string(esp), "EFI/Linux/c")))
	if names, err := esp.List("EFI/Linux"); err != nil || len(names) != 1 || names[0] != "a" {
		t.Errorf("got %q, %v", names, err)
	}
	must(t, errors.Join(esp.Remove("EFI/Linux/a"), esp.SyncDir("EFI/Linux")))
}

func TestPartitionPath(t *testing.T) {
	for disk, want := range map[string]string{"/dev/sda": "/dev/sda4", "/dev/vda": "/dev/vda4", "/dev/nvme0n1": "/dev/nvme0n1p4", "/dev/mmcblk0": "/dev/mmcblk0p4"} {
		if got := PartitionPath(disk, 4); got != want {
			t.Errorf("%s: %s", disk, got)
		}
	}
}

// sysfs makes a machine's /proc and /sys: dm-0 over partitions of disks.
func sysfs(t *testing.T, cmdline string) System {
	t.Helper()
	root := t.TempDir()
	put := func(name, content string) {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	link := func(from, to string) {
		path := filepath.Join(root, from)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.Symlink(to, path))
	}
	put("proc/cmdline", cmdline)
	for i, p := range []string{"vda/vda1", "vda/vda2", "vda/vda3", "vdb/vdb1"} {
		put("sys/devices/block/"+p+"/partition", "1")
		link("sys/class/block/"+filepath.Base(p), "../../devices/block/"+p)
		link(fmt.Sprintf("sys/dev/block/254:%d", i+1), "../../devices/block/"+p)
	}
	put("sys/devices/virtual/dm-0/slaves/vda2", "")
	put("sys/devices/virtual/dm-0/slaves/vda3", "")
	link("sys/dev/block/253:0", "../../devices/virtual/dm-0")
	return System{Root: root, DevOf: func(path string) (major, minor uint32, err error) {
		switch strings.TrimPrefix(path, root) {
		case "/":
			return 253, 0, nil
		case "/efi":
			return 254, 1, nil
		}
		return 0, 0, fs.ErrNotExist
	}}
}

func TestFind(t *testing.T) {
	cmdline := "console=ttyS0 roothash=" + hashA + " gpt\n"
	s := sysfs(t, cmdline)
	m, err := s.Find()
	if err != nil || m.RootHash != hashA || m.Disk.Path != s.Root+"/dev/vda" || string(m.ESP) != s.Root+"/efi" || m.Live {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, tc := range []struct {
		name string
		edit func(*System)
		want string
	}{
		{"a laptop", func(s *System) { *s = sysfs(t, "root=/dev/sda1 quiet") }, ErrElsewhere.Error()},
		{"a container on an appliance", func(s *System) { s.DevOf = func(string) (uint32, uint32, error) { return 0, 45, nil } }, "/ is not on a block device"},
		{"a root that is not verified", func(s *System) { s.DevOf = func(string) (uint32, uint32, error) { return 254, 2, nil } }, "its root is not a verified one"},
		{"the ESP of another disk", func(s *System) {
			own := s.DevOf
			s.DevOf = func(path string) (uint32, uint32, error) {
				if strings.HasSuffix(path, "/efi") {
					return 254, 4, nil
				}
				return own(path)
			}
		}, "is not on the disk vda of the root"},
	} {
		s := sysfs(t, cmdline)
		tc.edit(&s)
		if _, err := s.Find(); !errors.Is(err, ErrElsewhere) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	must(t, os.MkdirAll(s.Root+"/run/kairos/live", 0o755))
	if m, err := s.Find(); err != nil || !m.Live || m.Disk.Path != s.Root+"/dev/vda" {
		t.Errorf("the installation medium: %+v, %v", m, err)
	}
	if _, _, err := ThisSystem.DevOf("/"); err != nil {
		t.Error(err)
	}
}
