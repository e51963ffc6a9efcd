package slots

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Device is a block device of this machine, or an image file. The zero value is not usable.
type Device struct {
	Path string // "/dev/sda"
}

// Table implements Disk. The lock keeps udev from reading the table while it is
// half written; it looks again when the file is closed.
func (d Device) Table(mode Mode) (File, error) {
	f, err := openFile(d.Path, mode)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if mode == Write {
		how = unix.LOCK_EX
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", d.Path, err), f.Close())
	}
	return f, nil
}

// Open implements Disk: the node of the partition, because its cache is not that
// of the whole device; in an image file it is a window.
func (d Device) Open(p Partition, mode Mode) (File, error) {
	info, err := os.Stat(d.Path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		f, err := openFile(d.Path, mode)
		return window{f, p.Start, p.Size}, err
	}
	return openFile(PartitionPath(d.Path, p.Number), mode)
}

// PartitionPath names a partition's node as the kernel does: a digit at the end
// of the disk's name is followed by a p.
func PartitionPath(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		return fmt.Sprintf("%sp%d", disk, number)
	}
	return fmt.Sprintf("%s%d", disk, number)
}

func openFile(path string, mode Mode) (*osFile, error) {
	flag := os.O_RDONLY
	if mode == Write {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(path, flag, 0)
	return &osFile{f}, err
}

// osFile is a file or a block device.
type osFile struct{ *os.File }

// Sync implements File. The advice drops the pages, which are clean now.
func (f *osFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// Size implements File; a block device tells it only by its end.
func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode().IsRegular() {
		return info.Size(), nil
	}
	return f.Seek(0, 2)
}

// window is a part of a file.
type window struct {
	*osFile
	start, size int64
}

var errOutside = errors.New("outside of the partition")

// ReadAt implements io.ReaderAt.
func (w window) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > w.size {
		return 0, errOutside
	}
	return w.osFile.ReadAt(p, w.start+off)
}

// WriteAt implements io.WriterAt.
func (w window) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > w.size {
		return 0, errOutside
	}
	return w.osFile.WriteAt(p, w.start+off)
}

// Size implements File.
func (w window) Size() (int64, error) { return w.size, nil }

// Directory is an ESP where it is mounted.
type Directory string

// List implements ESP.
func (d Directory) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(d.path(dir))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Open implements ESP.
func (d Directory) Open(name string, mode Mode) (File, error) { return openFile(d.path(name), mode) }

// Create implements ESP; it makes the directory that name is in.
func (d Directory) Create(name string) (File, error) {
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return &osFile{f}, err
}

// Remove implements ESP.
func (d Directory) Remove(name string) error { return os.Remove(d.path(name)) }

// SyncDir implements ESP.
func (d Directory) SyncDir(dir string) error {
	f, err := os.Open(d.path(dir))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d Directory) path(name string) string {
	return filepath.Join(string(d), filepath.FromSlash(name))
}

// Machine is the machine that this program runs on.
type Machine struct {
	Disk     Device
	ESP      Directory
	RootHash string // of the running system
	Live     bool   // it runs from the installation medium: ESP is not set
}

// ErrElsewhere: this is not a machine that was flashed or installed.
var ErrElsewhere = errors.New("this machine does not run from a disk with two slots")

// System is where a machine is looked at; tests bring directories of their own.
type System struct {
	Root  string                                             // "" or a directory that has proc, sys, dev and efi
	DevOf func(path string) (major, minor uint32, err error) // of the file system there
}

// ThisSystem is the running one.
var ThisSystem = System{DevOf: devOf}

// devOf opens the path, because stat(2) alone does not have an automount mounted:
// /efi is one.
func devOf(path string) (major, minor uint32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return unix.Major(st.Dev), unix.Minor(st.Dev), nil
}

// Facts looks at the machine's disk.
func (m Machine) Facts() (Facts, error) { return ReadFacts(m.Disk, m.ESP, m.RootHash) }

// Find returns the machine: its disk is the one that holds the verified root's
// partition, and the ESP must be on that disk too, because a stick that the
// machine was installed from looks just like it.
func (s System) Find() (Machine, error) {
	raw, err := os.ReadFile(s.Root + "/proc/cmdline")
	if err != nil {
		return Machine{}, fmt.Errorf("read the kernel's command line: %w", err)
	}
	m := Machine{ESP: Directory(s.Root + "/efi"), RootHash: RootHashOf(string(raw))}
	if _, _, err := UUIDs(m.RootHash); err != nil {
		return Machine{}, ErrElsewhere
	}
	disk, err := s.rootDisk()
	if err != nil {
		return Machine{}, err
	}
	m.Disk.Path = s.Root + "/dev/" + disk
	if _, err := os.Stat(s.Root + "/run/kairos/live"); err == nil {
		m.Live, m.ESP = true, ""
		return m, nil
	}
	esp, err := s.blockOf("/efi")
	if err != nil {
		return Machine{}, fmt.Errorf("find the ESP: %w", err)
	}
	if on, err := diskOf(esp); err != nil || on != disk {
		return Machine{}, fmt.Errorf("%w: the ESP at /efi is not on the disk %s of the root", ErrElsewhere, disk)
	}
	return m, nil
}

// rootDisk returns the name of the disk that root and hash tree are on.
func (s System) rootDisk() (string, error) {
	verified, err := s.blockOf("/")
	if err != nil {
		return "", err
	}
	slaves, err := os.ReadDir(filepath.Join(verified, "slaves")) // the root and its hash tree
	if err != nil || len(slaves) == 0 {
		return "", fmt.Errorf("%w: its root is not a verified one", ErrElsewhere)
	}
	disk := ""
	for _, p := range slaves {
		parent, err := diskOf(filepath.Join(s.Root, "/sys/class/block", p.Name()))
		if err != nil {
			return "", err
		}
		if disk != "" && disk != parent {
			return "", fmt.Errorf("%w: root and hash tree are on different disks", ErrElsewhere)
		}
		disk = parent
	}
	return disk, nil
}

// blockOf returns the directory in sysfs of the device that a file system is on.
func (s System) blockOf(path string) (string, error) {
	major, minor, err := s.DevOf(s.Root + path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("%s/sys/dev/block/%d:%d", s.Root, major, minor))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s is not on a block device", ErrElsewhere, path)
	}
	return dir, err
}

// diskOf returns the name of the disk that a partition's directory in sysfs is below.
func diskOf(dir string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("find the disk: %w", err)
	}
	if _, err := os.Stat(filepath.Join(real, "partition")); err != nil {
		return "", fmt.Errorf("%w: %s is not a partition", ErrElsewhere, filepath.Base(real))
	}
	return filepath.Base(filepath.Dir(real)), nil
}
