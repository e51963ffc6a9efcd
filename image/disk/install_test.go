//go:build !race

package disk

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kairos-io/kairos/image/install"
	"github.com/kairos-io/kairos/image/slots"
)

// checkInstall installs from the medium, as the system on it does, onto a disk: both
// are loop devices, and the programs are those of the image. Then it does so once
// more over what it has installed.
func (m *media) checkInstall(t *testing.T) {
	root := m.root(t)
	file := filepath.Join(t.TempDir(), "disk")
	const size = 16 << 30
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	sys := &onLoop{t: t, box: m.box}
	medium, target := sys.attach(m.path("kairos.iso"), "--read-only"), sys.attach(file)
	sys.useImage(root)
	order := install.Order{
		From: slots.Machine{Disk: slots.Device{Path: medium}, RootHash: m.parts.config.RootHash, Live: true},
		Disk: install.Disk{Path: target}, Definitions: filepath.Join(root, install.Definitions), At: time.Unix(0, 0).UTC(),
		Config: []byte("#cloud-config\n# a secret\n"), Say: func(string) {}, Progress: func(string, int64, int64) {},
	}
	var before []slots.Partition
	for _, config := range [][]byte{order.Config, nil} {
		order.Config = config
		if err := install.Run(t.Context(), sys, order); err != nil {
			t.Fatal(err)
		}
		parts := m.checkInstalled(t, sys, order)
		for i, p := range before {
			// The slots' UUIDs are their systems'; those of an empty one are random.
			same := p.UUID == parts[i].UUID
			if want := p.Label == slots.A.RootLabel() || p.Label == slots.A.VerityLabel(); same != want {
				t.Errorf("%s has the UUID %s, and had %s", p.Label, parts[i].UUID, p.UUID)
			}
		}
		before = parts
	}
}

