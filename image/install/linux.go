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

// List returns what lsblk says of all block devices, for ParseDisks and Volumes.
func List(ctx context.Context) ([]byte, error) {
	return output(ctx, "lsblk", "--json", "--bytes", "--output", Columns)
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
	dir, err := os.MkdirTemp("/run", "kairos-install-")
	if err != nil {
		return "", nil, err
	}
	flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC)
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	data := ""
	if m.Type == "vfat" {
		data = "umask=0077"
	}
	device := slots.PartitionPath(m.Disk, m.Partition.Number)
	if err := unix.Mount(device, dir, m.Type, flags, data); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount %s: %w", device, err), os.Remove(dir))
	}
	return dir, func() error {
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", device, err)
		}
		return os.Remove(dir)
	}, nil
}

// Text reads a file of a file system that nobody has mounted.
func Text(device, name string) ([]byte, error) {
	dir, err := os.MkdirTemp("/run", "kairos-install-")
	if err != nil {
		return nil, err
	}
	for _, fstype := range []string{"iso9660", "vfat"} {
		if err = unix.Mount(device, dir, fstype, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err == nil {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", device, err), os.Remove(dir))
	}
	raw, err := os.ReadFile(filepath.Join(dir, name))
	return raw, errors.Join(err, unix.Unmount(dir, 0), os.Remove(dir))
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
