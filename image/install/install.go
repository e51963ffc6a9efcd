package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kairos-io/kairos/image/slots"
)

// configFile is where a machine finds the configuration that it was installed
// with, on its data partition: /oem/90-install.yaml.
const configFile = "lib/kairos/oem/90-install.yaml"

// System is what the installer does to the machine it runs on.
type System interface {
	// Repart makes the partitions of the definitions on a disk, and nothing else on it.
	Repart(ctx context.Context, disk, definitions string) error
	// Mount mounts a file system in a directory of its own until unmount, which
	// returns when it is on the disk.
	Mount(ctx context.Context, m Mount) (dir string, unmount func() error, err error)
	// List says which block devices there are.
	List(ctx context.Context) (Listing, error)
	// Pin runs check while nobody else works on the disk. Its path stays that disk's,
	// even if that is pulled, until unpin.
	Pin(disk string, check func() error) (unpin func() error, err error)
}

// Mount is a file system to mount.
type Mount struct {
	Disk      string // "/dev/vda"
	Partition slots.Partition
	Type      string // "vfat", "ext4"
	ReadOnly  bool
}

// Order is what to install, and where.
type Order struct {
	From        slots.Machine // the running system
	Disk        Disk          // to install on, as a person chose it
	Definitions string        // directory of systemd-repart's definitions
	Config      []byte        // a checked cloud-config; nil for none
	At          time.Time     // by the wall clock, for the machine's records
	Say         func(line string)
	Progress    func(what string, done, total int64)
}

// Run installs. The disk is one that Disks does not refuse, and a person has agreed
// to lose what is on it. It is looked at again right before it is written to; the error
// wraps ErrChanged when it is not the same any more.
func Run(ctx context.Context, sys System, o Order) error {
	source, closeSource, err := openSource(ctx, sys, o)
	if err != nil {
		return err
	}
	unpin, err := sys.Pin(o.Disk.Path, func() error { return lookAgain(ctx, sys, o) })
	if err != nil {
		return errors.Join(fmt.Errorf("look at the disk again: %w", err), closeSource())
	}
	o.Say("making partitions on " + o.Disk.Path)
	err = sys.Repart(ctx, o.Disk.Path, o.Definitions)
	if err == nil {
		err = fill(ctx, sys, o, source)
	}
	return errors.Join(err, unpin(), closeSource())
}

// lookAgain refuses a disk that was exchanged, changed or taken into use.
func lookAgain(ctx context.Context, sys System, o Order) error {
	list, err := sys.List(ctx)
	if err != nil {
		return err
	}
	disks, err := list.Disks(Limits{Running: o.From.Disk.Path})
	if err != nil {
		return err
	}
	for _, d := range disks {
		switch {
		case d.Path != o.Disk.Path:
		case d.Refused != "":
			return fmt.Errorf("%w: %s", ErrChanged, d.Refused)
		default:
			return o.Disk.same(d)
		}
	}
	return fmt.Errorf("%w: it is gone", ErrChanged)
}

// source is the running system, as it is to be copied.
type source struct {
	esp     slots.Directory
	medium  *slots.Medium
	release slots.Release
}

// openSource mounts the medium's ESP where the running system has not.
func openSource(ctx context.Context, sys System, o Order) (source, func() error, error) {
	s, unmount := source{esp: o.From.ESP}, func() error { return nil }
	if o.From.Live {
		part, err := find(o.From.Disk, slots.ESPLabel)
		if err != nil {
			return s, nil, fmt.Errorf("read the medium: %w", err)
		}
		dir, u, err := sys.Mount(ctx, Mount{o.From.Disk.Path, part, "vfat", true})
		if err != nil {
			return s, nil, fmt.Errorf("read the medium: %w", err)
		}
		s.esp, unmount = slots.Directory(dir), u
	}
	var err error
	if s.medium, s.release, err = slots.OpenMedium(o.From.Disk, s.esp, o.From.RootHash); err != nil {
		return s, nil, errors.Join(err, unmount())
	}
	s.release.At = o.At
	return s, unmount, nil
}

