package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kairos-io/kairos/image/slots"
)

// Definitions is where the image keeps the partitions of a machine.
const Definitions = "/usr/lib/kairos/repart.d"

// Linux is the System of the machine that this program runs on, as root.
type Linux struct{}

// List implements System.
func (Linux) List(ctx context.Context) (Listing, error) { return List(ctx) }

// List says which block devices this machine has.
func List(ctx context.Context) (Listing, error) {
	text, err := output(ctx, "lsblk", "--json", "--bytes", "--output", Columns)
	if err != nil {
		return Listing{}, err
	}
	l := Listing{text, map[string]string{}, map[string]string{}}
	links, err := filepath.Glob("/dev/disk/by-path/*")
	if err != nil {
		return Listing{}, err
	}
	for _, link := range links {
		if path, err := filepath.EvalSymlinks(link); err == nil && l.Places[path] == "" { // of several, always the same
			l.Places[path] = filepath.Base(link)
		}
	}
	seqs, err := filepath.Glob("/sys/block/*/diskseq")
	if err != nil {
		return Listing{}, err
	}
	for _, file := range seqs {
		if seq, err := os.ReadFile(file); err == nil { // else it was pulled just now
			l.Seqs["/dev/"+filepath.Base(filepath.Dir(file))] = strings.TrimSpace(string(seq))
		}
	}
	return l, nil
}

// Pin implements System. The lock is the one that udev, systemd-repart and other
// installers take; it cannot be held while systemd-repart works. A device that is open
// keeps its name, so that a disk that is plugged in meanwhile gets another one.
func (Linux) Pin(disk string, check func() error) (func() error, error) {
	f, err := os.Open(disk)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	if err == nil {
		err = errors.Join(check(), unix.Flock(int(f.Fd()), unix.LOCK_UN))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// Repart implements System.
func (Linux) Repart(ctx context.Context, disk, definitions string) error {
	if _, err := output(ctx, "systemd-repart", "--dry-run=no", "--empty=force", "--seed=random",
		"--no-pager", "--pretty=no", "--definitions="+definitions, disk); err != nil {
		return err
	}
	// The partitions' nodes are udev's to make.
	_, err := output(ctx, "udevadm", "settle", "--timeout=30")
	return err
}

// Mount implements System.
func (Linux) Mount(_ context.Context, m Mount) (string, func() error, error) {
	return mount(slots.PartitionPath(m.Disk, m.Partition.Number), m.ReadOnly, m.Type)
}

// Text reads a file of a volume, whether it is mounted somewhere or not.
func Text(device, name string) (raw []byte, err error) {
	dir, unmount, err := mount(device, true, "vfat", "iso9660")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	return os.ReadFile(filepath.Join(dir, name))
}

// mount mounts a device, by the first type that it has, in a new directory.
func mount(device string, readOnly bool, types ...string) (string, func() error, error) {
	dir, err := os.MkdirTemp("/run", "kairos-install-")
	if err != nil {
		return "", nil, err
	}
	for _, fstype := range types {
		if err = mountAt(device, dir, fstype, readOnly); err == nil {
			break
		}
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount %s: %w", device, err), os.Remove(dir))
	}
	return dir, func() error {
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", device, err)
		}
		return os.Remove(dir)
	}, nil
}

func mountAt(device, dir, fstype string, readOnly bool) error {
	const flags = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	data := ""
	if fstype == "vfat" {
		data = "umask=0077"
	}
	if !readOnly {
		return unix.Mount(device, dir, fstype, flags, data)
	}
	err := unix.Mount(device, dir, fstype, flags|unix.MS_RDONLY|unix.MS_SILENT, data)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	// Somebody has it mounted for writing, and all mounts share one file system:
	// only this mount is read-only then.
	if err := unix.Mount(device, dir, fstype, flags|unix.MS_SILENT, data); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", flags|unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return errors.Join(err, unix.Unmount(dir, 0))
	}
	return nil
}

// ESP is the device of the ESP on the medium that the system runs from.
func ESP(_ context.Context, m slots.Machine) (string, error) {
	part, err := find(m.Disk, slots.ESPLabel)
	if err != nil {
		return "", err
	}
	return slots.PartitionPath(m.Disk.Path, part.Number), nil
}

// output runs a program and returns what it wrote to standard output.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		text := strings.Join(strings.Fields(errOut.String()), " ")
		if len(text) > 500 {
			text = "..." + text[len(text)-500:]
		}
		return nil, fmt.Errorf("run %s: %w: %s", name, err, text)
	}
	return out, nil
}