// checkInstalled checks what the installer has left, and returns the partitions.
func (m *media) checkInstalled(t *testing.T, sys *onLoop, o install.Order) []slots.Partition {
	t.Helper()
	f, err := os.Open(o.Disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := slots.Partitions(f, size)
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	at := map[string]slots.Partition{}
	for _, p := range parts {
		labels = append(labels, p.Label)
		at[p.Label] = p
	}
	if want := []string{"kairos-esp", "kairos-root-a", "kairos-verity-a", "kairos-root-b", "kairos-verity-b", "kairos-data"}; !slices.Equal(labels, want) {
		t.Fatalf("partitions %q, want %q", labels, want)
	}
	data := at[slots.DataLabel]
	if left := size - data.Start - data.Size; left > 2<<20 {
		t.Errorf("%d bytes of the disk are nobody's", left)
	}
	for label, blob := range map[string]string{slots.A.RootLabel(): m.parts.root, slots.A.VerityLabel(): m.parts.verity} {
		node, err := os.Open(slots.PartitionPath(o.Disk.Path, at[label].Number))
		if err != nil {
			t.Fatal(err)
		}
		if !startsWith(t, node, blob) {
			t.Errorf("%s does not hold the release", label)
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}
	sys.on(o.Disk.Path, at[slots.ESPLabel], "vfat", func(dir string) { m.checkInstalledESP(t, dir, o) })
	if out, err := exec.Command("e2fsck", "-fn", slots.PartitionPath(o.Disk.Path, data.Number)).CombinedOutput(); err != nil {
		t.Errorf("the data: %v\n%s", err, out)
	}
	sys.on(o.Disk.Path, data, "ext4", func(dir string) { checkInstalledData(t, dir, o.Config) })
	return parts
}

// checkInstalledESP: the system boots from slot a, uncounted, and not as a live one.
func (m *media) checkInstalledESP(t *testing.T, dir string, o install.Order) {
	facts, err := slots.ReadFacts(slots.Device{Path: o.Disk.Path}, slots.Directory(dir), o.From.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	st, err := slots.Inspect(facts)
	if err != nil || st.Booted.Slot != slots.A || st.Trial() || st.Booted.Record == nil || st.Booted.Record.Version != m.parts.config.Version || st.Other.State != slots.Empty {
		t.Errorf("the slots are %+v, %v", st, err)
	}
	var got []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	want := []string{"EFI/BOOT/BOOTX64.EFI", "EFI/Linux/kairos-000001.efi", "EFI/systemd/systemd-bootx64.efi", "kairos/slots.json", "kairos/slots.old", "loader/loader.conf"}
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		t.Errorf("the ESP has %q, want %q; %v", got, want, err)
	}
}

func checkInstalledData(t *testing.T, dir string, config []byte) {
	file := filepath.Join(dir, "lib/kairos/oem/90-install.yaml")
	if config == nil {
		if _, err := os.Stat(filepath.Join(dir, "lib")); !os.IsNotExist(err) {
			t.Errorf("what was there before is still there: %v", err)
		}
		return
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration, which holds a secret: %v, %v", info, err)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != string(config) {
		t.Errorf("the configuration is %q, %v", raw, err)
	}
}

// onLoop is install.Linux on loop devices. Two things that the system on the medium
// has may be missing in this host's kernel and are done by programs: reading a
// partition table, and FAT.
type onLoop struct {
	install.Linux
	t   *testing.T
	box *Toolbox
}

// attach makes a loop device of a file, for the time of the test.
func (l *onLoop) attach(file string, more ...string) string {
	l.t.Helper()
	out, err := exec.Command("losetup", append(append([]string{"--find", "--show", "--partscan"}, more...), file)...).Output()
	if err != nil {
		l.t.Fatal(err)
	}
	device := strings.TrimSpace(string(out))
	l.t.Cleanup(func() {
		// Its partitions go with it.
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			l.t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	if len(more) > 0 {
		l.nodes(device)
	}
	return device
}

// nodes makes the nodes of a device's partitions.
func (l *onLoop) nodes(device string) {
	l.t.Helper()
	if out, err := exec.Command("partx", "--update", "--type", "gpt", device).CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
}

// useImage has programs by these names come from the image: everything that they
// need is below its /usr.
func (l *onLoop) useImage(root string) {
	l.t.Helper()
	bin := l.t.TempDir()
	for _, name := range []string{"systemd-repart", "udevadm"} {
		script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation private /bin/sh -c 'mount --bind %s/usr /usr && exec env PATH=/usr/sbin:/usr/bin %s \"$@\"' image \"$@\"\n", root, name)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
	l.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

func (l *onLoop) Repart(ctx context.Context, disk, definitions string) error {
	if err := l.Linux.Repart(ctx, disk, definitions); err != nil {
		return err
	}
	l.nodes(disk)
	return nil
}

// Pin has nothing to compare with: a loop device is no disk to install on.
func (l *onLoop) Pin(disk string, _ func() error) (func() error, error) {
	return l.Linux.Pin(disk, func() error { return nil })
}

func (l *onLoop) Mount(ctx context.Context, m install.Mount) (string, func() error, error) {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return "", nil, err
	}
	if m.Type != "vfat" || strings.Contains(string(known), "\tvfat\n") {
		return l.Linux.Mount(ctx, m)
	}
	dir, err := os.MkdirTemp(l.t.TempDir(), "fat-")
	if err != nil {
		return "", nil, err
	}
	node := slots.PartitionPath(m.Disk, m.Partition.Number)
	if err := l.box.work(ctx, dir, job{script: `[ -z "$(mdir -b -i "$1" ::)" ] || mcopy -s -n -m -i "$1" '::*' .`, args: []string{node}}); err != nil {
		return "", nil, err
	}
	return dir, func() error {
		if m.ReadOnly {
			return nil
		}
		return l.box.work(ctx, dir, job{script: `[ -z "$(ls)" ] || mcopy -s -o -Q -i "$1" * ::`, args: []string{node}})
	}, nil
}

// on mounts a partition for as long as f takes.
func (l *onLoop) on(disk string, p slots.Partition, fstype string, f func(dir string)) {
	l.t.Helper()
	dir, unmount, err := l.Mount(l.t.Context(), install.Mount{Disk: disk, Partition: p, Type: fstype, ReadOnly: true})
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() {
		if err := unmount(); err != nil {
			l.t.Error(err)
		}
	}()
	f(dir)
}