// fill writes what belongs on the new partitions. The system is last: it makes
// the disk bootable.
func fill(ctx context.Context, sys System, o Order, from source) error {
	target := slots.Device{Path: o.Disk.Path}
	if o.Config != nil {
		o.Say("writing the configuration")
		if err := on(ctx, sys, mountOf(o, slots.DataLabel, "ext4"), func(dir string) error { return writeConfig(dir, o.Config) }); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return on(ctx, sys, mountOf(o, slots.ESPLabel, "vfat"), func(dir string) error {
		esp := slots.Directory(dir)
		o.Say("writing the boot loader")
		if err := copyLoader(from.esp, esp); err != nil {
			return fmt.Errorf("write the boot loader: %w", err)
		}
		facts, err := slots.ReadFacts(target, esp, "")
		if err != nil {
			return err
		}
		plan, err := slots.PlanInstall(facts, from.release)
		if err != nil {
			return err
		}
		w := slots.Writer{Disk: target, ESP: esp, Source: from.medium, Release: from.release,
			Progress: func(s slots.Step, done, total int64) { o.Progress(s.String(), done, total) }}
		return w.Run(ctx, plan)
	})
}

// wanted is a partition of the new disk that is found once it is made.
type wanted struct{ disk, label, fstype string }

func mountOf(o Order, label, fstype string) wanted { return wanted{o.Disk.Path, label, fstype} }

// on mounts a partition of the new disk for as long as use takes.
func on(ctx context.Context, sys System, w wanted, use func(dir string) error) error {
	part, err := find(slots.Device{Path: w.disk}, w.label)
	if err != nil {
		return err
	}
	dir, unmount, err := sys.Mount(ctx, Mount{w.disk, part, w.fstype, false})
	if err != nil {
		return err
	}
	return errors.Join(use(dir), unmount())
}

// find returns the one partition of a disk that has this label.
func find(disk slots.Device, label string) (slots.Partition, error) {
	f, err := disk.Table(slots.Read)
	if err != nil {
		return slots.Partition{}, err
	}
	size, err := f.Size()
	var parts []slots.Partition
	if err == nil {
		parts, err = slots.Partitions(f, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return slots.Partition{}, err
	}
	var found []slots.Partition
	for _, p := range parts {
		if p.Label == label {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return slots.Partition{}, fmt.Errorf("%s has %d partitions called %s", disk.Path, len(found), label)
	}
	return found[0], nil
}

// loaderDirs are the directories of an ESP that hold the boot loader and its
// settings, the same on every machine.
var loaderDirs = []string{"EFI/BOOT", "EFI/systemd", "loader"}

// copyLoader copies the boot loader from one ESP to another. Random seeds and
// keys, which are a machine's own, lie there too and stay.
func copyLoader(from, to slots.Directory) error {
	copied := 0
	for _, dir := range loaderDirs {
		names, err := from.List(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			lower := strings.ToLower(name)
			if !strings.HasSuffix(lower, ".efi") && lower != "loader.conf" && lower != "entries.srel" {
				continue
			}
			raw, err := os.ReadFile(filepath.Join(string(from), dir, name))
			if err != nil {
				return err
			}
			if err := writeFile(to, path.Join(dir, name), raw); err != nil {
				return err
			}
			copied++
		}
	}
	if copied == 0 {
		return errors.New("this system's own ESP has none")
	}
	return nil
}

func writeConfig(dir string, text []byte) error {
	// As systemd-tmpfiles would make them: everybody enters /var/lib, nobody /oem.
	for _, d := range []string{"lib", "lib/kairos"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return writeFile(slots.Directory(dir), configFile, text)
}

// writeFile makes a file of mode 0600 that is durable when it returns.
func writeFile(d slots.Directory, name string, data []byte) error {
	f, err := d.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return d.SyncDir(path.Dir(name))
}

// MinSize is how large a disk must be for the definitions, in bytes: their
// SizeMinBytes and what the partition table and alignment take.
func MinSize(definitions fs.FS) (int64, error) {
	files, err := fs.Glob(definitions, "*.conf")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("read the partition definitions: there are %d files (%w)", len(files), errors.Join(err, fs.ErrNotExist))
	}
	const table = 2 << 20
	sum := int64(table)
	for _, name := range files {
		raw, err := fs.ReadFile(definitions, name)
		if err != nil {
			return 0, fmt.Errorf("read the partition definitions: %w", err)
		}
		for line := range strings.Lines(string(raw)) {
			text, ok := strings.CutPrefix(strings.TrimSpace(line), "SizeMinBytes=")
			if !ok {
				continue
			}
			n, err := parseSize(text)
			if err != nil {
				return 0, fmt.Errorf("read the partition definitions: %s: %w", name, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// parseSize reads a number with systemd's suffixes, powers of 1024.
func parseSize(s string) (int64, error) {
	shift := 10 * (strings.Index("KMGT", s[max(0, len(s)-1):]) + 1)
	if s == "" {
		shift = 0
	}
	digits := s
	if shift > 0 {
		digits = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}
